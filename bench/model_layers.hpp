// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which models have layers of a size.

#include <benchmark/benchmark.h>

#include <cstdint>

namespace pare::bench {

/// Labels a row with a layer [out x in] that users have, where one is known.
inline void set_model(benchmark::State& state, std::int64_t out, std::int64_t in) {
  struct Known {
    std::int64_t out, in;
    const char* name;
  };
  constexpr Known layers[] = {
      {384, 384, "minilm/q_proj"},        {1536, 384, "minilm/ffn_up"},
      {384, 1536, "minilm/ffn_down"},     {576, 576, "smollm2_135m/q_proj"},
      {1536, 576, "smollm2_135m/ffn_up"}, {576, 1536, "smollm2_135m/ffn_down"},
      {768, 768, "bert_base/q_proj"},     {3072, 768, "bert_base/ffn_up"},
      {768, 3072, "bert_base/ffn_down"},  {1024, 1024, "bert_large/q_proj"},
      {4096, 1024, "bert_large/ffn_up"},  {1024, 4096, "bert_large/ffn_down"},
      {2048, 2048, "llama_1b/q_proj"},    {4096, 4096, "llama_8b/q_proj"},
      {14336, 4096, "llama_8b/ffn_up"},   {4096, 14336, "llama_8b/ffn_down"},
      {11008, 4096, "llama_7b/ffn_up"},   {4096, 11008, "llama_7b/ffn_down"},
  };
  for (const Known& layer : layers)
    if (layer.out == out && layer.in == in) state.SetLabel(layer.name);
}

}  // namespace pare::bench
