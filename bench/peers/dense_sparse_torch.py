#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A layer of W, or of a dense and a sparse factor, and the pursuit of its codes, with torch; a peer of pare_bench.

usage: dense_sparse_torch.py dense_bf16|dense_f32|csr THREADS OUTPUTS INPUTS ATOMS NONZEROS ROWS
       dense_sparse_torch.py omp THREADS OUTPUTS INPUTS ATOMS NONZEROS 0

`csr` multiplies by all atoms in float, then by the codes of all outputs as one CSR matrix; ATOMS are those of all
blocks. `omp` is batch OMP in double, all outputs at once: a Cholesky factor of each grows by a row in each step.
Calls of up to 16 rows go round among copies of the weights of 128 MiB together, as those of pare_bench do. "seconds" is
the fastest round over its calls; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def codes(outputs, atoms, nonzeros):
    places = torch.rand(outputs, atoms).argsort(1)[:, :nonzeros].sort(1).values
    return torch.sparse_csr_tensor(torch.arange(0, outputs * nonzeros + 1, nonzeros), places.reshape(-1),
                                   torch.randn(outputs * nonzeros), (outputs, atoms))


def pursue(w, atoms, nonzeros):
    """Places and values of all rows of w."""
    gram, first = atoms @ atoms.T, w @ atoms.T
    rows = torch.arange(w.shape[0])
    left, places = first.clone(), torch.empty(w.shape[0], 0, dtype=torch.long)
    factor = torch.zeros(w.shape[0], nonzeros, nonzeros, dtype=w.dtype)
    for k in range(nonzeros):
        chosen = left.abs().argmax(1)
        if k:
            column = gram[places, chosen[:, None]].unsqueeze(2)
            solved = torch.linalg.solve_triangular(factor[:, :k, :k], column, upper=False).squeeze(2)
            factor[:, k, :k] = solved
            factor[:, k, k] = (1 - solved.square().sum(1)).clamp_min(1e-10).sqrt()
        else:
            factor[:, 0, 0] = 1
        places = torch.cat([places, chosen[:, None]], 1)
        values = torch.cholesky_solve(first.gather(1, places).unsqueeze(2), factor[:, :k + 1, :k + 1]).squeeze(2)
        spread = torch.zeros_like(first).scatter_(1, places, values)
        left = first - spread @ gram
        left[rows[:, None], places] = 0
    return places, values


def copies(make, rows):
    """Weights that lie apart, so that they are read from memory."""
    first = make()
    size = sum(t.numel() * t.element_size() for t in first)
    return [first] + [make() for _ in range(0 if rows > 16 else (128 << 20) // size)]


def time_round(work, weights):
    """Seconds of a call, by the fastest round over all weights."""
    return torch_timing.fastest(lambda: [work(*w) for w in weights], budget=0.5, warm_ups=1) / len(weights)


def main():
    kind = sys.argv[1]
    threads, outputs, inputs, atoms, nonzeros, rows = map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    linear = torch.nn.functional.linear
    with torch.inference_mode():
        if kind == "omp":
            w, d = torch.randn(outputs, inputs).double(), torch.randn(atoms, inputs).double()
            d /= d.norm(dim=1, keepdim=True)
            best = torch_timing.fastest(lambda: pursue(w, d, nonzeros), budget=2.0, warm_ups=1)
        elif kind == "csr":
            sparse, x = codes(outputs, atoms, nonzeros), torch.randn(rows, inputs).T
            places = sparse.crow_indices(), sparse.col_indices()
            weights = copies(lambda: (torch.randn(atoms, inputs), sparse.values().clone()), rows)
            layers = [(d, torch.sparse_csr_tensor(*(p.clone() for p in places), v, sparse.shape)) for d, v in weights]
            best = time_round(lambda d, s: s @ (d @ x), layers)
        else:
            scalar = {"dense_bf16": torch.bfloat16, "dense_f32": torch.float32}[kind]
            x = torch.randn(rows, inputs).to(scalar)
            weights = copies(lambda: (torch.randn(outputs, inputs).to(scalar),), rows)
            best = time_round(lambda w: linear(x, w), weights)
    print(json.dumps({"seconds": best, "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
