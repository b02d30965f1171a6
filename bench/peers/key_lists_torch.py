#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Attention over lists of keys, and lists of the keys whose codes agree most, with torch; a peer of
pare_bench.

usage: key_lists_torch.py attend|select f32|bf16 THREADS HEADS QUERIES KEYS DIM COUNT

attend: the faster of SDPA under a boolean mask and of rows that are gathered and multiplied, some at
a time. select: equal codes of DIM / 8 sub-spaces counted for each pair, and the COUNT largest counts
of each query, some queries at a time. "seconds" is the fastest run; one JSON object goes to standard
output.
"""
import json
import sys

import torch_timing  # before torch

import torch
from torch.nn.functional import scaled_dot_product_attention


def attend_forms(scalar, heads, queries, keys, dim, count):
    def tensor(tokens):
        return torch.randn(1, heads, tokens, dim).to(scalar)

    q, k, v = tensor(queries), tensor(keys), tensor(keys)
    lists = torch.rand(heads, queries, keys).topk(count, -1).indices.sort(-1).values
    mask = torch.zeros(1, heads, queries, keys, dtype=torch.bool).scatter_(-1, lists[None], True)
    some = max(1, (1 << 24) // (count * dim))

    def gathered():
        out = torch.empty_like(q)
        for h in range(heads):
            for i in range(0, queries, some):
                rows = lists[h, i:i + some]
                scores = torch.einsum("id,ijd->ij", q[0, h, i:i + some], k[0, h][rows]) / dim**0.5
                out[0, h, i:i + some] = torch.einsum("ij,ijd->id", scores.softmax(-1), v[0, h][rows])
        return out

    return [gathered, lambda: scaled_dot_product_attention(q, k, v, attn_mask=mask)]


def select_forms(heads, queries, keys, dim, count):
    q = torch.randint(16, (heads, queries, dim // 8), dtype=torch.uint8)
    k = torch.randint(16, (heads, keys, dim // 8), dtype=torch.uint8)

    def select():
        for h in range(heads):
            for i in range(0, queries, 256):
                equal = torch.zeros(min(256, queries - i), keys, dtype=torch.uint8)
                for s in range(dim // 8):
                    equal += q[h, i:i + 256, s, None] == k[h, None, :, s]
                equal.tril_(i + keys - queries)
                equal.topk(count, -1)

    return [select]


def main():
    work = sys.argv[1]
    scalar = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[2]]
    threads, *sizes = map(int, sys.argv[3:9])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    forms = attend_forms(scalar, *sizes) if work == "attend" else select_forms(*sizes)
    with torch.inference_mode():
        best = min(torch_timing.fastest(form, budget=0.5, warm_ups=1) for form in forms)
    print(json.dumps({"seconds": best, "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
