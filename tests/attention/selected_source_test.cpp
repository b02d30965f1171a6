// SPDX-License-Identifier: Apache-2.0
// Blocks of keys that no tensor holds are those of the same keys in a tensor, and so is attention
// over them.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend_selected.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/proxy_heads.hpp>
#include <pare/attention/sampled_mass.hpp>
#include <pare/attention/sliding_window.hpp>

#include "attention/sources.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace attention_selected_source_test {
namespace {

using namespace pare::attention;
using pare::Index;
using pare::testing::attended;
using pare::testing::attended_from;
using pare::testing::Inputs;
using pare::testing::Int8Rows;
using pare::testing::LatentRows;
using pare::testing::Layout;
using pare::testing::Outputs;
using pare::testing::Pages;
using pare::testing::refusal;
using pare::testing::Ring;
using pare::testing::same_bits;
using pare::testing::Sizes;
using pare::testing::within;

/// Blocks of pages are those of tensors, and so is attention over them.
template <class B, class Source, class P>
void expect_sparse(const B& backend, const Inputs<float>& x, const Source& source,
                   const P& selector) {
  const auto wanted = select_blocks(backend, x.q.view(), x.k.view(), selector, {.causal = true});
  const auto got = select_blocks(backend, x.q.view(), source, selector, {.causal = true});
  EXPECT_EQ(static_cast<const BlockMask&>(got), static_cast<const BlockMask&>(wanted));
  EXPECT_TRUE(same_bits(got.mass, wanted.mass));
  EXPECT_LT(got.density(true), 0.95);
  const auto dense = attended(backend, x, {.causal = true, .mask = &wanted});
  EXPECT_TRUE(
      same_outputs(attended_from(backend, x, source, {.causal = true, .mask = &got}), dense));
  Outputs<float> y(x.sizes);
  const auto stats = attend(backend, x.q.view(), source, y.out.writable(), selector,
                            {.causal = true, .lse = y.lse_view()});
  EXPECT_TRUE(same_outputs(y, dense));
  EXPECT_EQ(stats.density, got.density(true));
}

template <class B>
void expect_sparse(const B& backend) {
  const Inputs<float> x(Sizes{2, 4, 2, 90, 140, 8, 5});
  const Pages<float> pages(x, {140, 140}, 16, Layout::by_token);
  const auto all = [&](const auto& source) {
    expect_sparse(backend, x, source, MeanPool{.row_block = 16, .column_block = 16, .mass = 0.5f});
    expect_sparse(backend, x, source,
                  Antidiagonal{.row_block = 16, .column_block = 16, .mass = 0.5f});
    expect_sparse(backend, x, source, SlidingWindow{16, 16, 40, 3});
    expect_sparse(backend, x, source,
                  ProxyHeads{.mass = 0.5f, .row_block = 16, .column_block = 16, .min_budget = 0});
    expect_sparse(backend, x, source, SampledMass{.row_block = 16, .share = 0.5});
  };
  all(pages.source());
  all(Ring<float>(x, 57));
}

TEST(SelectedSource, PagesCanBeSparse) {
  expect_sparse(pare::simd.threads(2));
  expect_sparse(pare::reference);
}

TEST(SelectedSource, PagesAreOrderedAndSelectedAsTensorsAre) {
  const Inputs<float> x(Sizes{1, 4, 2, 64, 64, 8, 5});
  const Pages<float> pages(x, {64}, 16, Layout::by_head);
  std::vector<std::uint32_t> slots(64);
  for (std::uint32_t s = 0; s < 64; ++s) slots[s] = s / 16 * 16 + (s * 5 + 3) % 16;
  const KeyOrder order({1, 1, 64}, slots);
  const MeanPool selector{.row_block = 8, .column_block = 8, .mass = 0.5f, .segment = 16};
  const auto got = select_blocks(x.q.view(), pages.source(), order, selector, {.causal = true});
  const auto wanted = select_blocks(x.q.view(), x.k.view(), order, selector, {.causal = true});
  const auto natural = select_blocks(x.q.view(), x.k.view(), selector, {.causal = true});
  EXPECT_EQ(static_cast<const BlockMask&>(got), static_cast<const BlockMask&>(wanted));
  EXPECT_FALSE(static_cast<const BlockMask&>(got) == static_cast<const BlockMask&>(natural));
}

TEST(SelectedSource, SelectionRefusesPagesThatItCannotRead) {
  const Inputs<float> x(Sizes{2, 4, 2, 8, 40, 8, 5});
  const auto refused = [&](const std::vector<Index>& lengths, const auto& change,
                           const std::string& what) {
    Pages<float> pages(x, lengths, 16, Layout::by_head);
    change(pages);
    const auto source = pages.source();
    Outputs<float> y(x.sizes);
    const auto before = y.out.list;
    refusal([&] { select_blocks(x.q.view(), source, MeanPool{}, {.causal = true}); },
            "attention::select_blocks", what);
    refusal([&] { attend(x.q.view(), source, y.out.writable(), MeanPool{}, {.causal = true}); },
            "attention::attend", what);
    for (std::size_t i = 0; i < before.size(); ++i)
      EXPECT_TRUE(same_bits(y.out.list[i], before[i])) << i;
  };
  refused({40, 33}, [](Pages<float>&) {}, "source");
  refused({40, 40}, [](Pages<float>& pages) { pages.table[1] = -1; }, "table");
  refused({40, 40}, [](Pages<float>& pages) { pages.lengths.pop_back(); }, "q");
}

/// Attention from a source has the bits of attention from the tensors of `x`.
template <class B, class Source>
void expect_bits(const B& backend, const Inputs<float>& x, const Source& source) {
  const Sizes& n = x.sizes;
  const KeyOrder order({1, 1, n.keys}, pare::testing::random_orders(1, n.keys, 5));
  const auto mask = BlockMask::from_predicate(
      {1, 1, n.queries, n.keys, 16, 32},
      [](Index, Index, Index row, Index column) { return (row + column) % 3 != 0; });
  for (const AttendOptions& options :
       {AttendOptions{}, AttendOptions{.causal = true},
        AttendOptions{.causal = true, .window = 60, .sinks = 3},
        AttendOptions{.causal = true, .order = &order},
        AttendOptions{.causal = true, .order = &order, .mask = &mask}})
    EXPECT_TRUE(
        same_outputs(attended_from(backend, x, source, options), attended(backend, x, options)));
}

/// Both with many rows, which are packed, and with few, which are not.
template <class B>
void expect_loaded(const B& backend) {
  for (const Index queries : {3, 90}) {
    Inputs<float> x(Sizes{2, 4, 2, queries, 300, 8, 5});
    const Int8Rows rows(x);
    expect_bits(backend, x, rows);
    Inputs<float> y(Sizes{2, 4, 1, queries, 300, 8, 5});
    const LatentRows latent(y);
    expect_bits(backend, y, latent);
  }
}

TEST(LoadedSource, GivesTheBitsOfTheTensorsOfItsRows) {
  expect_loaded(pare::simd.threads(2));
  expect_loaded(pare::reference);
}

/// Tiles of loaded rows are shorter than those of a tensor, and sums are rounded elsewhere; keys
/// past 2048 are another part.
TEST(LoadedSource, AgreesForOneQueryToo) {
  Inputs<float> x(Sizes{2, 2, 1, 1, 5000, 8, 5});
  const Int8Rows rows(x);
  const auto got = attended_from(pare::simd, x, rows, {.causal = true});
  const auto wanted = attended(pare::reference, x, {.causal = true});
  for (std::size_t i = 0; i < got.out.list.size(); ++i)
    EXPECT_TRUE(within(static_cast<double>(got.out.list[i]),
                       static_cast<double>(wanted.out.list[i]),
                       pare::testing::Tolerance<float>::scaled_sum(5000, 3)));
}

TEST(LoadedSource, CanBeSparse) {
  Inputs<float> x(Sizes{2, 4, 2, 90, 140, 8, 5});
  const Int8Rows rows(x);
  const auto all = [&](const auto& backend) {
    expect_sparse(backend, x, rows, MeanPool{.row_block = 16, .column_block = 16, .mass = 0.5f});
    expect_sparse(backend, x, rows,
                  ProxyHeads{.mass = 0.5f, .row_block = 16, .column_block = 16, .min_budget = 0});
    expect_sparse(backend, x, rows, SampledMass{.row_block = 16, .share = 0.5});
  };
  all(pare::simd.threads(2));
  all(pare::reference);
}

TEST(LoadedSource, IsRefusedWhereItIsNotSound) {
  Inputs<float> x(Sizes{1, 2, 1, 8, 40, 8, 5});
  Int8Rows rows(x);
  rows.sound = false;
  Outputs<float> y(x.sizes);
  const auto before = y.out.list;
  refusal([&] { attend(x.q.view(), rows, y.out.writable()); }, "attention::attend", "rows");
  refusal([&] { select_blocks(x.q.view(), rows, MeanPool{}, {.causal = true}); },
          "attention::select_blocks", "rows");
  rows.sound = true;
  rows.sizes.kv_heads = 3;
  refusal([&] { attend(x.q.view(), rows, y.out.writable()); }, "attention::attend", "q");
  for (std::size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(same_bits(y.out.list[i], before[i])) << i;
}

}  // namespace
}  // namespace attention_selected_source_test
