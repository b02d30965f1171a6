#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rank-one edits and shared factors with torch; a peer of pare_bench.

usage: edits_torch.py rome THREADS OUT IN
       edits_torch.py shared THREADS WEIGHTS OUT IN LATENT

`rome` decomposes the second moment of the inputs in double, solves for one key and writes the
edited weight in float. `shared` is the truncated SVD of the stacked weights by the eigenvectors of
its smaller Gram matrix, in float. "seconds" is the fastest run; one JSON object goes to standard
output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def rome(w, c, key, value):
    image = torch.cholesky_solve(key[:, None], torch.linalg.cholesky(c))[:, 0]
    change = (value - w.double() @ key) / (key @ image)
    return w + torch.outer(change, image).float()


def shared(weights, latent):
    stacked = torch.cat(weights)
    _, v = torch.linalg.eigh(stacked.T @ stacked)
    v = v[:, -latent:]
    return stacked @ v, v.T


def main():
    way, threads, *sizes = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    sizes = list(map(int, sizes))
    if way == "rome":
        rows, columns = sizes
        x = torch.randn(columns + 64, columns, dtype=torch.double)
        c = x.T @ x / len(x)
        w, key, value = torch.randn(rows, columns), x[0], torch.randn(rows, dtype=torch.double)
        work = lambda: rome(w, c, key, value)
    else:
        count, rows, columns, latent = sizes
        weights = [torch.randn(rows, columns) for _ in range(count)]
        work = lambda: shared(weights, latent)
    print(json.dumps({"seconds": torch_timing.fastest(work, budget=2.0, warm_ups=1),
                      "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
