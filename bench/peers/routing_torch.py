#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rows routed to one of several experts with torch, the ways its users write it; a peer of pare_bench.

usage: routing_torch.py WAY THREADS ROWS EXPERTS OUTPUTS INPUTS

WAY is `loop` (rows of each expert gathered, one product each, results put back) or `grouped`
(torch._grouped_mm over sorted rows, where the build has it for the CPU). All is bf16. The sort of rows
is not timed. "seconds" is the fastest run; one JSON object goes to standard output.
"""
import json
import sys

import torch_timing  # before torch

import torch


def main():
    way, threads = sys.argv[1], int(sys.argv[2])
    rows, experts, outputs, inputs = map(int, sys.argv[3:7])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    x = torch.empty(rows, inputs, dtype=torch.bfloat16).uniform_(-1, 1)
    weights = torch.empty(experts, outputs, inputs, dtype=torch.bfloat16).uniform_(-0.5, 0.5)
    first = torch.randint(experts, (rows,))
    # Others in each run, so that few experts do not stay in a cache.
    choices = [(first + shift) % experts for shift in range(experts)]
    lists = [[torch.nonzero(chosen == e).flatten() for e in range(experts)] for chosen in choices]
    orders = [torch.argsort(chosen, stable=True) for chosen in choices]
    ends = [torch.bincount(chosen, minlength=experts).cumsum(0).to(torch.int32) for chosen in choices]
    runs = iter(range(1 << 62))
    y = torch.empty(rows, outputs, dtype=torch.bfloat16)

    def loop():
        for e, of_expert in enumerate(lists[next(runs) % len(lists)]):
            if len(of_expert):
                y[of_expert] = x[of_expert] @ weights[e].T

    def grouped():
        run = next(runs) % len(orders)
        y[orders[run]] = torch._grouped_mm(x[orders[run]], weights.transpose(1, 2), offs=ends[run])

    work = {"loop": loop, "grouped": grouped}[way]
    seconds = torch_timing.fastest(work, budget=1.0, warm_ups=2)
    json.dump({"seconds": seconds, "torch": torch.__version__}, sys.stdout)


main()
