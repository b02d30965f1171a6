#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Latent attention with torch, the ways its users write it; a peer of pare_bench.

usage: latent_torch.py decode SCALAR THREADS HEADS NOPE ROPE VALUE LATENT TOKENS
       latent_torch.py layer SCALAR THREADS HEADS NOPE ROPE VALUE LATENT TOKENS WIDTH NEW
       latent_torch.py paged SCALAR THREADS HEADS NOPE ROPE VALUE LATENT TOKENS PAGE
       latent_torch.py batch SCALAR THREADS HEADS NOPE ROPE VALUE LATENT TOKENS...
       latent_torch.py ragged SCALAR THREADS HEADS KV_HEADS DIM TOKENS...
       latent_torch.py shift SCALAR THREADS LATENT ROPE TOKENS SINKS GONE
       latent_torch.py video SCALAR THREADS LATENT ROPE FRAME CHUNK KEPT

SCALAR is f32 or bf16. `decode` is the attention of one token to TOKENS cached ones, `layer` a whole
layer of WIDTH for NEW tokens behind TOKENS cached ones. Ways: queries that absorbed W_UK, by
products of matrices or by scaled_dot_product_attention, the heads its rows; and
scaled_dot_product_attention on the keys and values of all heads, which of cached tokens are
expanded beforehand: that is not timed. `paged` gathers the pages of PAGE rows first. `batch` is a
sequence for each TOKENS, one by one or padded to the longest; `ragged` has keys of its own for each
key head, and a number of tokens for each group of them. `shift` moves the rows behind GONE tokens
and turns their rotary keys; `video` puts CHUNK frames behind KEPT ones and turns all of the window.
Up to 16 new tokens, layers go round among copies of 128 MiB
together. "seconds" is the fastest run of the fastest way; one JSON object goes to standard output.
"""
import json
import math
import sys

import torch_timing  # before torch

import torch
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention


def fastest(work):
    return torch_timing.fastest(work, budget=1.0, warm_ups=3)


def uniform(scalar, *shape):
    return torch.empty(shape, dtype=scalar).uniform_(-1, 1)


def decode(scalar, heads, nope, rope, value, latent, tokens):
    queries, rows = uniform(scalar, heads, latent + rope), uniform(scalar, tokens, latent + rope)
    scale = 1 / math.sqrt(nope + rope)

    def absorbed():
        return torch.softmax(queries @ rows.T * scale, -1) @ rows[:, :latent]

    def absorbed_sdpa():
        key = rows[None, None]
        return scaled_dot_product_attention(queries[None, None], key, key[..., :latent], scale=scale)

    seconds = {"absorbed": fastest(absorbed), "absorbed_sdpa": fastest(absorbed_sdpa)}
    query = uniform(scalar, 1, heads, 1, nope + rope)
    keys = uniform(scalar, 1, heads, tokens, nope + rope)
    values = uniform(scalar, 1, heads, tokens, value)
    seconds["expanded_sdpa"] = fastest(
        lambda: scaled_dot_product_attention(query, keys, values, scale=scale))
    return seconds


def absorbed(queries, rows, latent, scale):
    return torch.softmax(queries @ rows.mT * scale, -1) @ rows[..., :latent]


def paged(scalar, heads, nope, rope, value, latent, tokens, page):
    scale, width = 1 / math.sqrt(nope + rope), latent + rope
    pages = uniform(scalar, (tokens + page - 1) // page, page, width)
    table, queries = torch.randperm(len(pages)), uniform(scalar, heads, width)
    return {"gathered": fastest(
        lambda: absorbed(queries, pages[table].view(-1, width)[:tokens], latent, scale))}


def batch(scalar, heads, nope, rope, value, latent, *lengths):
    scale, width, longest = 1 / math.sqrt(nope + rope), latent + rope, max(lengths)
    rows = [uniform(scalar, n, width) for n in lengths]
    queries = uniform(scalar, len(lengths), heads, width)
    padded = torch.stack([torch.nn.functional.pad(r, (0, 0, 0, longest - len(r))) for r in rows])
    seen = torch.arange(longest) < torch.tensor(lengths)[:, None]

    def in_one():
        scores = (queries @ padded.mT * scale).masked_fill(~seen[:, None], -math.inf)
        return torch.softmax(scores, -1) @ padded[..., :latent]

    return {"padded": fastest(in_one),
            "one_by_one": fastest(lambda: [absorbed(q, r, latent, scale)
                                           for q, r in zip(queries, rows)])}


def ragged(scalar, heads, kv_heads, dim, *kept):
    group, share = kv_heads // len(kept), heads // kv_heads
    work = [(uniform(scalar, 1, group * share, 1, dim), uniform(scalar, 1, group, n, dim),
             uniform(scalar, 1, group, n, dim)) for n in kept]

    def products(q, k, v):
        q = q.view(group, share, dim)
        return torch.softmax(q @ k[0].mT * dim**-0.5, -1) @ v[0]

    return {"sdpa": fastest(lambda: [scaled_dot_product_attention(q, k, v, enable_gqa=True)
                                     for q, k, v in work]),
            "products": fastest(lambda: [products(*w) for w in work])}


def turned(x, turn):  # [tokens, rope] by [tokens, rope / 2], neighbours are a pair
    pairs = torch.view_as_complex(x.float().reshape(len(x), -1, 2))
    return torch.view_as_real(pairs * turn).flatten(1)


def turns(angle):
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def shift(scalar, latent, rope, tokens, sinks, gone):
    rows = uniform(scalar, tokens, latent + rope)
    by = turns(-gone * 10000.0 ** (-torch.arange(0, rope, 2).double() / rope))

    def move():
        behind = rows[sinks + gone :].clone()
        behind[:, latent:] = turned(behind[:, latent:], by)
        rows[sinks : tokens - gone] = behind

    return {"slices": fastest(move)}


def video(scalar, latent, rope, frame, chunk, kept):
    past = uniform(scalar, kept * frame, latent + rope)  # before rotation
    new = uniform(torch.float32, chunk * frame, latent + rope)
    by = turns(torch.rand((kept + chunk) * frame, rope // 2).double())

    def append():
        rows = torch.cat([past, new.to(scalar)])
        rows[:, latent:] = turned(rows[:, latent:], by)
        return rows

    return {"whole_window": fastest(append)}


class Layer:
    def __init__(self, scalar, heads, nope, rope, value, latent, tokens, width, new):
        def weight(outputs, inputs):
            return uniform(scalar, outputs, inputs) * math.sqrt(3 / inputs)

        self.sizes = heads, nope, rope, value, latent
        self.query, self.down = weight(heads * (nope + rope), width), weight(latent + rope, width)
        self.up, self.out = weight(heads * (nope + value), latent), weight(width, heads * value)
        up = self.up.view(heads, nope + value, latent)
        self.up_key = up[:, :nope].contiguous()
        self.up_value = up[:, nope:].transpose(1, 2).contiguous()
        self.gain = torch.ones(latent, dtype=scalar)
        self.rows = uniform(scalar, tokens + new, latent + rope)
        self.keys = uniform(scalar, heads, tokens + new, nope + rope)
        self.values = uniform(scalar, heads, tokens + new, value)
        angle = torch.outer(torch.arange(tokens, tokens + new).double(),
                            10000.0 ** (-torch.arange(0, rope, 2).double() / rope))
        self.turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
        self.tokens, self.scale = tokens, 1 / math.sqrt(nope + rope)

    def rotate(self, x):  # [..., new, rope], neighbours are a pair
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turn).flatten(-2).to(x.dtype)

    def project(self, x):
        heads, nope, rope, _, latent = self.sizes
        query = linear(x, self.query).view(-1, heads, nope + rope).transpose(0, 1)
        content, turned = query.split([nope, rope], -1)
        row = linear(x, self.down)
        c = rms_norm(row[:, :latent], (latent,), self.gain, 1e-6)
        return content, self.rotate(turned), c, self.rotate(row[:, latent:])

    def absorbed(self, x):
        heads, nope, rope, value, latent = self.sizes
        content, turned, c, key = self.project(x)
        self.rows[self.tokens :] = torch.cat([c, key], -1)
        query = torch.cat([torch.bmm(content, self.up_key), turned], -1)[:, 0]
        weights = torch.softmax(query @ self.rows.T * self.scale, -1)
        out = torch.bmm((weights @ self.rows[:, :latent])[:, None], self.up_value)
        return linear(out.reshape(1, heads * value), self.out)

    def expanded(self, x):
        heads, nope, rope, value, _ = self.sizes
        content, turned, c, key = self.project(x)
        both = linear(c, self.up).view(-1, heads, nope + value).transpose(0, 1)
        self.keys[:, self.tokens :, :nope] = both[..., :nope]
        self.keys[:, self.tokens :, nope:] = key
        self.values[:, self.tokens :] = both[..., nope:]
        out = scaled_dot_product_attention(
            torch.cat([content, turned], -1)[None], self.keys[None], self.values[None],
            is_causal=len(x) > 1, scale=self.scale)
        return linear(out[0].transpose(0, 1).reshape(-1, heads * value), self.out)


def layer(scalar, *sizes):
    tokens, width, new = sizes[-3:]
    first = Layer(scalar, *sizes)
    weights = (first.query, first.down, first.up, first.out)
    size = sum(w.numel() for w in weights) * first.query.element_size()
    copies = 1 + ((128 << 20) - 1) // size if new <= 16 else 1
    layers = [first] + [Layer(scalar, *sizes) for _ in range(copies - 1)]
    x = uniform(scalar, new, width)

    def seconds_of(way):
        return fastest(lambda: [way(l, x) for l in layers]) / copies

    seconds = {"expanded": seconds_of(Layer.expanded)}
    if new == 1:
        seconds["absorbed"] = seconds_of(Layer.absorbed)
    return seconds


def main():
    work, name, threads = sys.argv[1:4]
    scalar = {"f32": torch.float32, "bf16": torch.bfloat16}[name]
    torch.set_num_threads(int(threads))
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    with torch.inference_mode():
        works = (decode, layer, paged, batch, ragged, shift, video)
        ways = {f.__name__: f for f in works}[work](scalar, *map(int, sys.argv[4:]))
    best = min(ways, key=ways.get)
    print(json.dumps({"seconds": ways[best], "way": best, "ways": ways,
                      "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
