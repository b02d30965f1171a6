// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of draft heads: sizes, ranks, tokens, offsets, k, temperatures and positions of any
/// kind. A call is refused if and only if a second reading finds it wrong, and then leaves its
/// output; what is taken is the product in double, its best, its log-sum-exp and its draw. Built
/// with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid calls:
/// `draft_head_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/draft/low_rank_head.hpp>
#include <pare/draft/markov_head.hpp>
#include <pare/draft/stored_head.hpp>
#include <pare/draft/subset_head.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using namespace pare::draft;
using pare::Index;
using pare::TensorView;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double temperatures[] = {1, 0.5, 0, 1e-6, 1e-5, 3, 1e50, -1, nan, infinity};

enum Kind : std::uint8_t {
  Dense,
  Doubles,
  Halves,
  Quantized,
  Stored,
  LowRank,
  Markov,
  Subset,
  kinds
};

struct Input {
  Kind kind;
  Index outputs, inputs, rank, other_rank, rows, columns, k, positions, vocabulary, value_columns;
  double temperature;
  bool noise;
  unsigned seed;
  int special, hidden_special;  ///< which odd number is among the weights, the hidden states
  std::vector<std::int64_t> offsets;
  std::vector<std::int32_t> tokens, last;

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    const auto below = [&](unsigned n) {
      return static_cast<unsigned>(static_cast<std::uint8_t>(bytes.number<int>())) % n;
    };
    kind = static_cast<Kind>(below(kinds));
    outputs = bytes.number<Index>();
    inputs = bytes.number<Index>();
    rank = bytes.number<Index>();
    other_rank = below(8) == 7 ? 3 : rank;
    rows = static_cast<Index>(below(20));
    columns = below(16) == 15 ? 2 : inputs;
    k = bytes.number<Index>();
    temperature = temperatures[below(std::size(temperatures))];
    noise = below(2) == 1;
    positions =
        noise ? rows - static_cast<Index>(below(16) == 15) : static_cast<Index>(below(16) == 15);
    vocabulary = bytes.number<Index>();
    value_columns = static_cast<Index>(below(5));
    seed = below(256);
    special = bytes.number<int>();
    hidden_special = special > 109 ? special - 10 : 0;
    offsets = bytes.list<std::int64_t>();
    tokens = bytes.list<std::int32_t>();
    last = bytes.list<std::int32_t>();
  }
};

/// Small whole numbers, of which all sums here are exact in float; one may be something else. A
/// matrix of sizes that no memory has is a view of one number.
template <class T>
struct Numbers {
  Index rows, columns;
  std::vector<T> values;

  Numbers(Index rows_of, Index columns_of, unsigned seed, int special)
      : rows(rows_of), columns(columns_of) {
    const bool any = 0 < rows && rows < 200 && 0 < columns && columns < 200;
    values.resize(any ? static_cast<std::size_t>(rows * columns) : 1);
    std::minstd_rand random(seed + 1);
    for (T& x : values) x = static_cast<T>(static_cast<float>(static_cast<int>(random() % 17) - 8));
    const auto place = static_cast<std::size_t>(random()) % values.size();
    if (special == 100) values[place] = static_cast<T>(static_cast<float>(nan));
    if (special == 101) values[place] = static_cast<T>(static_cast<float>(infinity));
    if (special == 102) values[place] = static_cast<T>(static_cast<float>(-infinity));
  }
  TensorView<const T, 2> view() const { return {values.data(), {rows, columns}, {columns, 1}}; }
  bool sound() const { return 0 < rows && rows < 200 && 0 < columns && columns < 200; }
  double at(Index r, Index c) const {
    return static_cast<double>(
        static_cast<pare::compute_t<T>>(values[static_cast<std::size_t>(r * columns + c)]));
  }
};

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

using Logits = std::vector<std::vector<double>>;

bool same(double a, double b, double bound) {
  return a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= bound;
}

/// The answer of one row from all of its logits, by a sort.
template <class T>
void check_row(const Input& x, const std::vector<double>& z, std::span<const std::int32_t> ids,
               Index r, std::span<const Index> positions, const HeadSummary<T>& out) {
  const auto row = static_cast<std::size_t>(r);
  const bool finite = std::none_of(z.begin(), z.end(), [](double v) { return !(v < infinity); });
  const bool mass = std::any_of(z.begin(), z.end(), [](double v) { return v > -infinity; });
  require(out.status[row] == (!finite ? RowStatus::NotFinite
                              : mass  ? RowStatus::Sound
                                      : RowStatus::NoMass),
          "a row is sound or not");
  if (out.status[row] != RowStatus::Sound) {
    require(out.k == 0 || out.id(r, 0) == -1, "a row that is not sound has no tokens");
    require(!x.noise || out.drawn[row] == -1, "nor a draw");
    return;
  }
  std::vector<std::size_t> order(z.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return z[a] > z[b]; });
  const auto id = [&](std::size_t i) {
    return ids.empty() ? static_cast<std::int32_t>(i) : ids[i];
  };
  require(out.k == std::min<Index>(x.k, static_cast<Index>(z.size())), "k, or all");
  for (Index i = 0; i < out.k; ++i)
    require(out.id(r, i) == id(order[static_cast<std::size_t>(i)]) &&
                static_cast<double>(out.value(r, i)) == z[order[static_cast<std::size_t>(i)]],
            "the best are in order");
  const bool greedy = x.temperature < 1e-5;
  const double t = greedy ? 1 : x.temperature, most = z[order[0]];
  double sum = 0, best = -infinity;
  std::int32_t drawn = id(order[0]);
  for (std::size_t i = 0; i < z.size(); ++i) {
    sum += std::exp((z[i] - most) / t);
    if (!x.noise || greedy) continue;
    const double score =
        z[i] / t + pare::GumbelNoise{x.seed}.at(positions[row], static_cast<std::uint32_t>(id(i)));
    if (score > best) best = score, drawn = id(i);
  }
  require(same(out.log_sum_exp[row], most / t + std::log(sum), 2e-6 + 1e-14 * std::abs(most / t)),
          "log-sum-exp");
  require(!x.noise || out.drawn[row] == drawn, "the draw is the largest noisy logit");
}

/// All calls of a head whose logits are z; true if all were taken.
template <class Head>
bool try_head(const Input& x, const Head& head, const Numbers<typename Head::scalar>& h, Logits z,
              double bound) {
  using T = typename Head::scalar;
  const bool fits = h.columns == head.inputs();
  const auto count = static_cast<std::size_t>(x.rows);
  std::vector<T> all(count * static_cast<std::size_t>(head.outputs()) + 1, T(77));
  const TensorView<T, 2> y{all.data(), {x.rows, head.outputs()}, {head.outputs(), 1}};
  require(taken([&] { head.logits(h.view(), y); }) == fits, "logits are taken if sizes fit");
  for (std::size_t r = 0; r < count && fits; ++r)
    for (std::size_t o = 0; o < z[r].size(); ++o) {
      const auto got = static_cast<double>(y(static_cast<Index>(r), static_cast<Index>(o)));
      require(same(got, z[r][o], bound), "logits are the product");
      z[r][o] = got;
    }
  require(all.back() == T(77) && (fits || all[0] == T(77)), "nothing else is written");

  std::vector<Index> positions(static_cast<std::size_t>(std::max<Index>(x.positions, 0)));
  std::iota(positions.begin(), positions.end(), Index{40});
  HeadRequest request{.k = x.k, .temperature = x.temperature, .positions = positions};
  if (x.noise) request.noise = pare::GumbelNoise{x.seed};
  const bool sound = fits && x.k >= 0 && std::isfinite(x.temperature) && x.temperature >= 0 &&
                     static_cast<Index>(positions.size()) == (x.noise ? x.rows : 0);
  HeadSummary<T> out;
  out.rows = 77;
  require(taken([&] { head.reduce(pare::simd, h.view(), request, out); }) == sound,
          "a request is taken if it is sound");
  require(sound ? out.rows == x.rows : out.rows == 77, "or the answer is left");
  for (Index r = 0; r < x.rows && sound; ++r)
    check_row(x, z[static_cast<std::size_t>(r)], head.ids(), r, positions, out);

  std::vector<T> some(count * static_cast<std::size_t>(x.value_columns) + 1, T(77));
  const TensorView<T, 2> values{some.data(), {x.rows, x.value_columns}, {x.value_columns, 1}};
  const bool right = fits && x.tokens.size() + 1 == some.size() &&
                     std::all_of(x.tokens.begin(), x.tokens.end(),
                                 [&](auto t) { return t >= 0 && t < head.vocabulary(); });
  require(taken([&] { head.values_at(h.view(), x.tokens, values); }) == right,
          "values are taken if there is a token for each");
  for (std::size_t i = 0; i + 1 < some.size(); ++i) {
    if (!right) {
      require(some[i] == T(77), "or they are left");
      continue;
    }
    const auto ids = head.ids();
    const auto at = std::find(ids.begin(), ids.end(), x.tokens[i]);
    const bool there = ids.empty() || at != ids.end();
    const auto output = ids.empty() ? static_cast<std::size_t>(x.tokens[i])
                                    : static_cast<std::size_t>(at - ids.begin());
    require(same(static_cast<double>(some[i]),
                 there ? z[i / static_cast<std::size_t>(x.value_columns)][output] : -infinity, 0),
            "values are the logits");
  }
  return fits && sound && right;
}

/// w h in double, row by row of h.
template <class W, class T>
Logits product(const Numbers<W>& w, const Numbers<T>& h) {
  Logits z;
  for (Index r = 0; r < h.rows && h.columns == w.columns; ++r) {
    z.emplace_back(static_cast<std::size_t>(w.rows));
    for (Index o = 0; o < w.rows; ++o)
      for (Index i = 0; i < w.columns; ++i)
        z.back()[static_cast<std::size_t>(o)] += w.at(o, i) * h.at(r, i);
  }
  return z;
}

/// The same of latents that are a product.
Logits product(const Numbers<float>& w, const Logits& u) {
  Logits z;
  for (const auto& row : u) {
    z.emplace_back(static_cast<std::size_t>(w.rows));
    for (Index o = 0; o < w.rows; ++o)
      for (Index i = 0; i < w.columns; ++i)
        z.back()[static_cast<std::size_t>(o)] += w.at(o, i) * row[static_cast<std::size_t>(i)];
  }
  return z;
}

/// Makes a head, which must be taken if and only if it is sound.
template <class Head, class Make>
std::optional<Head> made(bool sound, const Make& make) {
  std::optional<Head> head;
  require(taken([&] { head.emplace(make()); }) == sound, "a head is taken if its sizes are sound");
  return head;
}

/// A head of one matrix of W.
template <class Head, class W>
bool try_dense(const Input& x) {
  using T = typename Head::scalar;
  const Numbers<W> w(x.outputs, x.inputs, x.seed, x.special);
  const auto head = made<Head>(w.sound(), [&] { return Head(w.view()); });
  if (!head) return false;
  const Numbers<T> h(x.rows, x.columns, x.seed + 7, x.hidden_special);
  Logits z = product(w, h);
  if (x.kind != Quantized) return try_head(x, *head, h, z, 0);
  // Half a step of at most 8 / 127 for each input, and roundings; no law of a row that is not
  // finite.
  for (Index o = 0; o < w.rows; ++o)
    for (Index i = 0; i < w.columns; ++i)
      for (auto& row : z)
        if (!std::isfinite(w.at(o, i))) row[static_cast<std::size_t>(o)] = nan;
  return try_head(x, *head, h, z, 8.0 / 127 / 2 * 8 * static_cast<double>(x.inputs) * 1.001);
}

bool try_low_rank(const Input& x) {
  const Numbers<float> down(x.rank, x.inputs, x.seed, 0),
      up(x.outputs, x.other_rank, x.seed + 1, x.special);
  const bool sound = down.sound() && up.sound() && x.rank == x.other_rank;
  const auto head =
      made<LowRankHead<float>>(sound, [&] { return LowRankHead<float>(down.view(), up.view()); });
  if (!head) return false;
  const Numbers<float> h(x.rows, x.columns, x.seed + 7, x.hidden_special);
  return try_head(x, *head, h, product(up, product(down, h)), 0);
}

bool try_markov(const Input& x) {
  // Of embeddings as wide as the latent.
  const Numbers<float> down(x.rank, x.inputs, x.seed, 0),
      up(x.outputs, x.other_rank, x.seed + 1, x.special);
  const Numbers<float> first(x.outputs, x.rank, x.seed + 2, 0),
      second(x.outputs, x.rank, x.seed + 3, 0);
  const bool sound = down.sound() && up.sound() && x.rank == x.other_rank;
  const auto head = made<MarkovHead<float>>(sound, [&] {
    return MarkovHead<float>(down.view(), up.view(), first.view(), second.view());
  });
  if (!head) return false;
  const bool tokens =
      std::all_of(x.last.begin(), x.last.end(), [&](auto t) { return t >= 0 && t < x.outputs; });
  std::optional<MarkovHead<float>::After> after;
  require(taken([&] { after.emplace(head->after(x.last)); }) == tokens,
          "last tokens are of the vocabulary");
  if (!after) return false;
  Numbers<float> h(x.rows, x.columns, x.seed + 7, x.hidden_special);
  if (static_cast<Index>(x.last.size()) != x.rows) {
    HeadSummary<float> out;
    require(!taken([&] { after->reduce(pare::simd, h.view(), {.k = 1}, out); }),
            "a token for each row");
    return false;
  }
  Logits z = product(up, product(down, h));
  for (std::size_t r = 0; r < z.size(); ++r)
    for (Index o = 0; o < x.outputs; ++o)
      for (Index i = 0; i < x.rank; ++i)
        z[r][static_cast<std::size_t>(o)] += second.at(o, i) * first.at(x.last[r], i);
  return try_head(x, *after, h, z, 0);
}

bool try_subset(const Input& x) {
  std::vector<std::int32_t> ids, got;
  bool sound = !x.offsets.empty() && x.vocabulary >= 1 && x.vocabulary < std::int64_t{1} << 31;
  for (std::size_t i = 0; i < x.offsets.size() && sound; ++i) {
    const double id = static_cast<double>(i) + static_cast<double>(x.offsets[i]);
    sound = id > (ids.empty() ? -1.0 : static_cast<double>(ids.back())) &&
            id < static_cast<double>(x.vocabulary);
    if (sound) ids.push_back(static_cast<std::int32_t>(id));
  }
  require(taken([&] { got = ids_of_offsets(x.offsets, x.vocabulary); }) == sound &&
              (!sound || got == ids),
          "offsets are taken if they rise within the vocabulary");
  const Numbers<float> w(x.outputs, x.inputs, x.seed, x.special);
  if (!sound || !w.sound()) return false;
  const auto head = made<SubsetHead<DenseHead<float>>>(
      x.outputs == static_cast<Index>(ids.size()),
      [&] { return SubsetHead(DenseHead<float>(w.view()), ids, x.vocabulary); });
  if (!head) return false;
  const Numbers<float> h(x.rows, x.columns, x.seed + 7, x.hidden_special);
  return try_head(x, *head, h, product(w, h), 0);
}

/// True if all calls were taken.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input x(bytes);
  switch (x.kind) {
    case Doubles:
      return try_dense<DenseHead<double>, double>(x);
    case Halves:
      return try_dense<DenseHead<pare::bf16>, pare::bf16>(x);
    case Quantized:
      return try_dense<QuantizedHead, float>(x);
    case Stored:
      return try_dense<StoredHead<float>, float>(x);
    case LowRank:
      return try_low_rank(x);
    case Markov:
      return try_markov(x);
    case Subset:
      return try_subset(x);
    default:
      return try_dense<DenseHead<float>, float>(x);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
int main(int argc, char** argv) {
  const auto valid = [](unsigned long long run, std::mt19937_64& random) {
    const auto below = [&](std::size_t n) { return static_cast<std::uint8_t>(random() % n); };
    const std::uint8_t outputs = static_cast<std::uint8_t>(1 + below(120)), rows = below(20);
    const std::uint8_t columns = below(3), rank = static_cast<std::uint8_t>(1 + below(40));
    const std::uint8_t special = run % 5 == 0 ? static_cast<std::uint8_t>(100 + below(13)) : 0;
    Data bytes{static_cast<std::uint8_t>(run % kinds),
               outputs,
               static_cast<std::uint8_t>(1 + below(120)),
               rank,
               0,
               rows,
               0,
               below(127),
               below(7),
               below(2),
               0,
               120,
               columns,
               below(256),
               special};
    bytes.push_back(outputs);
    Data offsets(outputs);
    for (std::uint8_t& offset : offsets) offset = below(121u - outputs);
    std::sort(offsets.begin(), offsets.end());
    if (run % kinds != Subset) offsets.assign(outputs, 0);
    bytes.insert(bytes.end(), offsets.begin(), offsets.end());
    bytes.push_back(static_cast<std::uint8_t>(rows * columns));
    for (int i = 0; i < rows * columns; ++i) bytes.push_back(below(outputs));
    bytes.push_back(rows);
    for (int i = 0; i < rows; ++i) bytes.push_back(below(outputs));
    return bytes;
  };
  return pare::fuzz::run_mutations("draft_head_fuzz", argc, argv, valid, try_bytes);
}
#endif
