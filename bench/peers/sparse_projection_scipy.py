#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sparse rows times a stored sparse operator with scipy; a peer of pare_bench.

usage: sparse_projection_scipy.py ROWS INPUT_DIM OUTPUT_DIM ENTRIES_A_ROW OPERATOR_NONZEROS

The operator, of as many nonzeros as ours and equally many in each row or so, is made before; the
time is that of the product, best of five. One JSON object goes to standard output.
"""
import json
import sys
import time

import numpy
import scipy
import scipy.sparse


def evenly(random, rows, columns, entries_a_row):
    """Sparse rows, one entry in each of entries_a_row equal strips."""
    strip = columns // entries_a_row
    places = numpy.arange(entries_a_row) * strip + random.integers(0, strip, (rows, entries_a_row))
    values = random.random(rows * entries_a_row, dtype=numpy.float32) - 0.5
    starts = numpy.arange(0, rows * entries_a_row + 1, entries_a_row)
    return scipy.sparse.csr_matrix(
        (values, places.astype(numpy.int32).ravel(), starts.astype(numpy.int32)), (rows, columns))


def main():
    rows, input_dim, output_dim, entries, nonzeros = map(int, sys.argv[1:6])
    random = numpy.random.default_rng(1)
    x = evenly(random, rows, input_dim, entries)
    if nonzeros % input_dim == 0 and output_dim % (nonzeros // input_dim) == 0:
        operator = evenly(random, input_dim, output_dim, nonzeros // input_dim)
    else:
        operator = scipy.sparse.random(input_dim, output_dim, nonzeros / input_dim / output_dim, "csr",
                                       numpy.float32, 1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        x @ operator
        times.append(time.perf_counter() - start)
    print(json.dumps({"seconds": min(times), "scipy": scipy.__version__}, separators=(",", ":")))


if __name__ == "__main__":
    main()
