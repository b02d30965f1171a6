#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""MaxSim of one query with documents of one length, with libraries from PyPI; a peer of pare_bench.

usage: max_sim_peers.py WAY THREADS QUERY_TOKENS DIM TOKENS DOCUMENTS

WAY is `torch` (float, documents in one tensor: einsum, max, sum), `torch_bf16` (the same in bf16) or
`maxsim_cpu` (pip install maxsim-cpu; float). "seconds" is the fastest run; one JSON object goes to
standard output.
"""
import json
import os
import sys

import torch_timing  # before the libraries


def main():
    way, threads = sys.argv[1], int(sys.argv[2])
    query_tokens, dim, tokens, documents = map(int, sys.argv[3:7])
    if way == "maxsim_cpu":
        os.environ["RAYON_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
        import maxsim_cpu
        import numpy

        random = numpy.random.default_rng(1)
        query = random.standard_normal((query_tokens, dim), dtype=numpy.float32)
        rows = random.standard_normal((documents, tokens, dim), dtype=numpy.float32)
        wanted = (rows[3] @ query.T).max(axis=0).sum()
        assert abs(maxsim_cpu.maxsim_scores(query, rows)[3] - wanted) < 1e-3 * abs(wanted)
        work = lambda: maxsim_cpu.maxsim_scores(query, rows)
    else:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(1)
        kind = torch.bfloat16 if way == "torch_bf16" else torch.float32
        query = torch.randn(query_tokens, dim, dtype=kind)
        rows = torch.randn(documents, tokens, dim, dtype=kind)

        def work():
            return (rows @ query.T).amax(dim=1).sum(dim=1)

    seconds = torch_timing.fastest(work, budget=1.0, warm_ups=2)
    json.dump({"seconds": seconds}, sys.stdout)


main()
