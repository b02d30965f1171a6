// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/attention_layer.hpp>
#include <pare/latent/video_window.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "latent/layers.hpp"
#include "latent/plain_cache.hpp"
#include "support/properties.hpp"

namespace latent_video_window_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::rows_of;
using pare::TensorView;
using pare::testing::PlainCache;
using pare::testing::random_latent_weights;
using pare::testing::random_rows;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::transformer::RotaryTable;
using namespace pare::latent;

static_assert(LatentStore<VideoWindow<float>, float> && LatentStore<VideoWindow<bf16>, float>);

/// 2 x 3 tokens a frame, rotary keys of 10 numbers.
VideoWindowOptions small(Index sinks = 1, bool counts_chunk = true) {
  return {.latent = 7,
          .height = 2,
          .width = 3,
          .chunk_frames = 2,
          .sink_frames = sinks,
          .local_frames = 4,
          .counts_chunk = counts_chunk,
          .rotary = {.pairs = {2, 2, 1}, .channels = {8, 6, 6}}};
}
constexpr Index frame_tokens = 6, row = 17;

/// Rows before rotation of a frame of the video.
template <class T>
Rows<T> frame_rows(Index frame) {
  return random_rows<T>(frame_tokens, row, 100 + static_cast<std::uint64_t>(frame));
}
template <class T>
Rows<T> chunk_rows(Index first, Index frames) {
  Rows<T> rows(frames * frame_tokens, row);
  for (Index f = 0; f < frames; ++f) {
    const auto one = frame_rows<T>(first + f);
    for (Index t = 0; t < frame_tokens; ++t)
      for (Index i = 0; i < row; ++i) rows(f * frame_tokens + t, i) = one(t, i);
  }
  return rows;
}

/// The frames of the video that the paper's window has while chunk [first, first + chunk) is made.
std::vector<Index> wanted_frames(const VideoWindowOptions& o, Index first, Index chunk) {
  const Index local = o.local_frames - (o.counts_chunk ? chunk : 0);
  std::vector<Index> frames;
  for (Index f = 0; f < first + chunk; ++f)
    if (f < o.sink_frames || f >= first - local) frames.push_back(f);
  return frames;
}

template <class T>
struct VideoWindowTest : testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(VideoWindowTest, Scalars);

/// Each row is that of its frame, rotated from scratch by its place in the window.
TYPED_TEST(VideoWindowTest, FramesAreThePapersAndRotatedAsFromScratch) {
  using T = TypeParam;
  for (const Index sinks : {0, 1, 3})
    for (const bool counts : {true, false}) {
      const VideoWindowOptions o = small(sinks, counts);
      VideoWindow<T> window(o);
      const RotaryTable<T> table(window.grid(), window.most_tokens());
      Index first = 0;
      for (const Index chunk : {2, 2, 1, 2, 2, 2, 1, 2}) {
        if (first > 2) window.append(0, chunk_rows<T>(50, chunk).view());  // a try that is not kept
        window.append(pare::simd.threads(2), 0, chunk_rows<T>(first, chunk).view());
        const std::vector<Index> frames = wanted_frames(o, first, chunk);
        ASSERT_EQ(window.frames(), static_cast<Index>(frames.size()));
        ASSERT_LE(window.frames(), window.most_frames());
        for (std::size_t i = 0; i < frames.size(); ++i) {
          const auto at = static_cast<Index>(i);
          EXPECT_EQ(window.frame(at), frames[i]) << first;
          auto rows = frame_rows<T>(frames[i]);
          pare::transformer::rotate(
              pare::reference,
              TensorView<T, 4>{&rows(0, 7), {1, 1, frame_tokens, 10}, {0, 0, row, 1}}, table,
              {.first_position = at * frame_tokens});
          for (Index t = 0; t < frame_tokens; ++t)
            for (Index d = 0; d < row; ++d)  // numbers below 2, a few roundings
              ASSERT_NEAR(window.key(0, 0, at * frame_tokens + t)[d], rows(t, d),
                          8 * pare::testing::Tolerance<T>::unit_roundoff)
                  << first << ' ' << at << ' ' << t << ' ' << d;
        }
        window.keep();
        first += chunk;
      }
    }
}

TEST(VideoWindow, PositionsAreThoseBehindTheKeptFrames) {
  VideoWindow<float> window(small());
  Index first = 0;
  for (const Index chunk : {2, 1, 2, 2, 2}) {
    const auto positions = window.positions(chunk);
    window.append(0, chunk_rows<float>(first, chunk).view());
    ASSERT_EQ(static_cast<Index>(positions.size()), chunk * frame_tokens);
    EXPECT_EQ(positions.back(), window.length(0) - 1);
    EXPECT_EQ(positions.front(), window.length(0) - chunk * frame_tokens);
    window.keep();
    first += chunk;
  }
  EXPECT_EQ(window.kept_frames(), 5);
  EXPECT_EQ(VideoWindow<bf16>({.latent = 192, .height = 2, .width = 2}).bytes_per_token(), 2 * 224);
  EXPECT_EQ(VideoWindow<bf16>({.latent = 8, .height = 30, .width = 52}).most_tokens(), 10920);
}

TEST(VideoWindow, ALayerOverItIsALayerOverTheVisibleFrames) {
  const LatentConfig c{.width = 20,
                       .heads = 3,
                       .nope = 5,
                       .rope = 10,
                       .value = 6,
                       .latent = 7,
                       .query_latent = 9,
                       .softmax_scale = latent_softmax_scale(5, 10)};
  const VideoWindowOptions o = small();
  VideoWindow<double> window(o);
  const RotaryTable<double> table(window.grid(), window.most_tokens());
  const LatentAttention<double> layer(c, random_latent_weights<double>(c), table);
  std::vector<Rows<double>> video;  // hidden states of frames that were kept
  for (Index first = 0; first < 12; first += 2)
    for (const bool last_try : {false, true}) {
      const auto hidden = random_rows<double>(2 * frame_tokens, c.width,
                                              static_cast<std::uint64_t>(2 * first + last_try));
      Rows<double> got(hidden.rows(), c.width), wanted(hidden.rows(), c.width);
      layer.forward(hidden.view(), window, got.view(),
                    {.positions = window.positions(2), .causal = false});
      // The visible frames anew, in their places of the window.
      PlainCache<double> cache(1, c);
      Index position = 0;
      std::vector<Index> positions(static_cast<std::size_t>(frame_tokens));
      const auto count = [&](std::size_t tokens) {
        positions.resize(tokens);
        for (Index& p : positions) p = position++;
      };
      for (const Index f : wanted_frames(o, first, 2))
        if (f < first) {
          count(std::size_t(frame_tokens));
          Rows<double> unused(frame_tokens, c.width);
          layer.forward(video[static_cast<std::size_t>(f)].view(), cache, unused.view(),
                        {.positions = positions, .causal = false});
        }
      count(std::size_t(2 * frame_tokens));
      layer.forward(hidden.view(), cache, wanted.view(),
                    {.positions = positions, .causal = false, .form = LatentForm::Expanded});
      for (Index t = 0; t < got.rows(); ++t)
        for (Index i = 0; i < c.width; ++i) ASSERT_NEAR(got(t, i), wanted(t, i), 1e-12) << first;
      if (!last_try) continue;
      window.keep();
      for (Index f = 0; f < 2; ++f)
        video.emplace_back(frame_tokens, c.width,
                           [&](Index t, Index i) { return hidden(f * frame_tokens + t, i); });
    }
}

TEST(VideoWindow, ChunksSeeThemselvesAndThoseBefore) {
  for (const auto& [queries, keys, chunk] : std::vector<std::array<Index, 3>>{
           {12, 12, 4}, {10, 10, 4}, {4, 12, 4}, {7, 15, 4}, {5, 5, 1}, {0, 0, 3}}) {
    const auto mask = chunk_causal_mask(queries, keys, chunk);
    for (Index i = 0; i < queries; ++i)
      for (Index j = 0; j < keys; ++j) {
        const auto blocks = mask.row(0, 0, i / chunk);
        const bool sees =
            std::count(blocks.begin(), blocks.end(), static_cast<std::int32_t>(j / chunk));
        EXPECT_EQ(sees, j / chunk <= (i + keys - queries) / chunk) << i << ' ' << j;
      }
  }
  constexpr const char* name = "latent::chunk_causal_mask";
  refusal([] { chunk_causal_mask(4, 4, 0); }, name, "chunk");
  refusal([] { chunk_causal_mask(-1, 4, 2); }, name, "queries");
  refusal([] { chunk_causal_mask(5, 4, 2); }, name, "queries");
  refusal([] { chunk_causal_mask(4, 7, 2); }, name, "keys");
}

TEST(VideoWindow, WhatDoesNotFitIsRefused) {
  const auto refused = [](const char* argument,
                          const std::function<void(VideoWindowOptions&)>& change,
                          const char* function = "latent::VideoWindow") {
    VideoWindowOptions o = small();
    change(o);
    refusal([&] { VideoWindow<float> window(o); }, function, argument);
  };
  constexpr const char* grid = "transformer::rotary_grid";
  refused("latent", [](auto& o) { o.latent = 0; });
  refused("height", [](auto& o) { o.height = 0; }, grid);
  refused("width", [](auto& o) { o.width = -1; }, grid);
  refused("pairs", [](auto& o) { o.rotary.pairs = {0, 0, 0}; }, grid);
  refused("chunk_frames", [](auto& o) { o.chunk_frames = 0; });
  refused("sink_frames", [](auto& o) { o.sink_frames = -1; });
  refused("local_frames", [](auto& o) { o.local_frames = 1; });
  refused("latent", [](auto& o) { o.latent = std::numeric_limits<Index>::max() / 8; });

  VideoWindow<float> window(small());
  window.append(0, chunk_rows<float>(0, 2).view());
  const std::vector<float> before(window.key(0, 0, 0), window.key(0, 0, 0) + 12 * row);
  const auto refused_rows = [&](Index sequence, TensorView<const float, 2> rows,
                                const char* argument) {
    refusal([&] { window.append(sequence, rows); }, "latent::VideoWindow::append", argument);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), window.key(0, 0, 0)));
    EXPECT_EQ(window.frames(), 2);
  };
  const auto rows = chunk_rows<float>(3, 3);
  const TensorView<const float, 2> view = rows.view();
  refused_rows(1, rows_of(view, 0, 6), "sequence");
  refused_rows(0, rows_of(view, 0, 7), "rows");
  refused_rows(0, view, "rows");
  refused_rows(0, {view.data, {6, row - 1}, {row, 1}}, "rows");
  refused_rows(0, {window.key(0, 0, 0), {6, row}, {row, 1}}, "rows");
  window.append(0, rows_of(view, 0, 0));
  EXPECT_EQ(window.frames(), 2);
  for (const Index frames : {0, 3})
    refusal([&] { window.positions(frames); }, "latent::VideoWindow::positions", "frames");

  const LatentConfig c{.width = 20,
                       .heads = 3,
                       .nope = 5,
                       .rope = 10,
                       .value = 6,
                       .latent = 7,
                       .softmax_scale = 0.3};
  const RotaryTable<float> table(window.grid(), window.most_tokens());
  const LatentAttention<float> layer(c, random_latent_weights<float>(c), table);
  const auto hidden = random_rows<float>(6, 20, 1);
  Rows<float> out(6, 20);
  refuses_and_leaves_alone([&] { layer.forward(hidden.view(), window, out.view()); },
                           "latent::LatentAttention::forward", "positions", out);

  // Keys are rotated in interleaved pairs, whatever the layer does with its queries.
  const LatentAttention<float> halves(c, random_latent_weights<float>(c), table,
                                      pare::transformer::RotaryLayout::HalfSplit);
  const std::vector<Index> positions{0, 1, 2, 3, 4, 5};
  refuses_and_leaves_alone(
      [&] { halves.forward(hidden.view(), window, out.view(), {.positions = positions}); },
      "latent::LatentAttention::forward", "cache", out);
}

}  // namespace
}  // namespace latent_video_window_test
