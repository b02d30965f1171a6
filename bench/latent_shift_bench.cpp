// SPDX-License-Identifier: Apache-2.0

/// \file
/// Windows that move: a context shift, which takes tokens out of a cache, moves those behind them
/// and turns their rotary keys; and VideoMLA's window, which takes a chunk of frames in, drops the
/// oldest and turns the numbers of time of those that stay.
///
/// The limit is copying what must be written; torch does the same by slices and complex products,
/// on the whole rotary part of the video's window, as the public code of video models does.

#include "counters.hpp"
#include "latent_data.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <pare/core/ceil_div.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/e4m3_cache.hpp>
#include <pare/latent/e4m3_layout.hpp>
#include <pare/latent/video_window.hpp>
#include <pare/transformer/rotary.hpp>

#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::latent;
using pare::bf16;
using pare::Index;
using pare::TensorView;
using pare::transformer::RotaryTable;

template <class S>
double number(S x) {
  return static_cast<double>(static_cast<float>(x));
}

/// Whether two numbers are those of another pair, turned.
template <class S>
bool is_turned(const S* got, const S* from, double angle, double tolerance) {
  const auto wanted =
      std::complex<double>(number(from[0]), number(from[1])) * std::polar(1.0, angle);
  return std::abs(wanted - std::complex<double>(number(got[0]), number(got[1]))) <= tolerance;
}

/// 4096 tokens of which those behind the first four go, and come back at the end.
struct Shift {
  Index sinks = 4, gone = 1024;
};

/// The key of a position, whether a cache has it as it is or loads it.
template <class Cache>
std::vector<typename Cache::scalar> key_of(const Cache& cache, Index position) {
  std::vector<typename Cache::scalar> key(static_cast<std::size_t>(cache.key_dim()));
  if constexpr (requires { cache.key(Index{0}, Index{0}, position); })
    std::copy_n(cache.key(0, 0, position), cache.key_dim(), key.data());
  else
    cache.load_key(0, 0, position, key.data());
  return key;
}

/// Whether row `to` is what row `from` was, its rotary key turned.
template <class S>
bool has_moved(const std::vector<S>& now, const std::vector<S>& before, Index latent, Index shift) {
  for (Index i = 0; i < latent; ++i)
    if (number(now[static_cast<std::size_t>(i)]) != number(before[static_cast<std::size_t>(i)]))
      return false;
  const Index rope = static_cast<Index>(now.size()) - latent;
  for (Index i = 0; i < rope; i += 2) {
    const double frequency = std::pow(1e4, -static_cast<double>(i) / static_cast<double>(rope));
    const auto at = static_cast<std::size_t>(latent + i);
    if (!is_turned(&now[at], &before[at], -frequency * static_cast<double>(shift),
                   std::is_same_v<S, float> ? 1e-5 : 0x1p-7))
      return false;
  }
  return true;
}

template <class Cache>
void shift(benchmark::State& state, const LatentShape& shape) {
  using S = typename Cache::scalar;
  auto& data = workload<LatentData<S>>("latent shift " + scalar_name<S>() + shape.name(),
                                       [&] { return LatentData<S>(shape); });
  const RotaryTable<float> table(pare::transformer::rotary_frequencies(shape.rope), shape.tokens);
  Cache cache({.latent = shape.latent,
               .rope = shape.rope,
               .pages = pare::ceil_div(shape.tokens, Index{64}),
               .page_size = 64});
  const Index w = shape.width();
  const auto fill = [&](Index first) {
    cache.append(
        0, TensorView<const S, 2>{data.rows.data() + first * w, {shape.tokens - first, w}, {w, 1}});
  };
  constexpr Shift cut;
  fill(0);
  const Index last = shape.tokens - 1 - cut.gone;
  const auto first_before = key_of(cache, cut.sinks + cut.gone),
             last_before = key_of(cache, shape.tokens - 1);
  cache.discard(0, cut.sinks, cut.gone, table);
  if (!has_moved(key_of(cache, cut.sinks), first_before, shape.latent, cut.gone) ||
      !has_moved(key_of(cache, last), last_before, shape.latent, cut.gone))
    return state.SkipWithError("a row is not what it was, turned");
  const auto moved = static_cast<double>(shape.tokens - cut.gone - cut.sinks);
  LimitProbe probe(1, {{Limit::copy, 2 * moved * static_cast<double>(cache.bytes_per_token())}});
  std::vector<double> times;
  probe.sample();
  for (auto _ : state) {
    fill(shape.tokens - cut.gone);
    times.push_back(seconds([&] { cache.discard(0, cut.sinks, cut.gone, table); }));
    state.SetIterationTime(times.back());
  }
  probe.sample();
  const double own = median(std::move(times));
  set_of_limit(state, probe.seconds(), own);
  std::vector<std::string> arguments{"shift", scalar_name<S>(), "1"};
  for (const Index size : {shape.latent, shape.rope, shape.tokens, cut.sinks, cut.gone})
    arguments.push_back(std::to_string(size));
  set_vs(state, "torch", python_peer_seconds("latent_torch.py", arguments), own);
  state.counters["ns_a_token"] = own / moved * 1e9;
  set_threads(state, 1);
}

/// The paper's sizes: 30 x 52 tokens a frame, chunks of 3 behind 1 sink and 3 more.
template <class S>
struct Video {
  VideoWindowOptions options{.latent = 192, .height = 30, .width = 52};
  VideoWindow<S> window{options};
  pare::AlignedBuffer<float> rows{
      static_cast<std::size_t>(options.chunk_frames * frame() * window.key_dim())};

  Video() { fill_uniform(rows.data(), tokens() * window.key_dim(), 5); }
  Index frame() const { return options.height * options.width; }
  Index tokens() const { return options.chunk_frames * frame(); }
  void append(int threads) {
    const Index w = window.key_dim();
    window.append(pare::simd.threads(threads), 0,
                  TensorView<const float, 2>{rows.data(), {tokens(), w}, {w, 1}});
    window.keep();
  }
  /// Whether the token of a position is that of a chunk, turned by its place in the window.
  bool is_right(Index position) const {
    const Index w = window.key_dim(), token = position % frame(), time = position / frame();
    const Index of_chunk = window.frame(time) % options.chunk_frames * frame() + token;
    const float* const from = rows.data() + of_chunk * w;
    const S* const key = window.key(0, 0, position);
    for (Index i = 0; i < options.latent; ++i)
      if (number(key[i]) != number(static_cast<S>(from[i]))) return false;
    const std::array<Index, 3> at{time, token / options.width, token % options.width};
    Index pair = 0;
    for (std::size_t axis = 0; axis < 3; ++axis)
      for (const double frequency : window.grid().frequencies[axis]) {
        const Index c = options.latent + 2 * pair++;
        const S rounded[] = {static_cast<S>(from[c]), static_cast<S>(from[c + 1])};
        if (!is_turned(key + c, static_cast<const S*>(rounded),
                       frequency * static_cast<double>(at[axis]),
                       std::is_same_v<S, float> ? 1e-5 : 0x1p-7))
          return false;
      }
    return true;
  }
};

template <class S>
void video(benchmark::State& state, int threads) {
  Video<S> work;
  for (int i = 0; i < 5; ++i) work.append(threads);  // full from the third on
  const Index w = work.window.key_dim(), kept = work.window.frames() - work.options.chunk_frames;
  for (const Index position : {Index{7}, kept * work.frame() - 1, work.window.length(0) - 1})
    if (!work.is_right(position)) return state.SkipWithError("a key is not turned by its place");
  const auto chunk = static_cast<double>(work.tokens()), size = static_cast<double>(sizeof(S));
  const auto times = static_cast<double>(2 * work.options.rotary.pairs[0]);
  LimitProbe probe(
      threads, {{Limit::copy, chunk * static_cast<double>(w) * (4 + size) +
                                  static_cast<double>(kept * work.frame()) * 2 * times * size}});
  const double own = time_between_probes(state, probe, [&] { work.append(threads); });
  set_of_limit(state, probe.seconds(), own);
  std::vector<std::string> arguments{"video", scalar_name<S>(), std::to_string(threads)};
  for (const Index number_of : {work.options.latent, w - work.options.latent, work.frame(),
                                work.options.chunk_frames, kept})
    arguments.push_back(std::to_string(number_of));
  set_vs(state, "torch", python_peer_seconds("latent_torch.py", arguments), own);
  state.counters["ns_a_token"] = own / chunk * 1e9;
  set_threads(state, threads);
}

template <class Run>
void add(const std::string& name, const Run& run) {
  large(benchmark::RegisterBenchmark(("latent/" + name).c_str(), run), 5);
}

const bool registered = [] {
  constexpr LatentShape shape{16, 4096}, users{9, 2048, 192, 32, 64, 64};
  add("shift/f32/t4096", [=](benchmark::State& s) { shift<LatentCache<float>>(s, shape); });
  add("shift/bf16/t4096", [=](benchmark::State& s) { shift<LatentCache<bf16>>(s, shape); });
  add("shift/e4m3/t4096",
      [=](benchmark::State& s) { shift<E4m3Cache<DeepSeekV32Layout>>(s, shape); });
  add("shift/f32/d192_32/t2048", [=](benchmark::State& s) { shift<LatentCache<float>>(s, users); });
  for (const int threads : {1, all_threads()}) {
    const std::string end = threads > 1 ? "/threads_all" : "";
    add("video/f32" + end, [=](benchmark::State& s) { video<float>(s, threads); });
    add("video/bf16" + end, [=](benchmark::State& s) { video<bf16>(s, threads); });
    if (all_threads() == 1) break;
  }
  return true;
}();

}  // namespace
