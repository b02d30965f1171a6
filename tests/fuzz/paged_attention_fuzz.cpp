// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of paged caches with windows and key masks: a call is refused if and only if a
/// second, token by token reading finds it wrong, a page that no query needs is never read, and
/// both backends agree. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry point; built
/// with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid calls:
/// `paged_attention_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/attention/attend.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::AttendOptions;
using pare::attention::key_mask_of;
using pare::attention::PagedKeyValue;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;

constexpr Index heads = 2, dim = 2, most = (Index{1} << 30) - 1;

/// Sizes of memory are small, whatever the bytes say; lengths, entries and options are as they are.
struct Input {
  Index queries = 0, page = 1, pages = 0, width = 0;
  AttendOptions options{};
  bool masked = false;
  std::vector<Index> lengths{};
  std::vector<std::int32_t> table{};
  std::vector<std::uint8_t> hidden{};  ///< every so many keys; repeated

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    const auto small = [&](unsigned n) {
      return static_cast<Index>(static_cast<std::uint8_t>(bytes.number<int>()) % n);
    };
    queries = small(20);
    page = 1 + small(9);
    pages = small(9);
    width = small(9);
    const Index flags = small(64);
    options.causal = (flags & 1) != 0;
    if (const Index window = bytes.number<Index>(); window != 0) options.window = window;
    options.sinks = bytes.number<Index>();
    const Index left = bytes.number<Index>(), right = bytes.number<Index>();
    const Index offset = bytes.number<Index>();
    if ((flags & 2) != 0) options.window_left = left;
    if ((flags & 4) != 0) options.window_right = right;
    if ((flags & 8) != 0) options.query_offset = offset;
    masked = (flags & 16) != 0;
    lengths = bytes.list<Index>();
    if (lengths.size() > 4) lengths.resize(4);
    table = bytes.list<std::int32_t>();
    table.resize(lengths.size() * static_cast<std::size_t>(width), -1);
    hidden = bytes.list<std::uint8_t>();
  }

  Index sequences() const { return static_cast<Index>(lengths.size()); }
  bool hides(Index key) const {
    return masked && !hidden.empty() &&
           hidden[static_cast<std::size_t>(key) % hidden.size()] % 3 == 1;
  }
};

bool in_range(const std::optional<Index>& x, Index least, Index largest) {
  return !x || (*x >= least && *x <= largest);
}

bool has_sound_options(const Input& x) {
  const AttendOptions& o = x.options;
  return (!o.window || (*o.window >= 1 && !o.window_left && !o.window_right)) &&
         in_range(o.window_left, 0, std::numeric_limits<Index>::max()) &&
         in_range(o.window_right, 0, std::numeric_limits<Index>::max()) &&
         in_range(o.sinks, 0, most) && in_range(o.query_offset, -most, most);
}

/// Whether a query of a sequence of n keys may need key j: query 0 sees the farthest back.
bool needs(const Input& x, Index n, Index j) {
  const AttendOptions& o = x.options;
  const bool narrow = o.window && *o.window <= most;
  const bool windowed = narrow || o.window_left || o.window_right;
  if (x.queries == 0) return false;
  if (windowed && j < o.sinks) return true;
  const Index p = o.query_offset.value_or(n - x.queries);
  if (narrow) return p - j < *o.window;
  return !o.window_left || *o.window_left > most || p - j <= *o.window_left;
}

bool is_sound(const Input& x) {
  if (!has_sound_options(x)) return false;
  for (Index s = 0; s < x.sequences(); ++s) {
    const Index n = x.lengths[static_cast<std::size_t>(s)];
    if (n < 0 || n > x.width * x.page) return false;
    for (Index j = 0; j < n; ++j) {
      const std::int32_t name = x.table[static_cast<std::size_t>(s * x.width + j / x.page)];
      if (needs(x, n, j) && (name < 0 || name >= x.pages)) return false;
    }
  }
  return true;
}

/// Keys and values in pages; those that nobody needs are NaN. Column 0 of the values is 1.
struct Cache {
  std::vector<float> keys, values;

  Cache(const Input& x, bool sound) {
    const auto size = static_cast<std::size_t>(x.pages * x.page * dim);
    keys.assign(size, std::numeric_limits<float>::quiet_NaN());
    values = keys;
    for (Index s = 0; sound && s < x.sequences(); ++s) {
      const Index n = x.lengths[static_cast<std::size_t>(s)];
      for (Index j = 0; j < n; ++j) {
        const Index name = x.table[static_cast<std::size_t>(s * x.width + j / x.page)];
        if (!needs(x, n, j)) continue;
        for (Index t = 0; t < x.page * dim; ++t) {
          const auto at = static_cast<std::size_t>(name * x.page * dim + t);
          keys[at] = static_cast<float>(at * 7 % 11) / 5 - 1;
          values[at] = t % dim == 0 ? 1.0f : static_cast<float>(at % 5);
        }
      }
    }
  }
};

struct Output {
  std::vector<float> out, lse;
};

template <class B>
Output attended(const B& backend, const Input& x, const Cache& cache, const bool* seen,
                Index slots) {
  const Index n = x.sequences(), pages = x.pages, page = x.page, rows = n * heads * x.queries;
  std::vector<float> q(static_cast<std::size_t>(rows * dim));
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(i * 5 % 13) / 6 - 1;
  Output y{std::vector<float>(q.size(), -7.0f), std::vector<float>(q.size() / dim, -7.0f)};
  const std::array<Index, 4> cached{pages, 1, page, dim}, steps{page * dim, page * dim, dim, 1};
  const PagedKeyValue<float> source{{cache.keys.data(), cached, steps},
                                    {cache.values.data(), cached, steps},
                                    {x.table.data(), {n, x.width}, {x.width, 1}},
                                    x.lengths};
  const std::array<Index, 4> extent{n, heads, x.queries, dim};
  const std::array<Index, 4> stride{heads * x.queries * dim, x.queries * dim, dim, 1};
  AttendOptions options = x.options;
  options.lse =
      TensorView<float, 3>{y.lse.data(), {n, heads, x.queries}, {heads * x.queries, x.queries, 1}};
  const TensorView<const float, 4> from{q.data(), extent, stride};
  const TensorView<float, 4> to{y.out.data(), extent, stride};
  if (seen != nullptr)
    attend(backend, from, source, to,
           key_mask_of(TensorView<const bool, 2>{seen, {1, slots}, {slots, 1}}), options);
  else
    attend(backend, from, source, to, options);
  return y;
}

/// The outputs of both backends: of column 0 exactly the weights' sum, of the rest about the same.
void check_outputs(const Output& fast, const Output& plain) {
  for (std::size_t i = 0; i < fast.lse.size(); ++i) {
    const bool empty = plain.lse[i] == -std::numeric_limits<float>::infinity();
    require(empty ? fast.lse[i] == plain.lse[i] : std::abs(fast.lse[i] - plain.lse[i]) < 1e-4f,
            "both backends sum the same weights");
    require(std::abs(fast.out[i * dim] - (empty ? 0.0f : 1.0f)) < 1e-5f, "weights add up to 1");
    require(std::abs(fast.out[i * dim + 1] - plain.out[i * dim + 1]) < 1e-4f,
            "both backends give the same rows");
  }
}

/// True if the call was taken.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input x(bytes);
  const bool sound = is_sound(x);
  const Cache cache(x, sound);
  Index slots = 0;
  for (const Index n : x.lengths) slots = std::max(slots, std::min(n, x.width * x.page));
  const auto seen = std::make_unique<bool[]>(static_cast<std::size_t>(slots + 1));
  for (Index j = 0; j < slots; ++j) seen[static_cast<std::size_t>(j)] = !x.hides(j);
  const bool* mask = x.masked ? seen.get() : nullptr;
  Output fast;
  bool taken = true;
  try {
    fast = attended(pare::simd, x, cache, mask, slots);
  } catch (const std::invalid_argument&) {
    taken = false;
  }
  require(taken == sound, "calls are taken if and only if they are sound");
  if (taken) check_outputs(fast, attended(pare::reference, x, cache, mask, slots));
  return taken;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// A call with pages for all tokens but those that its window has passed, as bytes.
Data valid_call(unsigned long long, std::mt19937_64& random) {
  const auto below = [&](unsigned n) { return static_cast<std::uint8_t>(random() % n); };
  const std::uint8_t page = below(9), width = below(9), sequences = below(4), pages = 8;
  Data bytes{below(20), page, pages, width};
  const std::uint8_t flags = below(32);
  bytes.push_back(flags);
  const bool sides = (flags & 6) != 0;
  bytes.push_back(sides ? std::uint8_t{0} : below(20));
  for (int i = 0; i < 4; ++i) bytes.push_back(below(12));
  bytes.push_back(sequences);
  for (unsigned s = 0; s < sequences; ++s) bytes.push_back(below(width * (page + 1u) + 1u));
  bytes.push_back(static_cast<std::uint8_t>(sequences * width));
  for (unsigned i = 0; i < sequences * unsigned{width}; ++i) bytes.push_back(below(pages));
  bytes.push_back(7);
  for (unsigned i = 0; i < 7; ++i) bytes.push_back(below(6));
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("paged_attention_fuzz", argc, argv, valid_call, try_bytes);
}
#endif
