#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sampled softmax with torch; a peer of pare_bench.

usage: sampled_softmax_torch.py loss|gradient THREADS ROWS NEGATIVES ITEMS DIM

Logits are products of users with the rows of negatives that all share, accidental hits are masked. Ways: cross_entropy of
the positive's logit beside the others, and logsumexp of both. The table's gradient is dense, as ours. "seconds" is
the fastest run of the fastest way; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def main():
    what, threads, rows, count, items, dim = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    gradient = what == "gradient"
    users = torch.randn(rows, dim, requires_grad=gradient)
    table = torch.randn(items, dim, requires_grad=gradient)
    positives = torch.randint(items, (rows,))
    negatives = torch.randint(items, (count,))
    first = torch.zeros(rows, dtype=torch.long)

    def logits():
        positive = (users * table[positives]).sum(1, keepdim=True)
        others = users @ table[negatives].T
        return positive, others.masked_fill(positives[:, None] == negatives, float("-inf"))

    def by_cross_entropy():
        return torch.nn.functional.cross_entropy(torch.cat(logits(), 1), first)

    def by_logsumexp():
        positive, others = logits()
        return (torch.logaddexp(positive[:, 0], others.logsumexp(1)) - positive[:, 0]).mean()

    def run(loss):
        if gradient:
            users.grad = table.grad = None
            loss().backward()
        else:
            with torch.inference_mode():
                loss()

    ways = {f.__name__: torch_timing.fastest(lambda f=f: run(f), budget=1.0, warm_ups=1)
            for f in (by_cross_entropy, by_logsumexp)}
    best = min(ways, key=ways.get)
    print(json.dumps({"seconds": ways[best], "way": best, "ways": ways,
                      "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
