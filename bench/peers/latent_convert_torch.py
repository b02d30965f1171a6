#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Conversions of grouped heads to latents with torch, as their public code does; a peer of pare_bench.

usage: latent_convert_torch.py WAY THREADS HEADS KV_HEADS HEAD_DIM WIDTH RANK

`svd` and `gram` factor W_K and W_V to RANK each in float, the second by the eigenvectors of W W^T.
`root` (CARE's code), `cholesky` (SVD-LLM) and `outputs` (Swift-SVD, the principal axes of W x) do
it for inputs of a known second moment, in double. `transmla` is RoRoPE, balance and the joint axes
of keys and values, in double. `mha2mla` and `mha2mla_gram` sort 16 of each head's numbers out and
factor the rest of W_K stacked with W_V, as `svd` and `gram` do. "seconds" is the fastest run; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def fastest(work):
    return torch_timing.fastest(work, budget=2.0, warm_ups=1)


def by_svd(w, rank):
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    return u[:, :rank] * s[:rank], vt[:rank]


def by_gram(w, rank):
    _, u = torch.linalg.eigh(w @ w.T)
    u = u[:, -rank:]
    return u, u.T @ w


def mha2mla(query, key, value, kv_heads, dim, rank, factors):
    kept = torch.arange(0, dim // 2, dim // 16)[:, None] * 2 + torch.arange(2)
    is_rope = torch.zeros(dim, dtype=torch.bool)
    is_rope[kept.flatten()] = True

    def apart(w, heads):
        w = w.view(heads, dim, -1)
        return w[:, ~is_rope], w[:, is_rope]

    rest, rope = apart(key, kv_heads)
    up, down = factors(torch.cat([rest.flatten(0, 1), value]), rank)
    return torch.cat(apart(query, len(query) // dim), 1), rope, up, down


def damped(c):
    return c + 0.01 * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype)


def by_root(w, c, rank):
    values, vectors = torch.linalg.eigh(damped(c))
    root = values.clamp_min(1e-8).sqrt()
    u, s, vt = torch.linalg.svd((vectors * root) @ (vectors.T @ w.double().T), full_matrices=False)
    down = (vectors / root) @ (vectors.T @ (u[:, :rank] * s[:rank]))
    return vt[:rank].T.float(), down.T.float()


def by_cholesky(w, c, rank):
    lower = torch.linalg.cholesky(damped(c))
    u, s, vt = torch.linalg.svd(lower.T @ w.double().T, full_matrices=False)
    down = torch.linalg.solve_triangular(lower.T, u[:, :rank] * s[:rank], upper=True)
    return vt[:rank].T.float(), down.T.float()


def by_outputs(w, c, rank):
    w = w.double()
    _, u = torch.linalg.eigh(w @ damped(c) @ w.T)
    u = u[:, -rank:]
    return u.float(), (u.T @ w).float()


def transmla(query, key, value, c, heads, kv_heads, dim, rank):
    query, key, value = query.double(), key.double(), value.double()
    pairs, group = dim // 2, heads // kv_heads
    moment = (key @ c @ key.T).view(kv_heads, pairs, 2, kv_heads, pairs, 2)
    both = moment[:, :, 0, :, :, 0] + moment[:, :, 1, :, :, 1]
    by_pair = torch.stack([both[:, p, :, p] for p in range(pairs)])
    mean = by_pair.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    _, axes = torch.linalg.eigh(by_pair + 0.01 * mean * torch.eye(kv_heads, dtype=c.dtype))
    axes = axes.flip(-1)  # [pairs, head, axis], strongest first
    turned = torch.einsum("pha,hpid->apid", axes, key.view(kv_heads, pairs, 2, -1))
    rope, rest = turned[0].reshape(dim, -1), turned[1:].reshape((kv_heads - 1) * dim, -1)

    def size(w):
        return ((w @ c) * w).sum(1).clamp_min(0).sqrt().mean()

    ratio = size(rest) / size(value)
    joint = torch.cat([rest / ratio, value])
    _, u = torch.linalg.eigh(joint @ c @ joint.T)
    u = u[:, -rank:]
    down = torch.cat([u.T @ joint, rope])
    key_up = (u[: len(rest)] * ratio).view(kv_heads - 1, pairs, 2, rank)
    value_up = u[len(rest) :].view(kv_heads, dim, rank).repeat_interleave(group, 0)
    read = axes.permute(1, 0, 2).repeat_interleave(group, 0)  # [heads, pairs, axis]
    content_up = torch.einsum("npa,apir->npir", read[..., 1:], key_up).reshape(heads, dim, rank)
    q = query.view(heads, pairs, 2, -1)
    rope_query = (q * read[..., 0, None, None]).reshape(heads, dim, -1)
    query = torch.cat([query.view(heads, dim, -1), rope_query], 1)
    return query.float(), down.float(), torch.cat([content_up, value_up], 1).float()


def main():
    way = sys.argv[1]
    threads, heads, kv_heads, dim, width, rank = map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    query = torch.randn(heads * dim, width) / width**0.5
    weights = [torch.randn(kv_heads * dim, width) / width**0.5 for _ in range(2)]
    x = torch.randn(2 * width, width, dtype=torch.double)
    x *= torch.arange(1, width + 1, dtype=torch.double) ** -0.5
    c = x.T @ x / len(x)

    ways = {
        "svd": lambda: [by_svd(w, rank) for w in weights],
        "gram": lambda: [by_gram(w, rank) for w in weights],
        "mha2mla": lambda: mha2mla(query, *weights, kv_heads, dim, rank, by_svd),
        "mha2mla_gram": lambda: mha2mla(query, *weights, kv_heads, dim, rank, by_gram),
        "root": lambda: [by_root(w, c, rank) for w in weights],
        "cholesky": lambda: [by_cholesky(w, c, rank) for w in weights],
        "outputs": lambda: [by_outputs(w, c, rank) for w in weights],
        "transmla": lambda: transmla(query, *weights, c, heads, kv_heads, dim, rank),
    }
    print(json.dumps({"seconds": fastest(ways[way]), "threads": torch.get_num_threads(),
                      "torch": torch.__version__}))


if __name__ == "__main__":
    main()
