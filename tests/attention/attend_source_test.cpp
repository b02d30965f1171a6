// SPDX-License-Identifier: Apache-2.0
// Where keys and values may come from: pages, a user's own store, packed sequences, tensors of
// which a part is in use, and Eigen's tensors.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include <pare/attention/attend.hpp>
#include <pare/attention/heads/head_modes.hpp>
#include <pare/core/permutation.hpp>
#include <unsupported/Eigen/CXX11/Tensor>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "attention/sources.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_source_test {
namespace {

using pare::compute_t;
using pare::Index;
using pare::TensorView;
using pare::attention::attend;
using pare::attention::AttendOptions;
using pare::attention::BlockMask;
using pare::attention::DenseKeyValue;
using pare::attention::HasRowRuns;
using pare::attention::HeadMode;
using pare::attention::HeadModes;
using pare::attention::KeyOrder;
using pare::attention::PagedKeyValue;
using pare::attention::RowRun;
using pare::testing::attended;
using pare::testing::attended_from;
using pare::testing::Coins;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::Layout;
using pare::testing::Outputs;
using pare::testing::Pages;
using pare::testing::random_orders;
using pare::testing::Ring;
using pare::testing::same_bits;
using pare::testing::Sees;
using pare::testing::Sizes;
using pare::testing::Tensor;

template <class Case>
struct AttendSourceTest : testing::Test {
  using Storage = typename Case::scalar;
  using Compute = compute_t<Storage>;
  static constexpr double tolerance = pare::testing::attention_bound<Case>();
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(AttendSourceTest, pare::testing::AttendSources);

TYPED_TEST(AttendSourceTest, ShuffledPagesGiveTheBitsOfTensors) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{3, 4, 2, 20, 150, 8, 5});
  const std::vector<Index> lengths{150, 0, 33};
  const AttendOptions dense{.causal = true, .window = 60, .sinks = 3, .key_lengths = lengths};
  const Outputs<S> wanted = attended(this->backend(), x, dense);
  expect_attention(x, wanted, this->tolerance, Sees{20, 150, true, 60, 3, lengths});
  for (const Index page : {1, 7, 16, 200})
    for (const Layout layout : {Layout::by_head, Layout::by_token}) {
      const Pages<S> pages(x, lengths, page, layout);
      EXPECT_TRUE(same_outputs(attended_from(this->backend(), x, pages.source(),
                                             {.causal = true, .window = 60, .sinks = 3}),
                               wanted))
          << page;
    }
}

// Pages whose tokens the window has passed are given back, and their entries hold -1.
TYPED_TEST(AttendSourceTest, PagesBehindTheWindowMayBeGone) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{2, 4, 2, 20, 150, 8, 5});
  const std::vector<Index> lengths{150, 90};
  const AttendOptions options{.causal = true, .window = 30, .sinks = 3};
  AttendOptions dense = options;
  dense.key_lengths = lengths;
  const Outputs<S> wanted = attended(this->backend(), x, dense);
  for (const Index page : {1, 7, 16}) {
    Pages<S> pages(x, lengths, page, Layout::by_head);
    const Index width = pages.width;
    std::vector<std::int32_t*> kept;
    for (Index b = 0; b < 2; ++b) {
      // Query 0 stands at length - 20 and sees 30 keys up to itself.
      const Index first = lengths[static_cast<std::size_t>(b)] - 20 - 29;
      for (Index p = 0; p * page < lengths[static_cast<std::size_t>(b)]; ++p) {
        std::int32_t& entry = pages.table[static_cast<std::size_t>(b * width + p)];
        if (p * page >= 3 && (p + 1) * page <= first)
          entry = -1;
        else
          kept.push_back(&entry);
      }
    }
    EXPECT_TRUE(same_outputs(attended_from(this->backend(), x, pages.source(), options), wanted));
    EXPECT_THROW(attended_from(this->backend(), x, pages.source(), {.causal = true}),
                 std::invalid_argument);
    for (std::int32_t* entry : kept) {
      const std::int32_t name = std::exchange(*entry, -1);
      EXPECT_THROW(attended_from(this->backend(), x, pages.source(), options),
                   std::invalid_argument);
      *entry = name;
    }
  }
}

// Of packed queries, each sequence has its own.
TYPED_TEST(AttendSourceTest, PagesBehindTheWindowsOfPackedQueries) {
  using S = typename TestFixture::Storage;
  const Inputs<S> cache(Sizes{2, 2, 1, 1, 150, 8, 5}), x(Sizes{1, 2, 1, 25, 1, 8, 5});
  const std::vector<Index> queries{0, 5, 25}, firsts{150 - 5 - 29, 90 - 20 - 29};
  const AttendOptions options{.causal = true, .window = 30, .query_offsets = queries};
  Pages<S> pages(cache, {150, 90}, 8, Layout::by_head);
  const Outputs<S> wanted = attended_from(this->backend(), x, pages.source(), options);
  for (Index b = 0; b < 2; ++b)
    for (Index p = 0; (p + 1) * 8 <= firsts[static_cast<std::size_t>(b)]; ++p)
      pages.table[static_cast<std::size_t>(b * pages.width + p)] = -1;
  EXPECT_TRUE(same_outputs(attended_from(this->backend(), x, pages.source(), options), wanted));
}

TYPED_TEST(AttendSourceTest, PagesTakeOrdersAndMasks) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{2, 4, 2, 50, 90, 8, 5});
  const Pages<S> pages(x, {90, 90}, 16, Layout::by_head);
  const KeyOrder order({1, 1, 90}, random_orders(1, 90, 2));
  const BlockMask mask = BlockMask::from_predicate({1, 4, 50, 90, 16, 8}, Coins{2, 60});
  const AttendOptions options{.causal = true, .order = &order, .mask = &mask};
  EXPECT_TRUE(same_outputs(attended_from(this->backend(), x, pages.source(), options),
                           attended(this->backend(), x, options)));
}

TYPED_TEST(AttendSourceTest, AUsersOwnStore) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{2, 4, 2, 40, 140, 8, 5});
  EXPECT_TRUE(same_outputs(attended_from(this->backend(), x, Ring<S>(x, 57), {.causal = true}),
                           attended(this->backend(), x, {.causal = true})));
  Outputs<S> y(x.sizes);
  Ring<S> bad(x, 0);
  bad.turned = -1;
  EXPECT_THROW(attend(this->backend(), x.q.view(), bad, y.out.writable()), std::invalid_argument);
}

/// Tensors whose values are replaced by others, as a user derives from a source.
template <class S>
struct OtherValues : DenseKeyValue<S> {
  TensorView<const S, 4> others{};

  const S* value(Index sequence, Index head, Index position) const {
    return &others(sequence, head, position, 0);
  }
};

/// The same of pages, of which the keys are replaced.
template <class S>
struct OtherKeys : PagedKeyValue<S> {
  TensorView<const S, 4> others{};

  const S* key(Index sequence, Index head, Index position) const {
    return &others(sequence, head, position, 0);
  }
};

/// Tensors that own up to at most 1, 2 or 3 rows at a stride, by position.
template <class S>
struct ShortRuns : DenseKeyValue<S> {
  using row_runs_of = ShortRuns;

  RowRun<S> key_run(Index sequence, Index head, Index position) const {
    return shortened(DenseKeyValue<S>::key_run(sequence, head, position), position);
  }
  RowRun<S> value_run(Index sequence, Index head, Index position) const {
    return shortened(DenseKeyValue<S>::value_run(sequence, head, position), position + 1);
  }

 private:
  /// What lies behind a run's end may not be read by its stride.
  static RowRun<S> shortened(RowRun<S> run, Index position) {
    run.count = std::min(run.count, 1 + position % 3);
    if (run.count == 1) run.stride = Index{1} << 40;
    return run;
  }
};

static_assert(HasRowRuns<DenseKeyValue<float>> && HasRowRuns<PagedKeyValue<float>>);
static_assert(HasRowRuns<ShortRuns<float>>);
static_assert(!HasRowRuns<OtherValues<float>> && !HasRowRuns<OtherKeys<float>>);

TYPED_TEST(AttendSourceTest, ADerivedSourceIsAskedForTheRowsItReplaces) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{2, 4, 2, 40, 140, 8, 5});
  Inputs<S> wanted = x;
  const Inputs<S> other(x.sizes, 2);
  wanted.v = other.v;
  const OtherValues<S> values{{x.k.view(), x.v.view(), {}, {}}, other.v.view()};
  EXPECT_TRUE(same_outputs(attended_from(this->backend(), x, values, {.causal = true}),
                           attended(this->backend(), wanted, {.causal = true})));
  wanted.v = x.v;
  wanted.k = other.k;
  const Pages<S> pages(x, {140, 140}, 16, Layout::by_head);
  const OtherKeys<S> keys{pages.source(), other.k.view()};
  EXPECT_TRUE(same_outputs(attended_from(this->backend(), x, keys, {.causal = true}),
                           attended(this->backend(), wanted, {.causal = true})));
}

TYPED_TEST(AttendSourceTest, RunsMayBeOfOneToThreeRows) {
  using S = typename TestFixture::Storage;
  for (const Index queries : {1, 40}) {
    const Inputs<S> x(Sizes{2, 4, 2, queries, 140, 8, 5});
    const ShortRuns<S> source{{x.k.view(), x.v.view(), {}, {}}};
    const AttendOptions options{.causal = true, .window = 100, .sinks = 2};
    EXPECT_TRUE(same_outputs(attended_from(this->backend(), x, source, options),
                             attended(this->backend(), x, options)));
  }
}

// Means of what is seen: rows of a prompt are gathered by runs, or one by one where a source has
// none.
TEST(AttendSource, UniformHeadsReadRunsAndTheRowsThatReplaceThem) {
  const Inputs<float> x(Sizes{2, 4, 2, 150, 150, 8, 5}), other(x.sizes, 2);
  const std::vector<HeadMode> modes(4, HeadMode::Uniform);
  const auto means = [&](const auto& source) {
    Outputs<float> y(x.sizes);
    attend(pare::simd, x.q.view(), source, y.out.writable(), HeadModes{modes},
           {.causal = true, .lse = y.lse_view()});
    return y;
  };
  const auto of = [&](const Tensor<float>& v) {
    Outputs<float> y(x.sizes);
    attend(pare::simd, x.q.view(), x.k.view(), v.view(), y.out.writable(), HeadModes{modes},
           {.causal = true, .lse = y.lse_view()});
    return y;
  };
  const Outputs<float> wanted = of(x.v);
  for (Index h = 0; h < 4; ++h)
    for (Index c = 0; c < 5; ++c) {
      double sum = 0;  // of 150 floats, in double
      for (Index j = 0; j < 150; ++j) sum += static_cast<double>(x.v(1, h / 2, j, c));
      EXPECT_NEAR(static_cast<double>(wanted.out(1, h, 149, c)), sum / 150, 1e-6);
    }
  for (const Index page : {1, 7, 16, 200})
    EXPECT_TRUE(
        same_outputs(means(Pages<float>(x, {150, 150}, page, Layout::by_head).source()), wanted))
        << page;
  EXPECT_TRUE(same_outputs(means(ShortRuns<float>{{x.k.view(), x.v.view(), {}, {}}}), wanted));
  EXPECT_TRUE(same_outputs(
      means(OtherValues<float>{{x.k.view(), x.v.view(), {}, {}}, other.v.view()}), of(other.v)));
}

/// Tokens [first, first + count) of a tensor.
template <class S>
TensorView<const S, 4> tokens(const Tensor<S>& t, Index batch, Index first, Index count) {
  return {t.list.data() + batch * t.stride[0] + first * t.stride[2],
          {1, t.extent[1], count, t.extent[3]},
          t.stride};
}

template <class S>
void expect_same_tokens(const Outputs<S>& all, Index batch, Index first, const Outputs<S>& one) {
  for (Index h = 0; h < one.out.extent[1]; ++h)
    for (Index i = 0; i < one.out.extent[2]; ++i) {
      EXPECT_TRUE(same_bits(all.lse(batch, h, first + i, 0), one.lse(0, h, i, 0))) << first + i;
      for (Index c = 0; c < one.out.extent[3]; ++c)
        EXPECT_TRUE(same_bits(all.out(batch, h, first + i, c), one.out(0, h, i, c))) << first + i;
    }
}

// Packed sequences, some of them empty, some with more queries than keys, of any number.
TYPED_TEST(AttendSourceTest, PackedSequencesGiveTheBitsOfEachAlone) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{1, 4, 2, 190, 260, 8, 5}, 1, Layout::by_token);
  const std::vector<Index> queries{0, 10, 10, 60, 61, 190}, keys{0, 20, 50, 90, 90, 260};
  for (const bool causal : {true, false}) {
    const Outputs<S> all = attended(
        this->backend(), x, {.causal = causal, .query_offsets = queries, .key_offsets = keys});
    for (std::size_t s = 0; s + 1 < queries.size(); ++s) {
      const Index n_q = queries[s + 1] - queries[s], n_k = keys[s + 1] - keys[s];
      Outputs<S> one(Sizes{1, 4, 2, n_q, n_k, 8, 5});
      attend(this->backend(), tokens(x.q, 0, queries[s], n_q), tokens(x.k, 0, keys[s], n_k),
             tokens(x.v, 0, keys[s], n_k), one.out.writable(),
             {.causal = causal, .lse = one.lse_view()});
      expect_same_tokens(all, 0, queries[s], one);
    }
  }
}

TYPED_TEST(AttendSourceTest, PackedSequencesUnderAWindow) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{1, 2, 1, 150, 200, 8, 5});
  const std::vector<Index> queries{0, 40, 150}, keys{0, 70, 200};
  expect_attention(x,
                   attended(this->backend(), x,
                            {.causal = true,
                             .window = 30,
                             .sinks = 2,
                             .query_offsets = queries,
                             .key_offsets = keys}),
                   this->tolerance, [&](Index b, Index h, Index i, Index j) {
                     const std::size_t s = i < 40 ? 0 : 1;
                     if (j < keys[s] || j >= keys[s + 1]) return false;
                     const Sees sees{queries[s + 1] - queries[s], keys[s + 1] - keys[s], true, 30,
                                     2};
                     return sees(b, h, i - queries[s], j - keys[s]);
                   });
}

// What lies behind the length in use is never read into a row.
TYPED_TEST(AttendSourceTest, KeyLengthsGiveTheBitsOfShorterTensors) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  const std::vector<Index> lengths{140, 0, 1, 128};
  Inputs<S> x(Sizes{4, 2, 1, 30, 140, 8, 5});
  const S nan = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  for (Index b = 0; b < 4; ++b)
    for (Index j = lengths[static_cast<std::size_t>(b)]; j < 140; ++j) {
      for (Index c = 0; c < 8; ++c) x.k(b, 0, j, c) = nan;
      for (Index c = 0; c < 5; ++c) x.v(b, 0, j, c) = nan;
    }
  const Outputs<S> all = attended(this->backend(), x, {.causal = true, .key_lengths = lengths});
  for (Index b = 0; b < 4; ++b) {
    const Index n = lengths[static_cast<std::size_t>(b)];
    Outputs<S> one(Sizes{1, 2, 1, 30, n, 8, 5});
    attend(this->backend(), tokens(x.q, b, 0, 30), tokens(x.k, b, 0, n), tokens(x.v, b, 0, n),
           one.out.writable(), {.causal = true, .lse = one.lse_view()});
    expect_same_tokens(all, b, 0, one);
  }
}

TEST(AttendSource, EigensTensors) {
  using Eigen::bfloat16;
  const Inputs<pare::bf16> x(Sizes{1, 2, 1, 20, 30, 8, 5});
  const auto copied = [](const Tensor<pare::bf16>& t) {
    Eigen::Tensor<bfloat16, 4, Eigen::RowMajor> e(t.extent[0], t.extent[1], t.extent[2],
                                                  t.extent[3]);
    for (std::size_t i = 0; i < t.list.size(); ++i)
      e.data()[i] = Eigen::numext::bit_cast<bfloat16>(t.list[i].bits);
    return e;
  };
  const auto q = copied(x.q), k = copied(x.k), v = copied(x.v);
  Eigen::Tensor<float, 4, Eigen::RowMajor> out(1, 2, 20, 5);
  Eigen::Tensor<float, 3, Eigen::RowMajor> lse(1, 2, 20);
  attend(q, k, v, out, {.causal = true, .lse = lse});
  const Outputs<pare::bf16> wanted = attended(pare::simd, x, {.causal = true});
  for (std::size_t i = 0; i < wanted.out.list.size(); ++i)
    EXPECT_TRUE(same_bits(out.data()[i], wanted.out.list[i]));
  for (std::size_t i = 0; i < wanted.lse.list.size(); ++i)
    EXPECT_TRUE(same_bits(lse.data()[i], wanted.lse.list[i]));
}

TEST(AttendSource, AModifierNeedsNoBackend) {
  const Inputs<float> x(Sizes{2, 2, 1, 5, 30, 8, 5});
  const Pages<float> pages(x, {30, 12}, 7, Layout::by_token);
  const pare::attention::SoftCap cap{.cap = 3};
  Outputs<float> wanted(x.sizes), got(x.sizes);
  attend(pare::simd, x.q.view(), pages.source(), wanted.out.writable(), cap,
         {.causal = true, .lse = wanted.lse_view()});
  attend(x.q.view(), pages.source(), got.out.writable(), cap,
         {.causal = true, .lse = got.lse_view()});
  EXPECT_TRUE(same_outputs(got, wanted));
  attend(pare::simd, x.q.view(), pages.source(), wanted.out.writable(), cap);
  attend(x.q.view(), pages.source(), got.out.writable(), cap);
  EXPECT_TRUE(same_bits(got.out(1, 1, 4, 0), wanted.out(1, 1, 4, 0)));
}

}  // namespace
}  // namespace attention_attend_source_test
