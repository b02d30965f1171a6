#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The k largest products of queries with all rows of a table; a peer of pare_bench.

usage: top_k_dot_peers.py WAY THREADS ROWS DIM QUERIES K

WAY is `faiss` (IndexFlatIP of faiss-cpu from PyPI, float), `faiss_int8` (its IndexScalarQuantizer,
8 bits, queries of float), `torch` or `torch_bf16` (a product and
topk). "seconds" is the fastest run; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before the libraries

import numpy


def main():
    way, threads = sys.argv[1], int(sys.argv[2])
    rows, dim, queries, k = map(int, sys.argv[3:7])
    random = numpy.random.default_rng(1)
    table = random.random((rows, dim), dtype=numpy.float32) - 0.5
    asked = random.random((queries, dim), dtype=numpy.float32) - 0.5
    if way.startswith("faiss"):
        import faiss

        faiss.omp_set_num_threads(threads)
        if way == "faiss":
            index = faiss.IndexFlatIP(dim)
        else:
            kind = faiss.ScalarQuantizer.QT_8bit  # a range for each dimension
            index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
            index.train(table[:10000])
        index.add(table)
        work = lambda: index.search(asked, k)
        assert numpy.argmax(table @ asked[0]) in work()[1][0][:10]
    else:
        import torch

        torch.set_num_threads(threads)
        kind = torch.bfloat16 if way == "torch_bf16" else torch.float32
        t, q = torch.from_numpy(table).to(kind), torch.from_numpy(asked).to(kind)
        work = lambda: torch.topk(q @ t.T, k)
    seconds = torch_timing.fastest(work, budget=1.0, warm_ups=1)
    json.dump({"seconds": seconds}, sys.stdout)


main()
