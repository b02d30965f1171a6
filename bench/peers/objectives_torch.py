#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""DirectAU's uniformity with torch, as its code writes it; a peer of pare_bench.

usage: objectives_torch.py loss|gradient THREADS ROWS DIM

Ways: the distances of all pairs by torch.pdist, as the code, and by a product of matrices. "seconds" is
the fastest run of the fastest way; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def main():
    what, threads, rows, dim = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    x = torch.randn(rows, dim, requires_grad=what == "gradient")

    def by_pdist():
        u = torch.nn.functional.normalize(x, dim=-1)
        return torch.pdist(u, p=2).pow(2).mul(-2).exp().mean().log()

    def by_product():
        u = torch.nn.functional.normalize(x, dim=-1)
        w = (4 * (u @ u.T - 1)).exp()
        return ((w.sum() - w.diagonal().sum()) / (rows * (rows - 1))).log()

    def run(loss):
        if what == "gradient":
            x.grad = None
            loss().backward()
        else:
            with torch.inference_mode():
                loss()

    ways = {f.__name__: torch_timing.fastest(lambda f=f: run(f), budget=1.0, warm_ups=1)
            for f in (by_pdist, by_product)}
    best = min(ways, key=ways.get)
    print(json.dumps({"seconds": ways[best], "way": best, "ways": ways,
                      "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
