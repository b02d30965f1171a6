#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Embedding bags and a session encoder with torch; a peer of pare_bench.

usage: items_torch.py bag|gradient THREADS VALUES WIDTH BAGS PLACES DTYPE
       items_torch.py encoder THREADS SESSIONS DIM HEADS HIDDEN

bag: F.embedding_bag by means, of PLACES values a bag; gradient: its backward, into a dense table. encoder: one
layer of nn.TransformerEncoder (biases as torch's fast path wants them) over sessions of 20 items, or of 5 to 35 where
there are several: padded with a mask, whose fast path takes nested tensors, and alone, one by one; then the masked
mean. "seconds" is the fastest run of the fastest way; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def bags(what, values, width, count, places, dtype):
    table = torch.randn(values, width).to(getattr(torch, dtype))
    runs = [torch.randint(values, (count * places,)) for _ in range(4)]
    offsets = torch.arange(0, count * places, places)
    turn = [0]

    def bag():
        turn[0] += 1
        return torch.nn.functional.embedding_bag(runs[turn[0] % 4], table, offsets, mode="mean")

    if what == "bag":
        with torch.inference_mode():
            return {"embedding_bag": torch_timing.fastest(bag, budget=1.0, warm_ups=2)}
    table.requires_grad_()
    out = bag()
    by_rows = torch.randn_like(out)
    return {"backward": torch_timing.fastest(
        lambda: torch.autograd.grad(out, table, by_rows, retain_graph=True), budget=1.0, warm_ups=2)}


def encoder(sessions, dim, heads, hidden):
    lengths = [20] if sessions == 1 else [5 + 7 * i % 31 for i in range(sessions)]
    layer = torch.nn.TransformerEncoderLayer(dim, heads, hidden, dropout=0, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 1).eval()
    x = torch.randn(sessions, max(lengths), dim)
    padding = torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]

    def padded():
        y = model(x, src_key_padding_mask=padding if sessions > 1 else None)
        if sessions == 1:
            return y.mean(1)
        keep = (~padding[:, : y.shape[1], None]).to(y.dtype)
        return (y * keep).sum(1) / keep.sum(1)

    def alone():
        return torch.cat([model(x[i : i + 1, :n]).mean(1) for i, n in enumerate(lengths)])

    with torch.inference_mode():
        return {f.__name__: torch_timing.fastest(f, budget=1.0, warm_ups=3) for f in (padded, alone)}


def main():
    what, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    if what == "encoder":
        ways = encoder(*map(int, sys.argv[3:]))
    else:
        ways = bags(what, *map(int, sys.argv[3:7]), sys.argv[7])
    best = min(ways, key=ways.get)
    print(json.dumps({"seconds": ways[best], "way": best, "ways": ways,
                      "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
