#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Causal attention with torch's scaled_dot_product_attention; a peer of pare_bench.

usage: attention_torch.py f32|bf16 THREADS HEADS QUERIES KEYS DIM [LAYERS]

QUERIES are the last of KEYS tokens. Calls go round among LAYERS of keys and values, one where it is
left out. Fewer queries than keys are seen from the bottom right: by a mask of their own, or without
one where a single query sees all. "seconds" is the fastest run; one JSON object goes to standard
output.
"""
import itertools
import json
import sys

import torch_timing  # before torch

import torch
from torch.nn.functional import scaled_dot_product_attention


def main():
    scalar = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[1]]
    threads, heads, queries, keys, dim = map(int, sys.argv[2:7])
    layers = int(sys.argv[7]) if len(sys.argv) > 7 else 1
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)

    def tensor(tokens):
        return torch.randn(1, heads, tokens, dim).to(scalar)

    query = tensor(queries)
    turn = itertools.cycle([(tensor(keys), tensor(keys)) for _ in range(layers)])
    options = {"is_causal": True} if queries == keys else {}
    if 1 < queries < keys:
        options["attn_mask"] = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)

    def attend():
        key, value = next(turn)
        scaled_dot_product_attention(query, key, value, **options)

    with torch.inference_mode():
        best = torch_timing.fastest(attend, budget=0.5, warm_ups=3)
    print(json.dumps({"seconds": best, "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
