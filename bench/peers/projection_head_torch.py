#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A projection head of multi-vector retrieval with torch, as sentence encoders run it; a peer of pare_bench.

usage: projection_head_torch.py THREADS ROWS

384 inputs through a block of 768 with a residual layer and SiLU to rows of 128 of length 1, in float.
"seconds" is the fastest run; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch
from torch.nn import functional


def main():
    threads, rows = map(int, sys.argv[1:3])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    x = torch.rand(rows, 384)
    up, residual, down = torch.rand(768, 384) / 10, torch.rand(768, 384) / 10, torch.rand(128, 768) / 10

    def head():
        wide = functional.silu(functional.linear(x, up)) + functional.linear(x, residual)
        return functional.normalize(functional.linear(wide, down), dim=1)

    with torch.inference_mode():
        seconds = torch_timing.fastest(head, budget=1.0, warm_ups=3)
    json.dump({"seconds": seconds, "torch": torch.__version__}, sys.stdout)


main()
