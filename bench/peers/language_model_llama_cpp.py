#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp on a GGUF file, through llama-cpp-python's C interface; a peer of pare_bench.

usage: language_model_llama_cpp.py decode|prefill MODEL THREADS CONTEXT STEPS

The fastest of some runs: a prompt of CONTEXT tokens, or STEPS tokens one by one behind it. For the
fair peer build the package for the machine it runs on: pip install --no-binary llama-cpp-python
llama-cpp-python, with CMAKE_ARGS=-DGGML_NATIVE=ON. Prints one JSON object.
"""
import ctypes
import json
import sys
import time

import llama_cpp


def fastest(runs, prepare, work):
    best = float("inf")
    for _ in range(runs):
        prepare()
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def main():
    work, path = sys.argv[1:3]
    threads, context, steps = map(int, sys.argv[3:])
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = context + max(steps, 512)
    parameters.n_batch = parameters.n_ubatch = context
    parameters.n_threads = parameters.n_threads_batch = threads
    run = llama_cpp.llama_init_from_model(model, parameters)
    memory = llama_cpp.llama_get_memory(run)
    words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    prompt = [i * 7919 % words for i in range(context)]

    def decode(tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch points to it
        if llama_cpp.llama_decode(run, llama_cpp.llama_batch_get_one(array, len(tokens))) != 0:
            sys.exit("llama_decode failed")
        llama_cpp.llama_synchronize(run)

    def one_by_one():
        for token in prompt[:steps]:
            decode([token])

    if work == "prefill":
        seconds = fastest(4, lambda: llama_cpp.llama_memory_clear(memory, True), lambda: decode(prompt))
    else:
        decode(prompt)
        seconds = fastest(6, lambda: llama_cpp.llama_memory_seq_rm(memory, 0, context, -1), one_by_one)
    print(json.dumps({"seconds": seconds, "build": llama_cpp.llama_print_system_info().decode()}))


main()
