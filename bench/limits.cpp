// SPDX-License-Identifier: Apache-2.0
#include "limits.hpp"

#include "timing.hpp"

#include <pare/core/arch.hpp>

#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>

#include <unistd.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pare::bench {
namespace {

// The widest registers of this build. Without fused multiply-add, a multiplication and an addition
// are what a kernel of this arch has to issue, so that is what its peak is made of.
#if defined(__AVX512F__)
struct F32 {
  using scalar = float;
  using reg = __m512;
  static reg set(float x) { return _mm512_set1_ps(x); }
  static reg load(const float* p) { return _mm512_load_ps(p); }
  static reg add(reg a, reg b) { return _mm512_add_ps(a, b); }
  static reg fma(reg a, reg b, reg c) { return _mm512_fmadd_ps(a, b, c); }
  static void stream(float* p, reg a) { _mm512_stream_ps(p, a); }
};
struct F64 {
  using scalar = double;
  using reg = __m512d;
  static reg set(double x) { return _mm512_set1_pd(x); }
  static reg add(reg a, reg b) { return _mm512_add_pd(a, b); }
  static reg fma(reg a, reg b, reg c) { return _mm512_fmadd_pd(a, b, c); }
};
#elif defined(__AVX2__) && defined(__FMA__)
struct F32 {
  using scalar = float;
  using reg = __m256;
  static reg set(float x) { return _mm256_set1_ps(x); }
  static reg load(const float* p) { return _mm256_load_ps(p); }
  static reg add(reg a, reg b) { return _mm256_add_ps(a, b); }
  static reg fma(reg a, reg b, reg c) { return _mm256_fmadd_ps(a, b, c); }
  static void stream(float* p, reg a) { _mm256_stream_ps(p, a); }
};
struct F64 {
  using scalar = double;
  using reg = __m256d;
  static reg set(double x) { return _mm256_set1_pd(x); }
  static reg add(reg a, reg b) { return _mm256_add_pd(a, b); }
  static reg fma(reg a, reg b, reg c) { return _mm256_fmadd_pd(a, b, c); }
};
#elif defined(__x86_64__)
struct F32 {
  using scalar = float;
  using reg = __m128;
  static reg set(float x) { return _mm_set1_ps(x); }
  static reg load(const float* p) { return _mm_load_ps(p); }
  static reg add(reg a, reg b) { return _mm_add_ps(a, b); }
  static reg fma(reg a, reg b, reg c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
  static void stream(float* p, reg a) { _mm_stream_ps(p, a); }
};
struct F64 {
  using scalar = double;
  using reg = __m128d;
  static reg set(double x) { return _mm_set1_pd(x); }
  static reg add(reg a, reg b) { return _mm_add_pd(a, b); }
  static reg fma(reg a, reg b, reg c) { return _mm_add_pd(_mm_mul_pd(a, b), c); }
};
#elif defined(__aarch64__)
struct F32 {
  using scalar = float;
  using reg = float32x4_t;
  static reg set(float x) { return vdupq_n_f32(x); }
  static reg load(const float* p) { return vld1q_f32(p); }
  static reg add(reg a, reg b) { return vaddq_f32(a, b); }
  static reg fma(reg a, reg b, reg c) { return vfmaq_f32(c, a, b); }
  static void stream(float* p, reg a) { vst1q_f32(p, a); }
};
struct F64 {
  using scalar = double;
  using reg = float64x2_t;
  static reg set(double x) { return vdupq_n_f64(x); }
  static reg add(reg a, reg b) { return vaddq_f64(a, b); }
  static reg fma(reg a, reg b, reg c) { return vfmaq_f64(c, a, b); }
};
#else
template <class T>
struct Scalar {
  using scalar = T;
  using reg = T;
  static reg set(T x) { return x; }
  static reg load(const T* p) { return *p; }
  static reg add(reg a, reg b) { return a + b; }
  static reg fma(reg a, reg b, reg c) { return a * b + c; }
  static void stream(T* p, reg a) { *p = a; }
};
using F32 = Scalar<float>;
using F64 = Scalar<double>;
#endif

// A lane takes two products an instruction. Without the instruction a kernel widens and multiplies
// as it does floats, so their peak is the limit.
#if defined(__AVX512BF16__) && defined(__AVX512F__)
struct Bf16 {
  using scalar = float;
  using reg = __m512;
  static reg set(float x) {
    const int bits = std::bit_cast<int>(x) & static_cast<int>(0xffff0000u);
    return _mm512_castsi512_ps(_mm512_set1_epi32(bits | (bits >> 16 & 0xffff)));
  }
  static reg add(reg a, reg b) { return _mm512_add_ps(a, b); }
  static reg fma(reg sum, reg a, reg b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};
#else
using Bf16 = F32;
#endif

// Fours of bytes in one instruction; elsewhere pairs of words and an addition, and without those
// what floats take.
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
struct Int8 {
  using scalar = float;
  using reg = __m512i;
  static reg set(float x) { return _mm512_set1_epi32(std::bit_cast<int>(x)); }
  static reg add(reg a, reg b) { return _mm512_add_epi32(a, b); }
  static reg fma(reg sum, reg a, reg b) { return _mm512_dpbusd_epi32(sum, a, b); }
};
#elif defined(__AVX2__)
struct Int8 {
  using scalar = float;
  using reg = __m256i;
  static reg set(float x) { return _mm256_set1_epi32(std::bit_cast<int>(x)); }
  static reg add(reg a, reg b) { return _mm256_add_epi32(a, b); }
  static reg fma(reg sum, reg a, reg b) { return add(sum, _mm256_madd_epi16(a, b)); }
};
#else
using Int8 = F32;
#endif

template <class V>
constexpr double flops_a_lane = 2.0;
#if defined(__AVX512BF16__) && defined(__AVX512F__)
template <>
constexpr double flops_a_lane<Bf16> = 4.0;
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
template <>
constexpr double flops_a_lane<Int8> = 8.0;
#elif defined(__AVX2__)
template <>
constexpr double flops_a_lane<Int8> = 4.0;
#endif

template <class V>
constexpr Index lanes = static_cast<Index>(sizeof(typename V::reg) / sizeof(typename V::scalar));

// Keeps a result alive without a store that the loop would have to wait for.
template <class Reg>
void keep(const Reg& value) {
  asm volatile("" : : "m"(value) : "memory");
}

// Twelve chains hide a latency of up to six cycles at two instructions a cycle and fit sixteen
// registers beside the two factors.
template <class V>
double fma_burst() {
  constexpr int chains = 12;
  constexpr int rounds = 100'000;
  volatile typename V::scalar factor = 0.999999f, addend = 1e-6f;
  const auto a = V::set(factor), b = V::set(addend);
  typename V::reg sum[chains];
  for (auto& s : sum) s = b;
  for (int round = 0; round < rounds; ++round)
    for (int c = 0; c < chains; ++c) sum[c] = V::fma(sum[c], a, b);
  for (int c = 1; c < chains; ++c) sum[0] = V::add(sum[0], sum[c]);
  keep(sum[0]);
  return flops_a_lane<V> * static_cast<double>(lanes<V>) * chains * rounds;
}

// Eight independent sums: the loads decide, not the latency of the additions.
F32::reg read_range(const float* p, Index n) {
  constexpr Index width = lanes<F32>;
  F32::reg sum[8];
  for (auto& s : sum) s = F32::set(0.0f);
  for (Index i = 0; i + 8 * width <= n; i += 8 * width)
    for (Index j = 0; j < 8; ++j) sum[j] = F32::add(sum[j], F32::load(p + i + j * width));
  for (int j = 1; j < 8; ++j) sum[0] = F32::add(sum[0], sum[j]);
  return sum[0];
}

void copy_range(const float* from, float* to, Index n) {
  constexpr Index width = lanes<F32>;
  for (Index i = 0; i + width <= n; i += width) F32::stream(to + i, F32::load(from + i));
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

Index cache_bytes(int level, Index fallback) {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const int key = level == 1   ? _SC_LEVEL1_DCACHE_SIZE
                  : level == 2 ? _SC_LEVEL2_CACHE_SIZE
                               : _SC_LEVEL3_CACHE_SIZE;
  const long size = sysconf(key);
  if (size > 0) return static_cast<Index>(size);
#else
  static_cast<void>(level);
#endif
  return fallback;
}

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float, Free>;

// Huge pages where the system gives them: the limit is the memory's, not the page table's.
Buffer allocate(Index bytes) {
  constexpr Index huge_page = Index{2} << 20;
  const Index rounded = (bytes + huge_page - 1) / huge_page * huge_page;
  void* p = std::aligned_alloc(huge_page, static_cast<std::size_t>(rounded));
  if (p == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  madvise(p, static_cast<std::size_t>(rounded), MADV_HUGEPAGE);
#endif
  std::memset(p, 0, static_cast<std::size_t>(rounded));
  return Buffer(static_cast<float*>(p));
}

Index dram_floats() {
  static const Index bytes = std::max(Index{256} << 20, 4 * cache_bytes(3, Index{32} << 20));
  return bytes / static_cast<Index>(sizeof(float));
}

float* dram_buffer() {
  static const Buffer buffer = allocate(2 * dram_floats() * static_cast<Index>(sizeof(float)));
  return buffer.get();
}

// Short runs lose a tenth or more on some memory systems; the limit is the best burst.
constexpr Index burst_kibibytes[] = {1024, 4096, 1024, 4096};

double read_burst(int threads, Index block) {
  const float* data = dram_buffer();
  over_ranges(threads, dram_floats(), block,
              [&](Index begin, Index end) { keep(read_range(data + begin, end - begin)); });
  return static_cast<double>(dram_floats()) * sizeof(float);
}

double copy_burst(int threads, Index block) {
  const float* from = dram_buffer();
  float* to = dram_buffer() + dram_floats();
  over_ranges(threads, dram_floats(), block,
              [&](Index begin, Index end) { copy_range(from + begin, to + begin, end - begin); });
  return 2.0 * static_cast<double>(dram_floats()) * sizeof(float);
}

// Each worker times itself after a warm-up pass over its own buffer, so starting the team and
// filling the cache are not in the figure, which is the sum of what each core can do.
double cache_rate(int threads, Index cache) {
  const Index floats = cache / 2 / static_cast<Index>(sizeof(float));
  const Index passes = (Index{64} << 20) / (floats * static_cast<Index>(sizeof(float)));
  std::vector<double> rates(static_cast<std::size_t>(threads));
  on_team(threads, [&](int worker) {
    const Buffer buffer = allocate(floats * static_cast<Index>(sizeof(float)));
    double best = 0.0;
    for (int burst = 0; burst < 4; ++burst) {
      const double time = seconds([&] {
        for (Index pass = 0; pass < passes; ++pass) keep(read_range(buffer.get(), floats));
      });
      best = std::max(best, static_cast<double>(passes * floats) * sizeof(float) / time);
    }
    rates[static_cast<std::size_t>(worker)] = best;
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

// Places in no order, as a sparse matrix names them. The loop is four instructions an addition, and
// an addition waits for one to the same place.
double add_burst() {
  constexpr int rounds = 100;
  constexpr std::uint32_t floats = 1024, places = 4096;
  std::vector<std::uint16_t> place(places);
  std::uint32_t random = 1;
  for (auto& p : place)
    p = static_cast<std::uint16_t>((random = random * 1664525u + 1013904223u) >> 16) % floats;
  std::vector<float> sums(floats, 0.0f);
  for (int round = 0; round < rounds; ++round)
    for (const std::uint16_t p : place) sums[p] += 1.0f;
  keep(sums[0]);
  return static_cast<double>(rounds) * places;
}

template <class Burst>
double flop_rate(int threads, const Burst& burst) {
  std::vector<double> rates(static_cast<std::size_t>(threads));
  on_team(threads, [&](int worker) {
    double best = 0.0;
    for (int i = 0; i < 16; ++i) {
      double flops = 0.0;
      const double time = seconds([&] { flops = burst(); });
      best = std::max(best, flops / time);
    }
    rates[static_cast<std::size_t>(worker)] = best;
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

template <class Burst>
double best_rate(const Burst& burst) {
  double best = 0.0;
  for (const Index kibibytes : burst_kibibytes) {
    double amount = 0.0;
    const double time =
        seconds([&] { amount = burst(kibibytes * 1024 / static_cast<Index>(sizeof(float))); });
    best = std::max(best, amount / time);
  }
  return best;
}

}  // namespace

bool is_arithmetic(Limit limit) {
  return limit == Limit::fma_f32 || limit == Limit::fma_f64 || limit == Limit::dot_bf16 ||
         limit == Limit::dot_int8 || limit == Limit::l1_add;
}

const char* name_of(Limit limit) {
  switch (limit) {
    case Limit::fma_f32:
      return "fma/f32";
    case Limit::fma_f64:
      return "fma/f64";
    case Limit::dot_bf16:
      return "dot/bf16";
    case Limit::dot_int8:
      return "dot/int8";
    case Limit::dram_read:
      return "dram_read";
    case Limit::copy:
      return "copy";
    case Limit::l1_read:
      return "l1_read";
    case Limit::l2_read:
      return "l2_read";
    case Limit::l1_add:
      return "l1_add";
  }
  return "";
}

double measure(Limit limit, int threads) {
  switch (limit) {
    case Limit::fma_f32:
      return flop_rate(threads, fma_burst<F32>);
    case Limit::fma_f64:
      return flop_rate(threads, fma_burst<F64>);
    case Limit::dot_bf16:
      return flop_rate(threads, fma_burst<Bf16>);
    case Limit::dot_int8:
      return flop_rate(threads, fma_burst<Int8>);
    case Limit::dram_read:
      return best_rate([&](Index block) { return read_burst(threads, block); });
    case Limit::copy:
      return best_rate([&](Index block) { return copy_burst(threads, block); });
    case Limit::l1_read:
      return cache_rate(threads, cache_bytes(1, Index{32} << 10));
    case Limit::l2_read:
      return cache_rate(threads, cache_bytes(2, Index{512} << 10));
    case Limit::l1_add:
      return flop_rate(threads, add_burst);
  }
  return 0.0;
}

double cached(Limit limit, int threads) {
  static std::map<std::pair<Limit, int>, double> known;
  const auto [entry, is_new] = known.try_emplace({limit, threads}, 0.0);
  if (is_new)
    entry->second =
        median({measure(limit, threads), measure(limit, threads), measure(limit, threads)});
  return entry->second;
}

LimitProbe::LimitProbe(int threads, std::vector<Demand> demands)
    : threads_(threads), demands_(std::move(demands)), rates_(demands_.size()) {}

void LimitProbe::sample() {
  for (std::size_t i = 0; i < demands_.size(); ++i)
    rates_[i].push_back(measure(demands_[i].limit, threads_));
}

double LimitProbe::seconds() const {
  double slowest = 0.0;
  for (std::size_t i = 0; i < demands_.size(); ++i)
    slowest = std::max(slowest, demands_[i].amount / median(rates_[i]));
  return slowest;
}

std::string build_arch() { return arch::best::name; }

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}

}  // namespace pare::bench
