// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/draft/compact_cache.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/e4m3_cache.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "draft/tables.hpp"
#include "latent/caches.hpp"

namespace draft_compact_cache_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::draft::compact;
using pare::draft::move_paged_rows;
using pare::draft::move_rows;
using pare::draft::row_moves;
using pare::draft::RowMove;
using pare::latent::DeepSeekV32Layout;
using pare::latent::E4m3Cache;
using pare::latent::FlatLayout;
using pare::latent::LatentCache;
using pare::latent::RopePlace;
using pare::testing::all_same_bits;
using pare::testing::filled_cache;
using pare::testing::LatentInputs;
using pare::testing::refused;
using pare::testing::rows_of;
using Path = std::vector<Index>;

const std::vector<Path> paths{{0},
                              {0, 1, 2},
                              {0, 3},
                              {0, 2, 5, 11},
                              {0, 1, 9},
                              {0, 11},
                              {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}};

/// The rows that decoding the accepted tokens one by one would have appended.
template <class S>
std::vector<S> kept_rows(const std::vector<S>& rows, Index width, Index past, const Path& path) {
  std::vector<S> kept(rows.begin(), rows.begin() + past * width);
  for (const Index node : path)
    kept.insert(kept.end(), rows.begin() + (past + node) * width,
                rows.begin() + (past + node + 1) * width);
  return kept;
}

TEST(CompactCache, HoldsWhatDecodingTheAcceptedTokensWouldHold) {
  const LatentInputs<double> x(1, 1, 1, 40, 16, 8);
  for (const Index size : {1, 3, 8, 64})
    for (const Path& path : paths) {
      auto cache = filled_cache<LatentCache<double>>(x, {40}, size);
      const auto before = rows_of(cache, 0);
      compact(cache, 0, 28, path);
      const auto kept = kept_rows(before, 24, 28, path);
      EXPECT_TRUE(all_same_bits(rows_of(cache, 0), kept));
      // And what is appended next comes behind it.
      EXPECT_EQ(cache.append(0, x.latents(0, 0, 1), x.ropes(0, 0, 1)),
                28 + static_cast<Index>(path.size()));
    }
}

TEST(CompactCache, AnyCacheAndPageSizeAndForks) {
  const LatentInputs<float> x(1, 1, 1, 40, 16, 8);
  for (const Index size : {3, 8}) {
    for (const Path& path : paths) {
      auto cache = filled_cache<LatentCache<float, RopePlace::Apart>>(
          x, {40}, size, pare::latent::RopeState::Rotated, 14);
      const auto before = rows_of(cache, 0);
      const Index other = cache.fork(0);
      compact(cache, 0, 28, path);
      EXPECT_TRUE(all_same_bits(rows_of(cache, 0), kept_rows(before, 24, 28, path)));
      EXPECT_TRUE(all_same_bits(rows_of(cache, other), before)) << "a fork keeps its rows";
    }
  }
  const LatentInputs<bf16> y(1, 1, 1, 40, 128, 8);
  for (const Path& path : paths) {
    auto wide = filled_cache<E4m3Cache<DeepSeekV32Layout>>(y, {40}, 8);
    auto flat = filled_cache<E4m3Cache<FlatLayout>>(y, {40}, 8);
    const auto before = rows_of(wide, 0), before_flat = rows_of(flat, 0);
    compact(wide, 0, 28, path);
    compact(flat, 0, 28, path);
    EXPECT_TRUE(all_same_bits(rows_of(wide, 0), kept_rows(before, 136, 28, path)));
    EXPECT_TRUE(all_same_bits(rows_of(flat, 0), kept_rows(before_flat, 136, 28, path)));
  }
}

TEST(CompactCache, MovesOfRowsInTensorsAndPages) {
  const Index past = 20, nodes = 12, heads = 2, dim = 3;
  for (const Path& path : paths) {
    std::vector<RowMove> moves;
    row_moves(past, nodes, path, moves);
    Index last = -1;
    for (const RowMove& m : moves) {
      EXPECT_GT(m.from, m.to);
      EXPECT_GT(m.from, last);
      last = m.from;
    }
    pare::testing::Tensor<float> x({2, heads, past + nodes, dim});
    for (std::size_t i = 0; i < x.list.size(); ++i) x.list[i] = static_cast<float>(i);
    auto moved = x;
    move_rows(moves, 1, moved.writable());
    // The same in pages of 5, out of order.
    const std::vector<std::int32_t> table{0, 0, 0, 0, 0, 0, 0, 6, 2, 0, 4, 1, 5, 3};
    const pare::TensorView<const std::int32_t, 2> pages{table.data(), {2, 7}, {7, 1}};
    pare::testing::Tensor<float> paged({7, heads, 5, dim});
    const auto place = [&](Index h, Index t, Index c) -> float& {
      return paged(table[static_cast<std::size_t>(7 + t / 5)], h, t % 5, c);
    };
    for (Index h = 0; h < heads; ++h)
      for (Index t = 0; t < past + nodes; ++t)
        for (Index c = 0; c < dim; ++c) place(h, t, c) = x(1, h, t, c);
    move_paged_rows(moves, 1, pages, paged.writable());
    for (Index h = 0; h < heads; ++h)
      for (Index c = 0; c < dim; ++c) {
        for (Index t = 0; t < past + static_cast<Index>(path.size()); ++t) {
          const Index from = t < past ? t : past + path[static_cast<std::size_t>(t - past)];
          EXPECT_EQ(moved(1, h, t, c), x(1, h, from, c));
          EXPECT_EQ(place(h, t, c), x(1, h, from, c));
        }
        for (Index t = 0; t < past + nodes; ++t) EXPECT_EQ(moved(0, h, t, c), x(0, h, t, c));
      }
  }
}

TEST(CompactCache, WhatIsNoPathIsRefusedAndTheCacheIsLeft) {
  const LatentInputs<float> x(1, 1, 1, 40, 16, 8);
  auto cache = filled_cache<LatentCache<float>>(x, {40}, 8);
  const auto before = rows_of(cache, 0);
  std::vector<RowMove> moves{{1, 2}};
  for (const Path& path :
       {Path{}, Path{1}, Path{0, 2, 2}, Path{0, 3, 1}, Path{0, 12}, Path{0, -1}}) {
    EXPECT_NE(refused([&] { compact(cache, 0, 28, path); }).find("path"), std::string::npos);
    EXPECT_NE(refused([&] { row_moves(28, 12, path, moves); }).find("path"), std::string::npos);
  }
  for (const Index past : {-1, 40, 100})
    EXPECT_NE(refused([&] { compact(cache, 0, past, Path{0}); }).find("past"), std::string::npos);
  for (const Index sequence : {-1, 1})
    EXPECT_NE(refused([&] { compact(cache, sequence, 28, Path{0}); }).find("sequence"),
              std::string::npos);
  EXPECT_NE(refused([&] { cache.keep(0, 28, Path{3, 2}); }).find("kept"), std::string::npos);
  EXPECT_NE(refused([&] { cache.keep(0, 41, Path{}); }).find("first"), std::string::npos);
  EXPECT_NE(refused([&] { cache.keep(3, 0, Path{}); }).find("sequence"), std::string::npos);
  EXPECT_NE(refused([&] { row_moves(-1, 12, Path{0}, moves); }).find("past"), std::string::npos);
  EXPECT_NE(refused([&] { row_moves(0, 0, Path{0}, moves); }).find("nodes"), std::string::npos);
  EXPECT_EQ(moves.size(), 1u);
  // Pages that a fork shares need copies, for which there is no room.
  auto full = filled_cache<LatentCache<float>>(x, {40}, 1, pare::latent::RopeState::Rotated, 0);
  full.fork(0);
  EXPECT_NE(refused([&] { compact(full, 0, 28, Path{0, 2}); }).find("pages"), std::string::npos);
  EXPECT_EQ(full.length(0), 40);
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), before));

  pare::testing::Tensor<float> t({2, 1, 8, 3});
  const auto same = t.list;
  for (const RowMove& m : {RowMove{8, 0}, RowMove{0, 8}, RowMove{-1, 0}, RowMove{0, -1}}) {
    const std::vector<RowMove> one{m};
    EXPECT_NE(refused([&] { move_rows(one, 0, t.writable()); }).find("moves"), std::string::npos);
    const std::vector<std::int32_t> table{0};
    EXPECT_NE(refused([&] {
                move_paged_rows(one, 0, {table.data(), {1, 1}, {1, 1}}, t.writable());
              }).find("moves"),
              std::string::npos);
  }
  const std::vector<RowMove> good{{1, 0}};
  EXPECT_NE(refused([&] { move_rows(good, 2, t.writable()); }).find("batch"), std::string::npos);
  for (const std::int32_t page : {-1, 2}) {
    EXPECT_NE(refused([&] {
                move_paged_rows(good, 0, {&page, {1, 1}, {1, 1}}, t.writable());
              }).find("table"),
              std::string::npos);
  }
  const std::int32_t zero = 0;
  EXPECT_NE(refused([&] {
              move_paged_rows(good, 1, {&zero, {1, 1}, {1, 1}}, t.writable());
            }).find("sequence"),
            std::string::npos);
  EXPECT_EQ(t.list, same);
}

}  // namespace
}  // namespace draft_compact_cache_test
