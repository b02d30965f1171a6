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
#include <pare/attention/sliding_window.hpp>

#include "attention/sources.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace {

using namespace pare::attention;
using pare::Index;
using pare::testing::attended;
using pare::testing::attended_from;
using pare::testing::Inputs;
using pare::testing::Layout;
using pare::testing::Outputs;
using pare::testing::Pages;
using pare::testing::refusal;
using pare::testing::Ring;
using pare::testing::same_bits;
using pare::testing::Sizes;

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
  const auto refused = [&](const std::vector<Index>& lengths, bool lose, const std::string& what) {
    Pages<float> pages(x, lengths, 16, Layout::by_head);
    if (lose) pages.table[1] = -1;
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
  refused({40, 33}, false, "source");
  refused({40, 40}, true, "table");
  refused({40}, false, "q");
}

}  // namespace
