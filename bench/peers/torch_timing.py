# SPDX-License-Identifier: Apache-2.0
"""How the torch scripts beside this file time. Import it before torch: libraries read the environment once."""
import os
import time

for name in [n for n in os.environ if n.startswith(("OPENBLAS_", "OMP_", "MKL_"))]:
    del os.environ[name]  # the scripts' argument says how many threads


def fastest(work, budget, warm_ups):
    """Seconds of the fastest run within some seconds, after some runs that do not count."""
    for _ in range(warm_ups):
        work()
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < budget:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
