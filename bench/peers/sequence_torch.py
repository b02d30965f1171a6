#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Linear recurrences and global queries with torch, the ways its users write them; a peer of pare_bench.

usage: sequence_torch.py scan WAYS SCALAR THREADS BATCH TOKENS HEADS GROUPS STATES DIM PER_STATE
       sequence_torch.py dense WAYS f32 THREADS BATCH TOKENS STATES IN OUT
       sequence_torch.py heads WAYS f32 THREADS TOKENS HEADS IN OUT
       sequence_torch.py global_query WAYS SCALAR THREADS BATCH TOKENS DIM HEADS

WAYS is `loop` (token by token), `products` (without a loop over tokens) or `all`. The products of a scan
are the chunks of 64 tokens of "Transformers are SSMs" (one decay a head only), those of heads masked
Toeplitz matrices. "seconds" is the fastest run of the fastest way; one JSON object goes to standard
output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def fastest(work):
    return torch_timing.fastest(work, budget=1.0, warm_ups=2)


def uniform(scalar, *shape):
    return torch.empty(shape, dtype=scalar).uniform_(-1, 1)


def scan(scalar, batch, tokens, heads, groups, states, dim, per_state):
    x = uniform(scalar, batch, tokens, heads, dim)
    b, c = uniform(scalar, batch, tokens, groups, states), uniform(scalar, batch, tokens, groups, states)
    a = torch.rand(batch, tokens, heads, states if per_state else 1) / 2 + 0.5
    state = uniform(torch.float32, batch, heads, states, dim)
    repeat = heads // groups

    def loop():
        h, y = state, torch.empty_like(x)
        for t in range(tokens):
            key = b[:, t].float().repeat_interleave(repeat, 1)
            query = c[:, t].float().repeat_interleave(repeat, 1)
            h = a[:, t, :, :, None] * h + key[..., None] * x[:, t, :, None].float()
            y[:, t] = torch.einsum("bhn,bhnp->bhp", query, h).to(scalar)
        return y

    def chunks(size=64):
        parts = tokens // size
        log = a[..., 0].log().view(batch, parts, size, heads).permute(0, 3, 1, 2).cumsum(-1)
        xs = x.float().view(batch, parts, size, heads, dim)
        keys = b.float().repeat_interleave(repeat, 2).view(batch, parts, size, heads, states)
        queries = c.float().repeat_interleave(repeat, 2).view(batch, parts, size, heads, states)
        within = (log[..., :, None] - log[..., None, :]).exp().tril()
        y = torch.einsum("bhcls,bcshp->bclhp",
                         torch.einsum("bclhn,bcshn->bhcls", queries, keys) * within, xs)
        left = (log[..., -1:] - log).exp().permute(0, 2, 3, 1)[..., None]
        ends = torch.einsum("bcshn,bcshp->bchnp", keys * left, xs)
        h, starts = state, []
        for k in range(parts):
            starts.append(h)
            h = log[:, :, k, -1].exp()[..., None, None] * h + ends[:, k]
        y = y + torch.einsum("bclhn,bchnp->bclhp", queries,
                             torch.stack(starts, 1)) * log.exp().permute(0, 2, 3, 1)[..., None]
        return y.reshape(batch, tokens, heads, dim).to(scalar)

    ways = {"loop": loop}
    if not per_state and tokens % 64 == 0:
        ways["products"] = chunks
    return ways


def dense(scalar, batch, tokens, states, inputs, outputs):
    a = uniform(scalar, states, states) / states
    b, c = uniform(scalar, states, inputs), uniform(scalar, outputs, states)
    x, state = uniform(scalar, batch, tokens, inputs), uniform(scalar, batch, states)

    def loop():
        u, h, hidden = x @ b.T, state, []
        for t in range(tokens):
            h = torch.addmm(u[:, t], h, a.T)
            hidden.append(h)
        return torch.stack(hidden, 1) @ c.T

    return {"loop": loop}


def heads_of(scalar, tokens, heads, inputs, outputs):
    weights, maps = uniform(scalar, heads, tokens), uniform(scalar, heads, outputs, inputs)
    x = uniform(scalar, tokens, inputs)
    lag = torch.arange(tokens)[:, None] - torch.arange(tokens)[None]
    matrices = torch.where(lag >= 0, weights[:, lag.clamp(min=0)], torch.zeros(()))

    def products():
        return (matrices @ (x @ maps.mT)).sum(0)

    return {"products": products}


def global_query(scalar, batch, tokens, dim, heads):
    h = uniform(scalar, batch, tokens, dim)
    p, q = uniform(scalar, dim, heads), uniform(scalar, dim, heads)

    def products():
        context = h.mean(1)
        f = torch.tanh((context @ p)[:, None] * (h @ q))
        f = torch.nn.functional.normalize(f, dim=-1)
        return torch.softmax(f, 1).mT @ h

    return {"products": products}


def main():
    work, ways, scalar, threads = sys.argv[1:5]
    torch.set_num_threads(int(threads))
    scalar = {"f32": torch.float32, "bf16": torch.bfloat16}[scalar]
    make = {"scan": scan, "dense": dense, "heads": heads_of, "global_query": global_query}[work]
    with torch.inference_mode():
        seconds = {name: fastest(way) for name, way in make(scalar, *map(int, sys.argv[5:])).items()
                   if ways in ("all", name)}
    print(json.dumps({"seconds": min(seconds.values()), "all": seconds, "torch": torch.__version__},
                     separators=(",", ":")))


if __name__ == "__main__":
    main()
