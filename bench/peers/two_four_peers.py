#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A 2:4 weight times a vector by compressed sparse rows; a peer of pare_bench.

usage: two_four_peers.py scipy|torch THREADS OUT IN

Values are float: neither library has such products of bf16, and neither has a product of 2:4 weights
on a CPU (torch's semi-structured tensors are CUDA's). scipy runs on one thread. Calls go round among
copies of 128 MiB together. "seconds" is the fastest run; one JSON object goes to standard output.
"""
import itertools
import json
import sys

import torch_timing  # before torch

import numpy as np


def two_four_rows(outputs, inputs):
    """Random values of a random two of each four columns, as compressed rows."""
    random = np.random.default_rng(1)
    pairs = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], dtype=np.int32)
    groups = outputs * inputs // 4
    first = np.tile(np.arange(0, inputs, 4, dtype=np.int32), outputs)
    columns = (pairs[random.integers(6, size=groups)] + first[:, None]).ravel()
    values = random.standard_normal(2 * groups, dtype=np.float32)
    offsets = np.arange(outputs + 1, dtype=np.int32) * (inputs // 2)
    return offsets, columns, values


def main():
    library, threads, outputs, inputs = sys.argv[1], *map(int, sys.argv[2:])
    offsets, columns, values = two_four_rows(outputs, inputs)
    copies = 1 + (128 << 20) // (values.nbytes + columns.nbytes)
    x = np.random.default_rng(2).standard_normal(inputs, dtype=np.float32)
    if library == "scipy":
        from scipy.sparse import csr_matrix

        turn = itertools.cycle(
            [csr_matrix((values.copy(), columns.copy(), offsets), (outputs, inputs)) for _ in range(copies)])
    else:
        import torch

        torch.set_num_threads(threads)
        x = torch.from_numpy(x)
        turn = itertools.cycle([
            torch.sparse_csr_tensor(*(torch.tensor(part) for part in (offsets, columns, values)), (outputs, inputs))
            for _ in range(copies)
        ])
    best = torch_timing.fastest(lambda: next(turn) @ x, budget=0.5, warm_ups=2 * copies)
    print(json.dumps({"seconds": best, "library": library}))


if __name__ == "__main__":
    main()
