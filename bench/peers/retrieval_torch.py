#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The key that rows of attention look at most, with torch; a peer of pare_bench.

usage: retrieval_torch.py THREADS HEADS KV_HEADS QUERIES KEYS DIM

Ways: the scores of all keys by a product of matrices, later keys of early rows at minus infinity,
and argmax; or max over the keys. Heads of one key head are rows of one product. "seconds" is the
fastest run of the fastest way; one JSON object goes to standard output.
"""
import json
import math
import sys

import torch_timing  # before torch

import torch


def main():
    threads, heads, kv_heads, queries, keys, dim = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    q = torch.randn(kv_heads, heads // kv_heads * queries, dim)
    k = torch.randn(kv_heads, keys, dim)
    own = torch.arange(queries) + keys - queries
    last = torch.arange(keys - queries, keys)  # the only keys that not all rows see
    hidden = (last[None, :] > own[:, None]).repeat(heads // kv_heads, 1)

    def scores():
        s = q @ k.mT
        s[:, :, keys - queries :].masked_fill_(hidden, -math.inf)
        return s

    def fastest(work):
        return torch_timing.fastest(work, budget=1.0, warm_ups=3)

    with torch.inference_mode():
        ways = {"argmax": fastest(lambda: scores().argmax(-1)),
                "max": fastest(lambda: scores().max(-1))}
    best = min(ways, key=ways.get)
    print(json.dumps({"seconds": ways[best], "way": best, "ways": ways,
                      "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
