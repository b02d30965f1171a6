#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A sweep of k-means by faiss-cpu (PyPI), whose clusters have any size; a peer of pare_bench.

usage: kmeans_faiss.py THREADS ROWS DIM CLUSTERS

"seconds" is the time of 12 sweeps less that of 2, by 10, each the fastest run, so that the start
and copies do not count; one JSON object goes to standard output.
"""
import json
import sys
import time

import torch_timing  # before the libraries

import faiss
import numpy


def main():
    threads, rows, dim, clusters = map(int, sys.argv[1:5])
    faiss.omp_set_num_threads(threads)
    x = numpy.random.default_rng(1).random((rows, dim), dtype=numpy.float32) - 0.5

    def train(sweeps):
        kmeans = faiss.Kmeans(dim, clusters, niter=sweeps, seed=1, min_points_per_centroid=1,
                              max_points_per_centroid=1 << 30)
        kmeans.train(x)

    assert faiss.get_num_gpus() == 0
    few = torch_timing.fastest(lambda: train(2), budget=1.5, warm_ups=1)
    many = torch_timing.fastest(lambda: train(12), budget=3.0, warm_ups=0)
    json.dump({"seconds": (many - few) / 10}, sys.stdout)


main()
