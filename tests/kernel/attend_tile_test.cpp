// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/attend_finish.hpp>
#include <pare/kernel/attend_tile.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_attend_tile_test {
namespace {

using pare::testing::GuardedArray;
using pare::testing::same_bits;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;
using Size = std::ptrdiff_t;

template <class Case>
struct AttendTileTest : testing::Test {};
TYPED_TEST_SUITE(AttendTileTest, pare::testing::ArchsAndStorages);
template <class Case>
struct AttendModifiedTest : testing::Test {};
TYPED_TEST_SUITE(AttendModifiedTest, pare::testing::ArchsAndScalars);

/// Which keys a query sees, said of positions.
struct Pattern {
  bool causal = false;
  int window = 0;  ///< 0 is none
  int sinks = 0;

  bool sees(int query, int key) const {
    if (causal && key > query) return false;
    return window == 0 || std::abs(query - key) < window || key < sinks;
  }

  /// The same as the range that the kernel takes.
  kernel::RowPlace place(int query, int position, int head) const {
    int first = 0, last = std::numeric_limits<std::int32_t>::max();
    if (window > 0) {
      first = position - window + 1;
      last = std::max(position + window - 1, sinks - 1);
    }
    if (causal) last = position;
    return {query, position, first, last, head};
  }

  std::string name() const {
    return std::string(causal ? "causal" : "full") + " window " + std::to_string(window) +
           " sinks " + std::to_string(sinks);
  }
};

/// Queries against keys that come in tiles. Keys and values are kept by position; row r stands at
/// `first_position` + r and belongs to head r % 3.
template <class S>
struct Problem {
  using T = pare::compute_t<S>;
  Size rows, keys, depth, columns;
  int first_position;
  Pattern pattern{};
  T scale;
  std::vector<S> q, k, v;
  std::vector<std::int32_t> order;  ///< slot -> position
  std::vector<Size> tiles;          ///< keys in each
  bool contiguous = false;          ///< to tell the kernel so; `order` counts up
  bool direct = false;              ///< keys and values as they lie, not packed
  bool lanes = false;               ///< the same, with rows as lanes of registers
  Size cut = 0;                     ///< rows below it go in a call of their own

  Problem(Size row_count, Size key_count, Size key_depth, Size value_columns)
      : rows(row_count),
        keys(key_count),
        depth(key_depth),
        columns(value_columns),
        first_position(static_cast<int>(key_count - row_count)),
        scale(static_cast<T>(1 / std::sqrt(static_cast<double>(key_depth)))),
        q(filled(rows * depth, 1)),
        k(filled(keys * depth, 2)),
        v(filled(keys * columns, 3)),
        order(static_cast<std::size_t>(keys)) {
    std::iota(order.begin(), order.end(), 0);
    for (Size left = keys; left > 0; left -= kernel::tile_keys)
      tiles.push_back(std::min(left, kernel::tile_keys));
  }

  /// Uniform in [-2, 2).
  static std::vector<S> filled(Size size, unsigned seed) {
    std::mt19937_64 random(seed);
    std::vector<S> values(static_cast<std::size_t>(size));
    for (S& x : values) x = S(static_cast<T>(static_cast<double>(random()) * 0x1p-62 - 2));
    return values;
  }

  void shuffle() {
    std::mt19937_64 random(4);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  }

  int position(Size row) const { return first_position + static_cast<int>(row); }
  kernel::RowPlace place(Size row) const {
    return pattern.place(static_cast<int>(row), position(row), static_cast<int>(row % 3));
  }
  std::string name() const {
    return std::to_string(rows) + " rows, " + std::to_string(keys) + " keys in " +
           std::to_string(tiles.size()) + " tiles, " + std::to_string(depth) + " deep, " +
           std::to_string(columns) + " columns, " + pattern.name();
  }
};

/// The states of the rows, one for each part of the keys.
template <class T>
struct State {
  Size rows, stride;
  GuardedArray<T> maximum, sum, mass, out;

  State(Size row_count, Size columns, Size parts = 1)
      : rows(row_count),
        stride(kernel::padded_columns<T>(columns)),
        maximum(parts * rows),
        sum(parts * rows),
        mass(parts * rows),
        out(parts * rows * stride) {
    for (T& x : maximum) x = -std::numeric_limits<T>::infinity();
    for (T& x : sum) x = 0;
    for (T& x : mass) x = 0;
    for (T& x : out) x = 0;
  }

  /// Natural, of scaled logits, by a row's sum of weights as they are multiplied, or before that.
  double log_sum_exp(Size row) const { return log_of(row, sum); }
  double log_mass(Size row) const { return log_of(row, mass); }
  double mean(Size row, Size c) const {
    return static_cast<double>(out[row * stride + c]) / static_cast<double>(sum[row]);
  }
  bool empty(Size row) const {
    for (Size c = 0; c < stride; ++c)
      if (out[row * stride + c] != T(0)) return false;
    return maximum[row] == -std::numeric_limits<T>::infinity() && same_bits(sum[row], T(0)) &&
           same_bits(mass[row], T(0));
  }

 private:
  double log_of(Size row, const GuardedArray<T>& sums) const {
    return (static_cast<double>(maximum[row]) + std::log2(static_cast<double>(sums[row]))) *
           std::log(2.0);
  }
};

/// The rows `which` of x, each followed by a NaN, and pointers to them, behind which a page may not
/// be touched.
template <class S>
class RowList {
 public:
  RowList(const std::vector<S>& x, Size width, const std::int32_t* which, Size count)
      : memory_(count * (width + 1)), rows_(count) {
    for (Size i = 0; i < count; ++i) {
      S* row = memory_.data() + i * (width + 1);
      std::copy_n(x.data() + which[i] * width, width, row);
      rows_[i] = row;
    }
  }
  const S* const* data() const { return rows_.data(); }

 private:
  GuardedArray<S> memory_;
  GuardedArray<const S*> rows_;
};

/// Queries as lanes, and the memory that a tile of lanes takes.
template <class Arch, class S>
class LaneMemory {
  using T = pare::compute_t<S>;
  using Room = kernel::LaneRoom<T>;
  static constexpr Size width = kernel::tile_columns<T, Arch>;

 public:
  LaneMemory(const Problem<S>& x, const S* const* rows)
      : stride_((x.rows + width - 1) / width * width),
        queries_(stride_ * x.depth),
        scores_((kernel::tile_keys + Room::lane_room) * stride_),
        states_(Room::lane_states * stride_),
        keys_(kernel::tile_keys * x.depth),
        values_(kernel::tile_keys * x.columns) {
    std::vector<std::vector<T>> widened;
    std::vector<const T*> pointers;
    for (Size r = 0; r < x.rows; ++r) {
      std::vector<T>& row = widened.emplace_back();
      for (Size d = 0; d < x.depth; ++d) row.push_back(static_cast<T>(rows[r][d]));
    }
    for (const std::vector<T>& row : widened) pointers.push_back(row.data());
    launch(pare::simd_for<Arch>{},
           kernel::PackTransposed<T>{
               pointers.data(), x.rows, x.depth, queries_.data(), {}, kernel::PanelWidth::Lanes});
  }

  const T* queries() const { return queries_.data(); }
  Room room() const {
    return {scores_.data(), states_.data(), keys_.data(), values_.data(), stride_};
  }

 private:
  Size stride_;
  mutable GuardedArray<T> queries_, scores_, states_, keys_, values_;
};

/// The tile of keys [slot, slot + count) brought to the rows of `state` that start at `part` rows.
template <class Arch, class S, class M>
void attend_tile(const Problem<S>& x, const M& modifier, Size slot, Size count, Size part,
                 State<pare::compute_t<S>>& state) {
  using T = pare::compute_t<S>;
  const pare::simd_for<Arch> backend{};
  constexpr Size width = kernel::tile_columns<T, Arch>;
  const std::int32_t* positions = x.order.data() + slot;
  std::vector<std::int32_t> every_row(static_cast<std::size_t>(x.rows));
  std::iota(every_row.begin(), every_row.end(), 0);
  const RowList<S> q_rows(x.q, x.depth, every_row.data(), x.rows);
  const RowList<S> k_rows(x.k, x.depth, positions, count);
  const RowList<S> v_rows(x.v, x.columns, positions, count);
  GuardedArray<T> queries(x.rows * x.depth), keys(x.depth * ((count + width - 1) / width * width)),
      values((count + 1) * kernel::padded_columns<T>(x.columns));
  launch(backend, kernel::PackLeft<S>{q_rows.data(), x.rows, x.depth, queries.data()});
  launch(backend, kernel::PackTransposed<S>{k_rows.data(), count, x.depth, keys.data()});
  launch(backend, kernel::PackRows<S>{v_rows.data(), count, x.columns, values.data()});
  GuardedArray<std::int32_t> guarded_positions(count);
  std::copy(positions, positions + count, guarded_positions.data());
  GuardedArray<kernel::RowPlace> places(x.rows);
  for (Size r = 0; r < x.rows; ++r) places[r] = x.place(r);
  const Size at = part * x.rows;
  const LaneMemory<Arch, S> lanes(x, q_rows.data());
  const auto run = [&](Size first_row, Size end_row) {
    launch(backend,
           kernel::AttendTile<S, M>{.keys = x.direct ? nullptr : keys.data(),
                                    .values = x.direct ? nullptr : values.data(),
                                    .key_rows = k_rows.data(),
                                    .value_rows = v_rows.data(),
                                    .positions = guarded_positions.data(),
                                    .count = count,
                                    .lowest = *std::min_element(positions, positions + count),
                                    .highest = *std::max_element(positions, positions + count),
                                    .contiguous = x.contiguous,
                                    .sinks = x.pattern.window > 0 ? x.pattern.sinks : 0,
                                    .key_depth = x.depth,
                                    .value_columns = x.columns,
                                    .queries = x.lanes ? lanes.queries() : queries.data(),
                                    .places = places.data(),
                                    .first_row = first_row,
                                    .rows = end_row,
                                    .maximum = state.maximum.data() + at,
                                    .sum = state.sum.data() + at,
                                    .out = state.out.data() + at * state.stride,
                                    .mass = state.mass.data() + at,
                                    .scale = x.scale,
                                    .batch = 1,
                                    .modifier = modifier,
                                    .fetch = {k_rows.data(), count, x.depth},
                                    .lanes = x.lanes ? lanes.room() : kernel::LaneRoom<T>{}});
  };
  run(0, x.cut);
  run(x.cut, x.rows);
}

/// The state after all tiles in a row.
template <class Arch, class S>
struct Attended : State<pare::compute_t<S>> {
  template <class M = kernel::Exact>
  explicit Attended(const Problem<S>& x, const M& modifier = M{})
      : State<pare::compute_t<S>>(x.rows, x.columns) {
    Size slot = 0;
    for (const Size count : x.tiles) {
      attend_tile<Arch>(x, modifier, slot, count, 0, *this);
      slot += count;
    }
  }
};

/// What a modifier does to a score, and how far the kernel's may be from it by its own roundings.
struct Wanted {
  std::function<long double(long double score, const kernel::ScorePlace&)> modify =
      [](long double score, const kernel::ScorePlace&) { return score; };
  double rounding = 0;
};

/// One row by the definition: the softmax of the scores that are seen, over all keys at once.
template <class S>
class Row {
 public:
  using T = pare::compute_t<S>;

  Row(const Problem<S>& x, Size row, const Wanted& wanted) : x_(x), rounding_(wanted.rounding) {
    for (Size j = 0; j < x.keys; ++j) {
      const int position = static_cast<int>(j);
      if (!x.pattern.sees(x.position(row), position)) continue;
      long double score = 0, magnitude = 0;
      for (Size d = 0; d < x.depth; ++d) {
        const long double term = value(x.q, row * x.depth + d) * value(x.k, j * x.depth + d);
        score += term;
        magnitude += std::abs(term);
      }
      const kernel::ScorePlace place{1, row % 3, row, x.position(row), position};
      score = wanted.modify(score * static_cast<long double>(x.scale), place);
      if (score == -std::numeric_limits<long double>::infinity()) continue;
      keys_.push_back(j);
      scores_.push_back(score);
      product_ = std::max(product_, static_cast<double>(magnitude * std::abs(x.scale)));
      score_ = std::max(score_, static_cast<double>(std::abs(score)));
    }
    if (keys_.empty()) return;
    largest_ = *std::max_element(scores_.begin(), scores_.end());
    for (const long double s : scores_) sum_ += std::exp(s - largest_);
  }

  bool empty() const { return keys_.empty(); }
  double log_sum_exp() const { return static_cast<double>(largest_ + std::log(sum_)); }
  double mean(Size c) const {
    long double total = 0;
    for (std::size_t i = 0; i < keys_.size(); ++i)
      total += std::exp(scores_[i] - largest_) * value(x_.v, keys_[i] * x_.columns + c);
    return static_cast<double>(total / sum_);
  }
  double largest_value(Size c) const {
    double largest = 0;
    for (const Size j : keys_)
      largest = std::max(largest, static_cast<double>(std::abs(value(x_.v, j * x_.columns + c))));
    return largest;
  }

  /// How far an exponent may be off, in natural units: the dot product and its scale; the
  /// modifier; and, each of at most the largest score, the factor log2(e) times the scale (2
  /// roundings), its product, the difference from the maximum (of twice that), and the differences
  /// of successive maxima, which together are at most twice that again.
  double exponent_error() const {
    return Tolerance<T>::gamma(static_cast<double>(x_.depth) + 1) * product_ + rounding_ +
           Tolerance<T>::gamma(8) * score_;
  }

  /// The relative error of sums over weights that may each be `weight` off: a product and an
  /// addition each, and the power, the difference and the product of each rescaling.
  double sum_error(double weight, double rescalings) const {
    const double n = static_cast<double>(keys_.size());
    return (1 + weight) * (1 + Tolerance<T>::gamma(n + 8 + 5 * rescalings)) - 1;
  }
  /// Of a weight: its exponent, the power's 3 u, and rounding to bf16 where weights are multiplied
  /// as such.
  template <class Arch>
  double weight_error() const {
    const bool pairs = std::is_same_v<kernel::element_t<S, Arch>, kernel::Bf16Pair>;
    return (1 + std::expm1(exponent_error())) * (1 + Tolerance<T>::gamma(4)) *
               (1 + (pairs ? 0x1p-8 : 0)) -
           1;
  }
  /// Weights below the smallest normal number are 0; the largest is about 1.
  double lost() const {
    return 2 * static_cast<double>(keys_.size()) *
           static_cast<double>(std::numeric_limits<T>::min());
  }

 private:
  static long double value(const std::vector<S>& values, Size i) {
    return static_cast<long double>(static_cast<T>(values[static_cast<std::size_t>(i)]));
  }

  const Problem<S>& x_;
  double rounding_;
  std::vector<Size> keys_;
  std::vector<long double> scores_;
  long double largest_ = 0, sum_ = 0;
  double product_ = 0, score_ = 0;
};

/// The state of one row is that of the definition; untouched if it sees nothing.
template <class Arch, class S>
void expect_row(const Problem<S>& x, const State<pare::compute_t<S>>& state, Size r,
                const Wanted& wanted, double rescalings) {
  using T = pare::compute_t<S>;
  const Row<S> row(x, r, wanted);
  if (row.empty()) {
    ASSERT_TRUE(state.empty(r)) << x.name() << " row " << r;
    return;
  }
  const double error = row.sum_error(row.template weight_error<Arch>(), rescalings);
  ASSERT_LT(error, 0.5) << x.name() << " asserts nothing";
  const double ratio = 2 * error / (1 - error) + row.lost();
  for (Size c = 0; c < x.columns; ++c)
    ASSERT_TRUE(within(state.mean(r, c), row.mean(c), ratio * row.largest_value(c)))
        << x.name() << " row " << r << " column " << c << ": " << state.mean(r, c) << " for "
        << row.mean(c);
  // The sum's error as a logarithm; the maximum itself is exact in this comparison.
  const double bound = error / (1 - error) + row.lost() +
                       4 * Tolerance<T>::unit_roundoff * std::abs(row.log_sum_exp());
  ASSERT_TRUE(within(state.log_sum_exp(r), row.log_sum_exp(), bound)) << x.name() << " row " << r;
  ASSERT_TRUE(within(state.log_mass(r), row.log_sum_exp(), bound)) << x.name() << " row " << r;
}

template <class Arch, class S, class M = kernel::Exact>
void expect_attends_as_told(const Problem<S>& x, const M& modifier, const Wanted& wanted) {
  const Attended<Arch, S> state(x, modifier);
  for (Size r = 0; r < x.rows; ++r)
    expect_row<Arch>(x, state, r, wanted, static_cast<double>(x.tiles.size()));
  ASSERT_TRUE(state.out.surroundings_untouched()) << x.name();
}

/// Packed; with rows as lanes; and for few rows also with keys as they lie, cut in two calls.
template <class Arch, class S, class M = kernel::Exact>
void expect_attends(const Problem<S>& x, const M& modifier = M{}, const Wanted& wanted = Wanted{}) {
  expect_attends_as_told<Arch>(x, modifier, wanted);
  Problem<S> direct = x;
  direct.direct = direct.lanes = true;
  expect_attends_as_told<Arch>(direct, modifier, wanted);
  if (x.rows > 2 * kernel::tile_rows) return;
  direct.lanes = false;
  direct.cut = x.rows / 3;
  expect_attends_as_told<Arch>(direct, modifier, wanted);
}

const std::vector<Pattern>& patterns() {
  static const std::vector<Pattern> all{{false, 0, 0},  {true, 0, 0},   {true, 1, 0},
                                        {true, 40, 0},  {true, 40, 5},  {true, 150, 70},
                                        {false, 30, 0}, {false, 30, 9}, {true, 7, 300}};
  return all;
}

TYPED_TEST(AttendTileTest, EqualsTheDefinitionForEveryNumberOfRowsAndPattern) {
  using S = typename TypeParam::scalar;
  for (Size rows = 1; rows <= 20; ++rows)
    for (const Pattern& pattern : patterns()) {
      Problem<S> x(rows, 289, 24, 18);
      x.pattern = pattern;
      x.contiguous = true;
      x.tiles = {128, 1, 64, 96};
      if (rows % 4 == 3) x.first_position = 60;  // whole tiles behind the queries
      expect_attends<typename TypeParam::arch>(x);
    }
}

TYPED_TEST(AttendTileTest, EqualsTheDefinitionForKeysInAnyOrder) {
  using S = typename TypeParam::scalar;
  for (const Size rows : {1, 2, 6, 7, 11, 19})
    for (const Pattern& pattern : patterns())
      for (const bool shuffled : {false, true}) {
        Problem<S> x(rows, 231, 17, 9);
        x.pattern = pattern;
        x.tiles = {37, 128, 66};
        if (shuffled)
          x.shuffle();
        else
          std::rotate(x.order.begin(), x.order.begin() + 100, x.order.end());
        x.first_position -= rows % 2 == 1 ? 90 : 0;
        expect_attends<typename TypeParam::arch>(x);
      }
}

TYPED_TEST(AttendTileTest, EqualsTheDefinitionForEveryTailOfKeys) {
  using S = typename TypeParam::scalar;
  for (Size keys = 1; keys <= 130; ++keys)
    for (const bool causal : {false, true}) {
      Problem<S> x(7, keys, 5, 3);
      x.pattern.causal = causal;
      x.contiguous = true;
      expect_attends<typename TypeParam::arch>(x);
    }
}

TYPED_TEST(AttendTileTest, EqualsTheDefinitionForEveryDepthAndTailOfColumns) {
  using S = typename TypeParam::scalar;
  for (const Size columns :
       {1,  2,  7,  8,   15,  16,  17,  24,  31,  32,  33,  47,  48,  49,  63,  64,  65,
        80, 95, 96, 112, 127, 128, 129, 144, 160, 192, 200, 208, 224, 240, 255, 256, 257}) {
    Problem<S> x(8, 141, columns % 5 == 0 ? 64 : 1 + columns % 37, columns);
    x.pattern.causal = true;
    x.tiles = {128, 13};  // of the second, the first group of rows sees a part
    x.contiguous = true;
    expect_attends<typename TypeParam::arch>(x);
  }
  for (const Size depth : {1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 40, 64, 65, 128, 129, 256}) {
    Problem<S> x(6, 70, depth, 16);
    expect_attends<typename TypeParam::arch>(x);
  }
}

TYPED_TEST(AttendTileTest, RowsThatSeeNothingAreUntouched) {
  using S = typename TypeParam::scalar;
  // Queries that stand before the first key, beside some that do not.
  for (const Size rows : {4, 9, 20}) {
    Problem<S> x(rows, 3, 8, 20);
    x.pattern.causal = true;
    ASSERT_LT(x.first_position, 0);
    const Attended<typename TypeParam::arch, S> state(x);
    for (Size r = 0; r < rows; ++r) EXPECT_EQ(state.empty(r), x.position(r) < 0) << "row " << r;
    expect_attends<typename TypeParam::arch>(x);
  }
  // Keys that are all behind the window of every row.
  Problem<S> x(5, 40, 8, 20);
  x.pattern = {true, 10, 0};
  x.first_position = 100;
  expect_attends<typename TypeParam::arch>(x);
  const Attended<typename TypeParam::arch, S> state(x);
  EXPECT_TRUE(state.empty(4));
}

/// Quiet NaNs: the plain one, and one with a payload where the scalar has room for it.
template <class S>
std::vector<S> nans() {
  if constexpr (std::is_same_v<S, float>)
    return {std::bit_cast<S>(0x7fc00000u), std::bit_cast<S>(0x7fc00001u)};
  else if constexpr (std::is_same_v<S, double>)
    return {std::bit_cast<S>(std::uint64_t{0x7ff8000000000000}),
            std::bit_cast<S>(std::uint64_t{0x7ff80000000007a2})};
  else if constexpr (std::is_same_v<S, pare::bf16>)
    return {S::from_bits(0x7fc0), S::from_bits(0x7fc1)};
  else
    return {S::from_bits(0x7e00), S::from_bits(0x7e01)};
}

template <class T>
void expect_nan_row(const State<T>& state, Size r, Size columns) {
  EXPECT_TRUE(std::isnan(state.log_sum_exp(r))) << "row " << r;
  EXPECT_TRUE(std::isnan(state.log_mass(r))) << "row " << r;
  for (Size c = 0; c < columns; ++c)
    EXPECT_TRUE(std::isnan(state.mean(r, c))) << "row " << r << " column " << c;
}

TYPED_TEST(AttendTileTest, ANanQueryMakesItsRowNanAndNoOther) {
  using S = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  for (const S nan : nans<S>())
    for (const Size rows : {1, 6, 13})
      for (Size bad = 0; bad < rows; bad += 3)
        for (const bool causal : {false, true})
          for (const bool lanes : {false, true}) {
            Problem<S> x(rows, 150, 9, 5);
            x.direct = x.lanes = lanes;
            x.pattern.causal = causal;
            x.q[static_cast<std::size_t>(bad * x.depth + 4)] = nan;
            const Attended<Arch, S> state(x);
            for (Size r = 0; r < rows; ++r)
              if (r == bad)
                expect_nan_row(state, r, x.columns);
              else
                expect_row<Arch>(x, state, r, Wanted{}, 2);
          }
}

// The whole state of such a row is NaN: a maximum that leaves NaN out would pass for a sound one.
TYPED_TEST(AttendTileTest, ANanQueryMakesTheMaximumNanToo) {
  using S = typename TypeParam::scalar;
  for (const bool lanes : {false, true}) {
    Problem<S> x(7, kernel::tile_keys, 9, 5);
    x.direct = x.lanes = lanes;
    x.q[static_cast<std::size_t>(4 * x.depth)] = nans<S>().front();
    const Attended<typename TypeParam::arch, S> state(x);
    for (Size r = 0; r < x.rows; ++r)
      EXPECT_EQ(std::isnan(state.maximum[r]), r == 4) << r << " lanes " << lanes;
  }
}

/// Row r sees the key that was spoilt or is as without it. Packed, and with rows as lanes.
template <class Arch, class S>
void expect_spoilt_by(Problem<S> x, int key) {
  for (const bool lanes : {false, true}) {
    x.direct = x.lanes = lanes;
    const Attended<Arch, S> state(x);
    for (Size r = 0; r < x.rows; ++r)
      if (x.pattern.sees(x.position(r), key))
        expect_nan_row(state, r, x.columns);
      else
        expect_row<Arch>(x, state, r, Wanted{}, static_cast<double>(x.tiles.size()));
  }
}

TYPED_TEST(AttendTileTest, ANanKeyReachesTheRowsThatSeeItAndNoOther) {
  using S = typename TypeParam::scalar;
  for (const S nan : nans<S>())
    for (const int key : {0, 1, 7, 63, 127, 128, 133, 135, 139, 149})
      for (const Pattern& pattern : {Pattern{true, 0, 0}, Pattern{true, 6, 0}, Pattern{true, 6, 2}})
        for (const bool shuffled : {false, true}) {
          Problem<S> x(14, 150, 9, 5);
          x.pattern = pattern;
          if (shuffled) x.shuffle();
          x.contiguous = !shuffled;
          x.k[static_cast<std::size_t>(key * x.depth)] = nan;
          expect_spoilt_by<typename TypeParam::arch>(x, key);
        }
}

TYPED_TEST(AttendTileTest, AnInfiniteScoreMakesItsRowNan) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const int key : {0, 100, 128, 143}) {
    Problem<S> x(12, 150, 1, 5);
    for (S& q : x.q) q = S(T(1));
    x.pattern.causal = true;
    x.k[static_cast<std::size_t>(key)] = S(std::numeric_limits<T>::infinity());
    expect_spoilt_by<typename TypeParam::arch>(x, key);
  }
}

TYPED_TEST(AttendTileTest, LogitsOfTenThousandStayFinite) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const int seed : {0, 1, 2}) {
    // Products of whole numbers: scores from -1e4 to 1e4 without rounding, many of them alike.
    Problem<S> x(9, 200, 4, 7);
    x.scale = 1;
    x.pattern.causal = seed == 1;
    for (std::size_t i = 0; i < x.q.size(); ++i) x.q[i] = S(T(i % 4 == 0 ? 100 : 0));
    for (std::size_t i = 0; i < x.k.size(); ++i) {
      const auto step = static_cast<int>((i / 4 * 7 + static_cast<std::size_t>(seed)) % 101);
      x.k[i] = S(static_cast<T>(2 * step - 100));
    }
    if (seed == 2) x.shuffle();
    expect_attends<typename TypeParam::arch>(x);
  }
}

/// Of weights that are the same in the numerator and the denominator, only sums round. Packed, and
/// with rows as lanes.
template <class Arch, class S>
void expect_means(Problem<S> x, const std::function<double(Size row, Size c)>& wanted) {
  for (const bool lanes : {false, true}) {
    x.direct = x.lanes = lanes;
    const Attended<Arch, S> state(x);
    for (Size r = 0; r < x.rows; ++r) {
      const Row<S> row(x, r, Wanted{});
      ASSERT_FALSE(row.empty());
      const double error = row.sum_error(0, static_cast<double>(x.tiles.size()));
      for (Size c = 0; c < x.columns; ++c)
        ASSERT_TRUE(
            within(state.mean(r, c), wanted(r, c), 2 * error / (1 - error) * row.largest_value(c)))
            << x.name() << " lanes " << lanes << " row " << r << " column " << c << ": "
            << state.mean(r, c);
    }
  }
}

TYPED_TEST(AttendTileTest, ConstantValuesGiveThatConstant) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const Pattern& pattern : patterns()) {
    Problem<S> x(13, 300, 30, 21);
    x.pattern = pattern;
    for (S& q : x.q) q = S(static_cast<T>(q) * 4);
    for (std::size_t i = 0; i < x.v.size(); ++i)
      x.v[i] = S(static_cast<T>(static_cast<int>(i % 21) - 10) / 4);
    expect_means<typename TypeParam::arch>(
        x, [](Size, Size c) { return static_cast<double>(c - 10) / 4; });
  }
}

TYPED_TEST(AttendTileTest, EqualKeysGiveTheMeanOfTheValuesHoweverLargeTheLogits) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const double size : {0.0, 1.0, 50.0, 100.0, 2e4, 3e4}) {
    Problem<S> x(7, 270, 2, 6);
    x.scale = static_cast<T>(size == 3e4 ? 1e20 : 0.7);
    x.pattern.causal = true;
    for (S& q : x.q) q = S(static_cast<T>(size));
    for (S& k : x.k) k = S(static_cast<T>(size));
    expect_means<typename TypeParam::arch>(x, [&](Size row, Size c) {
      double total = 0;
      const Size seen = x.position(row) + 1;
      for (Size j = 0; j < seen; ++j)
        total +=
            static_cast<double>(static_cast<T>(x.v[static_cast<std::size_t>(j * x.columns + c)]));
      return total / static_cast<double>(seen);
    });
  }
}

/// The parts of the keys attended to apart and merged are as all of them in a row.
TYPED_TEST(AttendTileTest, PartsMergeToTheWhole) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  using Arch = typename TypeParam::arch;
  for (const Pattern& pattern : patterns())
    for (const bool spoilt : {false, true}) {
      Problem<S> x(8, 290, 12, 19);
      x.pattern = pattern;
      x.first_position = 140;
      x.tiles = {100, 100, 90};
      if (spoilt) x.q[static_cast<std::size_t>(5 * x.depth)] = nans<S>()[0];
      State<T> state(x.rows, x.columns, 3);
      for (Size part = 0; part < 3; ++part)
        attend_tile<Arch>(x, kernel::Exact{}, part * 100, x.tiles[static_cast<std::size_t>(part)],
                          part, state);
      launch(pare::simd_for<Arch>{},
             kernel::MergeRows<T>{state.maximum.data(), state.sum.data(), state.out.data(), 3,
                                  x.rows, x.columns, state.mass.data(), x.rows});
      for (Size r = 0; r < x.rows; ++r)
        if (spoilt && r == 5)
          expect_nan_row(state, r, x.columns);
        else
          expect_row<Arch>(x, state, r, Wanted{}, 6);
    }
}

template <class Arch, class S, class M>
void expect_modified(const M& modifier, const Wanted& wanted) {
  for (const Pattern& pattern : {Pattern{}, Pattern{true, 0, 0}, Pattern{true, 50, 4}})
    for (const bool shuffled : {false, true}) {
      Problem<S> x(8, 150, 10, 6);
      x.pattern = pattern;
      for (S& q : x.q) q = S(3 * static_cast<pare::compute_t<S>>(q));
      if (shuffled) x.shuffle();
      expect_attends<Arch>(x, modifier, wanted);
    }
}

TYPED_TEST(AttendModifiedTest, SoftCap) {
  using T = typename TypeParam::scalar;
  // The roundings of cap * tanh: score_modifier_test.cpp.
  expect_modified<typename TypeParam::arch, T>(
      kernel::SoftCap{4},
      Wanted{[](long double score, const kernel::ScorePlace&) { return 4 * std::tanh(score / 4); },
             Tolerance<T>::gamma(9) * 4});
}

TYPED_TEST(AttendModifiedTest, Alibi) {
  using T = typename TypeParam::scalar;
  const float slopes[] = {0.5f, 0.0625f, 0.0f};
  // Slopes times whole distances are exact; the difference is at most 0.5 * 149 + 60 in size.
  expect_modified<typename TypeParam::arch, T>(
      kernel::Alibi{slopes}, Wanted{[&](long double score, const kernel::ScorePlace& place) {
                                      return score - static_cast<long double>(slopes[place.head]) *
                                                         static_cast<long double>(std::abs(
                                                             place.query_position - place.key));
                                    },
                                    Tolerance<T>::gamma(1) * (0.5 * 149 + 60)});
}

/// A bias in [-2, 2) for batch 1 of 2, 3 heads, 8 queries and 150 keys.
template <class B>
std::vector<B> random_bias() {
  return Problem<B>::filled(2 * 3 * 8 * 150, 6);
}

template <class B>
Wanted wanted_bias(const std::vector<B>& bias, double rounding) {
  return Wanted{[&bias](long double score, const kernel::ScorePlace& place) {
                  const auto at = static_cast<std::size_t>(
                      ((place.batch * 3 + place.head) * 8 + place.query) * 150 + place.key);
                  return score +
                         static_cast<long double>(static_cast<pare::compute_t<B>>(bias[at]));
                },
                rounding};
}

/// Rounds a bias of at most 2 to the kernel's scalar, and its sum with a score of at most 60.
template <class T>
constexpr double bias_rounding() {
  return Tolerance<T>::gamma(2) * 62;
}

template <class Arch, class T, class B>
void expect_biased() {
  const std::vector<B> bias = random_bias<B>();
  expect_modified<Arch, T>(kernel::AddBias<B>{bias.data(), {3600, 1200, 150, 1}},
                           wanted_bias(bias, bias_rounding<T>()));
}

TYPED_TEST(AttendModifiedTest, AddBiasOfEachScalar) {
  expect_biased<typename TypeParam::arch, typename TypeParam::scalar, float>();
  expect_biased<typename TypeParam::arch, typename TypeParam::scalar, double>();
  expect_biased<typename TypeParam::arch, typename TypeParam::scalar, pare::bf16>();
}

TYPED_TEST(AttendModifiedTest, ChainOfSoftCapAndBias) {
  using T = typename TypeParam::scalar;
  const std::vector<float> bias = random_bias<float>();
  const Wanted biased = wanted_bias(bias, bias_rounding<T>());
  expect_modified<typename TypeParam::arch, T>(
      kernel::Chain<kernel::SoftCap, kernel::AddBias<float>>{{4},
                                                             {bias.data(), {3600, 1200, 150, 1}}},
      Wanted{[&](long double score, const kernel::ScorePlace& place) {
               return biased.modify(4 * std::tanh(score / 4), place);
             },
             biased.rounding + Tolerance<T>::gamma(9) * 4});
}

/// A user's modifier: keys of the other parity than the query's are hidden, and query 6 sees none.
struct HideOtherParity {
  template <class T>
  T modify(T score, const kernel::ScorePlace& place) const noexcept {
    const bool seen = place.query != 6 && (place.query_position - place.key) % 2 == 0;
    return seen ? score : -std::numeric_limits<T>::infinity();
  }
};

TYPED_TEST(AttendModifiedTest, MinusInfinityHidesKeysAndWholeRows) {
  using T = typename TypeParam::scalar;
  expect_modified<typename TypeParam::arch, T>(
      HideOtherParity{}, Wanted{[](long double score, const kernel::ScorePlace& place) {
                                  return HideOtherParity{}.modify(score, place);
                                },
                                0});
}

}  // namespace
}  // namespace kernel_attend_tile_test
