#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two factors in place of a layer with torch; a peer of pare_bench.

usage: apply_torch.py f32|bf16 THREADS OUT IN RANK ROWS

`bf16` has rows of bf16 too, which torch needs and ours does not. "seconds" is the fastest run; one
JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def main():
    scalar = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[1]]
    threads, out, width, rank, rows = map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    left, right = torch.randn(out, rank).to(scalar), torch.randn(rank, width).to(scalar)
    x = torch.randn(rows, width).to(scalar)
    linear = torch.nn.functional.linear
    with torch.inference_mode():
        best = torch_timing.fastest(lambda: linear(linear(x, right), left), budget=0.5, warm_ups=3)
    print(json.dumps({"seconds": best, "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
