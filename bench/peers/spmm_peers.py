#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A sparse matrix times a dense one with scipy or torch; a peer of pare_bench.

usage: spmm_peers.py scipy|torch THREADS FOLDER NODES COLUMNS

FOLDER holds the matrix [NODES x NODES]: graph.offsets and graph.indices of int32, graph.values of
float32. scipy has one thread. "seconds" is the fastest run; one JSON object goes to standard output.
"""
import json
import os
import sys

import torch_timing  # before torch

import numpy


def read(folder, part, scalar):
    return numpy.fromfile(os.path.join(folder, "graph." + part), scalar)


def main():
    library, threads, folder, nodes, columns = sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:6])
    offsets, indices, values = read(folder, "offsets", numpy.int32), read(folder, "indices", numpy.int32), read(
        folder, "values", numpy.float32)
    dense = numpy.random.default_rng(1).random((nodes, columns), dtype=numpy.float32)
    if library == "scipy":
        import scipy.sparse
        sparse = scipy.sparse.csr_matrix((values, indices, offsets), (nodes, nodes))
        best = torch_timing.fastest(lambda: sparse @ dense, budget=1.0, warm_ups=1)
        version = scipy.__version__
    else:
        import torch
        torch.set_num_threads(threads)
        sparse = torch.sparse_csr_tensor(torch.from_numpy(offsets), torch.from_numpy(indices),
                                         torch.from_numpy(values), size=(nodes, nodes))
        columns_of = torch.from_numpy(dense)
        with torch.inference_mode():
            best = torch_timing.fastest(lambda: sparse @ columns_of, budget=1.0, warm_ups=1)
        version = torch.__version__
    print(json.dumps({"seconds": best, library: version}))


if __name__ == "__main__":
    main()
