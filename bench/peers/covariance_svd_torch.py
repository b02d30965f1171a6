#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Factors of a layer in the metric of its inputs' covariance, and eigenvectors, with torch; a peer of pare_bench.

usage: covariance_svd_torch.py WAY THREADS OUT IN RANK

`outputs` takes the principal axes of W C W^T, which is exact; `cholesky` (SVD-LLM) decomposes W L
for C = L L^T; both in double. `eigh` is all eigenvalues and vectors of an OUT x OUT matrix in
double; `gram` is no covariance's: the singular vectors of W in float, by those of W W^T. "seconds" is the fastest run; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def by_outputs(w, c, rank):
    wide = w.double()
    _, u = torch.linalg.eigh(wide @ c @ wide.T)
    u = u[:, -rank:]
    return u.float(), (u.T @ wide).float()


def by_cholesky(w, c, rank):
    lower = torch.linalg.cholesky(c)
    u, s, vt = torch.linalg.svd(w.double() @ lower, full_matrices=False)
    right = torch.linalg.solve_triangular(lower.T, vt[:rank].T, upper=True).T
    return (u[:, :rank] * s[:rank]).float(), right.float()


def by_gram(w, rank):
    _, u = torch.linalg.eigh(w @ w.T)
    u = u[:, -rank:]
    return u, u.T @ w


def main():
    way = sys.argv[1]
    threads, rows, columns, rank = map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    if way == "gram":
        w = torch.randn(rows, columns)
        return report(lambda: by_gram(w, rank))
    x = torch.randn(2 * columns, columns, dtype=torch.double)
    x *= torch.arange(1, columns + 1, dtype=torch.double) ** -0.5
    c = x.T @ x
    w = torch.randn(rows, columns)
    ways = {
        "outputs": lambda: by_outputs(w, c, rank),
        "cholesky": lambda: by_cholesky(w, c, rank),
        "eigh": lambda: torch.linalg.eigh(c),
    }
    report(ways[way])


def report(work):
    print(json.dumps({"seconds": torch_timing.fastest(work, budget=2.0, warm_ups=1),
                      "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
