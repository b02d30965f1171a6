#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Scores by which tokens of a cache are kept, with torch; a peer of pare_bench.

usage: budget_torch.py snap_kv SCALAR THREADS HEADS KV_HEADS DIM TOKENS
       budget_torch.py key_diff SCALAR THREADS HEADS KV_HEADS DIM TOKENS

SCALAR is f32 or bf16. The steps are those of Tangram's scorers: the largest logit of the query
heads of a key head, a softmax, its mean over 32 queries, a pool of 7; and the cosine with the mean
direction, negative. "seconds" is the fastest run; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch
from torch.nn.functional import cosine_similarity, max_pool1d, normalize


def snap_kv(scalar, heads, kv_heads, dim, tokens):
    q = torch.randn(kv_heads, heads // kv_heads, 32, dim, dtype=scalar)
    k = torch.randn(kv_heads, 1, tokens, dim, dtype=scalar)

    def score():
        logits = (q @ k.mT * dim**-0.5).amax(1)
        return max_pool1d(torch.softmax(logits, -1, dtype=torch.float32).mean(-2), 7, 1, 3)

    return score


def key_diff(scalar, _, kv_heads, dim, tokens):
    k = torch.randn(kv_heads, tokens, dim, dtype=scalar)

    def score():
        wide = k.float()
        return -cosine_similarity(wide, normalize(wide, dim=-1).mean(1, keepdim=True), dim=-1)

    return score


def main():
    work, name, threads = sys.argv[1:4]
    scalar = {"f32": torch.float32, "bf16": torch.bfloat16}[name]
    torch.set_num_threads(int(threads))
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    with torch.inference_mode():
        score = {"snap_kv": snap_kv, "key_diff": key_diff}[work](scalar, *map(int, sys.argv[4:]))
        seconds = torch_timing.fastest(score, budget=1.0, warm_ups=3)
    print(json.dumps({"seconds": seconds, "threads": torch.get_num_threads(),
                      "torch": torch.__version__}))


if __name__ == "__main__":
    main()
