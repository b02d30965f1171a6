// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of caches whose heads keep tokens of their own: calls made of bytes must be taken if
/// and only if they are sound, and every head must hold the rows that it kept. Scores of any value
/// must give lists that the cache takes.

#include <pare/attention/budget/keep_tokens.hpp>
#include <pare/latent/keep_budget.hpp>
#include <pare/latent/ragged_cache.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

#include "bytes.hpp"

namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::BudgetCount;
using pare::attention::BudgetScope;
using pare::attention::HeadGroups;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using Cache = pare::latent::RaggedCache<float>;

constexpr Index layers = 2, kv_heads = 2, heads = layers * kv_heads, pages = 60;

/// The rows of one sequence, head by head.
struct Model {
  std::vector<std::vector<float>> rows = std::vector<std::vector<float>>(heads);

  Index length(Index head) const {
    return static_cast<Index>(rows[static_cast<std::size_t>(head)].size());
  }
  Index pages_of(const HeadGroups& groups, Index size, Index more) const {
    Index sum = 0;
    for (Index g = 0; g < groups.groups(); ++g)
      sum += (length(groups.members(g)[0]) + more + size - 1) / size;
    return sum;
  }
};

void require_same(const Model& model, const Cache& cache) {
  for (Index h = 0; h < heads; ++h) {
    const auto head = cache.head(h);
    require(head.length(0) == model.length(h), "lengths are those");
    for (Index t = 0; t < model.length(h); ++t) {
      const float row = model.rows[static_cast<std::size_t>(h)][static_cast<std::size_t>(t)];
      require(*head.key(0, 0, t) == row && *head.value(0, 0, t) == -row, "heads hold their rows");
    }
  }
}

/// Whether a call is taken.
template <class Call>
bool taken(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return false;
  }
  return true;
}

bool append(Bytes& bytes, const HeadGroups& groups, Index size, Model& model, Cache& cache,
            float& next) {
  const Index n = bytes.number<Index>();
  const Index rows = std::clamp<Index>(n, 0, 200);
  std::vector<float> keys(static_cast<std::size_t>(std::max<Index>(heads * rows, 1)));
  for (float& key : keys) key = next++;
  std::vector<float> values(keys);
  for (float& value : values) value = -value;
  const auto view = [&](const std::vector<float>& x) {
    return TensorView<const float, 3>{x.data(), {heads, n, 1}, {rows, 1, 1}};
  };
  const bool sound = n >= 0 && n <= 200 && model.pages_of(groups, size, n) <= pages;
  require(taken([&] { cache.append(0, view(keys), view(values)); }) == sound, "appends");
  for (Index h = 0; h < heads && sound; ++h)
    model.rows[static_cast<std::size_t>(h)].insert(model.rows[static_cast<std::size_t>(h)].end(),
                                                   keys.begin() + h * rows,
                                                   keys.begin() + (h + 1) * rows);
  return sound;
}

/// Lists made of bytes, one for each head of a group.
bool keep(Bytes& bytes, const HeadGroups& groups, Model& model, Cache& cache) {
  const Index g = bytes.number<Index>();
  const Index n = static_cast<Index>(static_cast<std::uint8_t>(bytes.number<int>()) % 5);
  std::vector<Index> list;
  for (Index i = 0; i < groups.group() * n; ++i) list.push_back(bytes.number<Index>());
  bool sound = g >= 0 && g < groups.groups();
  for (Index c = 0; c < groups.group() && sound; ++c)
    for (Index i = 0; i < n && sound; ++i) {
      const Index t = list[static_cast<std::size_t>(c * n + i)];
      sound = t >= (i == 0 ? 0 : list[static_cast<std::size_t>(c * n + i - 1)] + 1) &&
              t < model.length(groups.members(g)[0]);
    }
  const bool got =
      taken([&] { cache.keep_heads(0, g, {list.data(), {groups.group(), n}, {n, 1}}); });
  require(got == sound, "lists are kept if and only if they are sound");
  for (Index c = 0; c < groups.group() && sound; ++c) {
    auto& rows =
        model.rows[static_cast<std::size_t>(groups.members(g)[static_cast<std::size_t>(c)])];
    std::vector<float> kept;
    for (Index i = 0; i < n; ++i)
      kept.push_back(rows[static_cast<std::size_t>(list[static_cast<std::size_t>(c * n + i)])]);
    rows = kept;
  }
  return sound;
}

/// Scores made of bytes, NaN among them, of the last tokens.
bool budget(Bytes& bytes, const HeadGroups& groups, Model& model, Cache& cache) {
  pare::attention::KeepOptions options;
  options.ratio = static_cast<double>(bytes.number<int>()) / 64;
  options.sinks = bytes.number<Index>();
  options.window = bytes.number<Index>();
  options.multiple = bytes.number<Index>();
  options.scope = static_cast<BudgetScope>(bytes.number<std::uint8_t>() % 3);
  options.count = static_cast<BudgetCount>(bytes.number<std::uint8_t>() % 4);
  Index n = std::numeric_limits<Index>::max();
  for (Index h = 0; h < heads; ++h) n = std::min(n, model.length(h));
  std::vector<float> scores(static_cast<std::size_t>(heads * n));
  for (float& x : scores) {
    const int number = bytes.number<std::int8_t>();
    x = number == 77 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(number);
  }
  const bool sound =
      options.ratio > 0 && options.ratio <= 1 && options.sinks >= 0 && options.window >= 0 &&
      options.multiple >= 1 && options.scope <= BudgetScope::CrossLayer &&
      options.count <= BudgetCount::Uniform &&
      (options.count != BudgetCount::Group || options.scope == BudgetScope::CrossLayer ||
       groups.scope() == BudgetScope::PerLayer);
  const bool got = taken([&] {
    const auto kept = keep_tokens(
        TensorView<const float, 3>{scores.data(), {layers, kv_heads, n}, {kv_heads * n, n, 1}},
        groups, options);
    require(taken([&] { keep_budget(cache, 0, kept, groups); }), "what is kept can be");
    for (Index h = 0; h < heads; ++h) {
      auto& rows = model.rows[static_cast<std::size_t>(h)];
      const Index old = model.length(h) - n;
      std::vector<float> left(rows.begin(), rows.begin() + old);
      for (const Index t : kept.of(h / kv_heads, h % kv_heads))
        left.push_back(rows[static_cast<std::size_t>(old + t)]);
      rows = left;
    }
  });
  require(got == sound, "options are taken if and only if they are sound");
  return got;
}

bool drop(Bytes& bytes, Model& model, Cache& cache) {
  const Index n = bytes.number<Index>();
  bool sound = n >= 0;
  for (Index h = 0; h < heads; ++h) sound = sound && n <= model.length(h);
  require(taken([&] { cache.drop_last(0, n); }) == sound, "tokens are dropped if there are any");
  for (Index h = 0; h < heads && sound; ++h)
    model.rows[static_cast<std::size_t>(h)].resize(static_cast<std::size_t>(model.length(h) - n));
  return sound;
}

/// True if all calls were taken.
bool try_bytes(std::span<const std::uint8_t> data) {
  Bytes bytes(data);
  const auto small = [&](unsigned n) {
    return static_cast<Index>(static_cast<std::uint8_t>(bytes.number<int>()) % n);
  };
  const Index size = 1 + small(7), group = 1 + small(2);
  std::vector<double> retention;
  for (Index h = 0; h < heads; ++h) retention.push_back(static_cast<double>(small(9)));
  const HeadGroups groups = HeadGroups::by_retention(
      TensorView<const double, 2>{retention.data(), {layers, kv_heads}, {kv_heads, 1}}, group,
      static_cast<BudgetScope>(small(2)));
  Cache cache({.kv_heads = heads,
               .group = group,
               .key_dim = 1,
               .value_dim = 1,
               .pages = pages,
               .page_size = size,
               .order = groups.order()});
  Model model;
  float next = 1;
  bool all = true;
  for (std::size_t left = std::min<std::size_t>(data.size() / 6, 12); left > 0; --left) {
    const Index code = small(4);
    all = (code == 0   ? append(bytes, groups, size, model, cache, next)
           : code == 1 ? keep(bytes, groups, model, cache)
           : code == 2 ? budget(bytes, groups, model, cache)
                       : drop(bytes, model, cache)) &&
          all;
    require(cache.table().pages() - cache.table().free_pages() == model.pages_of(groups, size, 0),
            "as many pages are taken as rows fill");
    require_same(model, cache);
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// Appends of few tokens, budgets by which all of them stay, and drops of the last.
Data valid_calls(unsigned long long, std::mt19937_64& random) {
  const auto below = [&](unsigned n) { return static_cast<std::uint8_t>(random() % n); };
  Data bytes{below(7), below(2), below(9), below(9), below(9), below(9), 1};
  unsigned tokens = 0;
  for (int call = 0; call < 4; ++call) {
    const std::uint8_t more = below(4);
    tokens += more;
    bytes.insert(bytes.end(), {0, more, 2, 64, below(3), below(3), 1, 1, below(3)});
    for (unsigned i = 0; i < heads * tokens; ++i) bytes.push_back(below(100));
    const std::uint8_t gone = below(tokens + 1);
    tokens -= gone;
    bytes.insert(bytes.end(), {3, gone});
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("head_budget_fuzz", argc, argv, valid_calls, try_bytes);
}
#endif
