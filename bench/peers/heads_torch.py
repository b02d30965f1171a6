#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Variants of attention's heads with torch; a peer of pare_bench.

usage: heads_torch.py uniform|soft_identity THREADS HEADS TOKENS DIM
       heads_torch.py differential THREADS HEADS TOKENS DIM        (value dim 2 DIM, not causal)
       heads_torch.py value_residual THREADS KV_HEADS TOKENS DIM MODEL_DIM

uniform: the running mean of values, as cumsum and a division. soft_identity: causal attention, then
lerp with the values by a share per head. differential: two calls of scaled_dot_product_attention, a
subtraction, an RMS norm. value_residual: relu of a linear layer, then a product and a sum. All in
f32. "seconds" is the fastest run; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention


def uniform(heads, tokens, dim):
    value = torch.randn(1, heads, tokens, dim)
    count = torch.arange(1, tokens + 1, dtype=torch.float32).view(1, 1, tokens, 1)
    out = torch.empty_like(value)

    def run():
        torch.cumsum(value, 2, out=out)
        out.div_(count)

    return run


def soft_identity(heads, tokens, dim):
    query, key, value = (torch.randn(1, heads, tokens, dim) for _ in range(3))
    share = torch.full((1, heads, 1, 1), 0.5)
    return lambda: torch.lerp(scaled_dot_product_attention(query, key, value, is_causal=True), value, share)


def differential(heads, tokens, dim):
    q1, k1, q2, k2 = (torch.randn(1, heads, tokens, dim) for _ in range(4))
    value, gain = torch.randn(1, heads, tokens, 2 * dim), torch.ones(2 * dim)

    def run():
        first = scaled_dot_product_attention(q1, k1, value)
        second = scaled_dot_product_attention(q2, k2, value)
        return rms_norm(first - 0.5 * second, (2 * dim,), gain, 1e-5) * 0.2

    return run


def value_residual(heads, tokens, dim, model_dim):
    hidden, weight = torch.randn(1, tokens, model_dim), torch.randn(heads, model_dim)
    value, first = torch.randn(1, tokens, heads, dim), torch.randn(1, tokens, heads, dim)
    out = torch.empty_like(value)
    return lambda: torch.addcmul(value, torch.relu(linear(hidden, weight)).unsqueeze(-1), first, out=out)


def main():
    make = {f.__name__: f for f in (uniform, soft_identity, differential, value_residual)}[sys.argv[1]]
    threads, *sizes = map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    with torch.inference_mode():
        best = torch_timing.fastest(make(*sizes), budget=0.5, warm_ups=2)
    print(json.dumps({"seconds": best, "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
