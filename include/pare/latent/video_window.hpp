// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// VideoMLA's cache: the latents of the first frames and of the last ones, whose rotary keys turn
/// by their place in that window, not in the video.
///
/// ```cpp
/// VideoWindow<bf16> window({.latent = 192, .height = 30, .width = 52});
/// const transformer::RotaryTable<float> table(window.grid(), window.most_tokens());
/// const LatentAttention<bf16> layer(config, std::move(weights), table);
/// for (each chunk of frames) {
///   for (each step of denoising)                        // a chunk takes the place of its last try
///     layer.forward(hidden, window, out, {.positions = window.positions(3), .causal = false});
///   window.keep();                                      // the next chunk goes behind it
/// }
/// ```
///
/// Tokens of a chunk see each other, what is kept of the past, and nothing later: chunks are
/// causal, tokens within one are not. The window has the first `sink_frames` frames of the video
/// and the last `local_frames`; of others the oldest goes when a chunk comes. Frame i of the
/// window, sinks first, stands at time i, whatever its time in the video, and so do the frames of
/// the chunk behind them: rotary keys are rotated when a window is put together. Only their pairs
/// of time change then, 6 of 16. The others are rotated once, as they come.
///
/// `.causal = false` is what lets tokens of a chunk see those behind them; left out, they see only
/// what comes before. Rotary pairs are interleaved: a layer of another layout is refused.
///
/// A window is a KeyValueSource with one kv head, and rows [latent | rotary key] lie as attention
/// reads them. It is also a LatentStore, whose `append` rotates: a layer hands it rows as they are.
///
/// Memory: (d_c + d_r) scalars a token, as everywhere, and the numbers of time once more before
/// rotation, 12 of 224. Source: VideoMLA (arXiv 2605.30351), 2026, section on long rollouts.
/// Reconstructed, because the paper does not say: the order of frames in the window (sinks, then
/// the others without a gap), that latents are stored behind their norm, and frequencies
/// (rotary_grid.hpp); whether `local_frames` count the chunk that is made is an option.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/detail/paged_rows.hpp>
#include <pare/latent/video_options.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/rotary_grid.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace pare::latent {

PARE_ABI_BEGIN

/// A window over the frames of one video, in S. It can be moved, not copied.
template <StorageScalar S>
class VideoWindow {
  using T = compute_t<S>;

 public:
  using scalar = S;
  /// Values are the first numbers of keys, in the same memory.
  static constexpr bool values_in_keys = true;
  static constexpr bool needs_scale = true;
  /// `append` takes rotary keys that are not rotated.
  static constexpr bool rotates_keys = true;

  /// \throws std::invalid_argument if an option is out of its range, or memory cannot be counted
  explicit VideoWindow(const VideoWindowOptions& options)
      : options_(options.validate(name)),
        grid_(transformer::rotary_grid(options.height, options.width, options.rotary)),
        time_(time_pairs() > 0 ? grid_.frames() : transformer::RotaryFrequencies{{0}},
              most_frames()),
        places_(grid_.pairs() > time_pairs() ? grid_.places() : grid_, grid_.frame()) {
    const Index tokens = checked_product(name, "width", most_frames(), grid_.frame());
    checked_sum(name, "latent", options.latent, rope());
    const Index size = checked_product(name, "latent", tokens, row());
    rows_.resize(static_cast<std::size_t>(checked_count(name, "latent", size, sizeof(S))));
    times_.resize(static_cast<std::size_t>(tokens * 2 * time_pairs()));
    for (Index i = most_frames(); i-- > 0;) free_.push_back(i);
    frames_.reserve(free_.size());
  }

  const VideoWindowOptions& options() const { return options_; }
  /// The angles of all tokens of a window, for the queries of a layer.
  const transformer::RotaryGrid& grid() const { return grid_; }
  /// Frames and tokens that a window has at most, its chunk among them.
  Index most_frames() const {
    return options_.sink_frames + options_.local_frames +
           (options_.counts_chunk ? 0 : options_.chunk_frames);
  }
  Index most_tokens() const { return most_frames() * grid_.frame(); }
  /// Frames that the window has, and how many of them are kept: the others are the chunk.
  Index frames() const { return static_cast<Index>(frames_.size()); }
  Index kept_frames() const { return kept_; }
  /// The frame of the video that frame i of the window is; i is not checked.
  Index frame(Index i) const { return frames_[static_cast<std::size_t>(i)].of_video; }
  Index bytes_per_token() const { return row() * static_cast<Index>(sizeof(S)); }

  /// The positions of the tokens of a chunk of `frames` frames that comes next, in place of one
  /// that is not kept: for the rotation of its queries. Valid until the next call.
  /// \throws std::invalid_argument if there are fewer frames than 1 or more than chunk_frames
  std::span<const Index> positions(Index frames) {
    check_chunk("latent::VideoWindow::positions", "frames", frames);
    const Index first = frames_before(frames) * grid_.frame();
    positions_.resize(static_cast<std::size_t>(frames * grid_.frame()));
    for (std::size_t i = 0; i < positions_.size(); ++i)
      positions_[i] = first + static_cast<Index>(i);
    return positions_;
  }

  /// Puts a chunk behind the frames that are kept, in place of one that is not. The oldest local
  /// frames beyond the window are gone from then on.
  ///
  /// \param backend  left out: pare::simd
  /// \param sequence 0
  /// \param rows     [frames height width, d_c + d_r], latents as they are cached, rotary keys
  ///                 before rotation; frame by frame, each by lines
  /// \throws std::invalid_argument if there is another sequence, a shape does not fit, there are
  ///         more frames than chunk_frames, or rows lie in the window. The window is as it was
  ///         then. No rows: a no-op.
  ///
  /// Cost: the rows are written and rotated once; of frames that moved the numbers of time are
  /// rotated again, which reads and writes 24 of 224 numbers a token.
  template <Backend B, In<2> X>
  requires(std::is_same_v<scalar_of<X>, T>)
  void append(const B& backend, Index sequence, const X& rows) {
    const auto from = as_const(to_view(rows));
    check_append(sequence, from);
    if (from.rows() == 0) return;
    const Index chunk = from.rows() / grid_.frame();
    drop(kept_, frames() - kept_);
    drop(options_.sink_frames, kept_ - frames_before(chunk));
    kept_ = frames();
    for (Index i = 0; i < chunk; ++i) {
      frames_.push_back({free_.back(), video_frames_ + i, -1});
      free_.pop_back();
      store(backend, frames_.back(), from, i * grid_.frame());
    }
    rotate_times(backend);
  }
  /// \overload
  template <In<2> X>
  requires(std::is_same_v<scalar_of<X>, T>)
  void append(Index sequence, const X& rows) {
    append(simd, sequence, rows);
  }

  /// Keeps the chunk: what is appended next comes behind it.
  void keep() {
    video_frames_ += frames() - kept_;
    kept_ = frames();
  }

  Index sequences() const { return 1; }
  Index kv_heads() const { return 1; }
  Index key_dim() const { return row(); }
  Index value_dim() const { return options_.latent; }
  Index length(Index) const { return frames() * grid_.frame(); }
  void validate(const char*) const {}
  PARE_ALWAYS_INLINE const S* key(Index, Index, Index position) const {
    const Frame& f = frames_[static_cast<std::size_t>(position / grid_.frame())];
    return row_of(f, position % grid_.frame());
  }
  PARE_ALWAYS_INLINE const S* value(Index, Index, Index position) const {
    return key(0, 0, position);
  }
  /// \throws std::invalid_argument if an output shares memory with the window
  template <class O, std::size_t Rank>
  void check_apart(const char* function, const char* output, const TensorView<O, Rank>& out) const {
    check_no_overlap(function, output, out, "cache", all());
  }

 private:
  static constexpr const char* name = "latent::VideoWindow";
  static constexpr const char* append_name = "latent::VideoWindow::append";

  /// A frame of the window: where its rows are, and the time that they are rotated to.
  struct Frame {
    Index slot = 0;
    Index of_video = 0;
    Index time = -1;
  };

  Index rope() const { return 2 * grid_.pairs(); }
  Index row() const { return options_.latent + rope(); }
  Index time_pairs() const { return static_cast<Index>(grid_.frequencies[0].size()); }
  S* row_of(const Frame& frame, Index token) const {
    return rows_.data() + (frame.slot * grid_.frame() + token) * row();
  }
  S* times_of(const Frame& frame) const {
    return times_.data() + frame.slot * grid_.frame() * 2 * time_pairs();
  }
  TensorView<const S, 2> all() const { return {rows_.data(), {most_tokens(), row()}, {row(), 1}}; }

  /// Frames that are kept before a chunk: sinks, and the local ones that there is room for.
  Index frames_before(Index chunk) const {
    const Index local = options_.local_frames - (options_.counts_chunk ? chunk : 0);
    return std::min(kept_, options_.sink_frames + local);
  }

  void check_chunk(const char* function, const char* argument, Index frames) const {
    check(frames >= 1 && frames <= options_.chunk_frames, function, argument, frames,
          Worded{"from 1 to ", options_.chunk_frames, " frames"});
  }
  void check_append(Index sequence, const TensorView<const T, 2>& from) const {
    check(sequence == 0, append_name, "sequence", sequence, "0");
    check_view(append_name, "rows", from);
    check_extents<2>(append_name, "rows", from.extent, {from.rows(), row()});
    check(from.rows() % grid_.frame() == 0, append_name, "rows", from.rows(),
          Worded{"a multiple of the ", grid_.frame(), " tokens of a frame"});
    if (from.rows() > 0) check_chunk(append_name, "rows", from.rows() / grid_.frame());
    check_apart(append_name, "rows", from);
  }

  /// Frees the slots of frames [first, first + count).
  void drop(Index first, Index count) {
    if (count <= 0) return;
    const auto begin = frames_.begin() + first;
    for (auto f = begin; f != begin + count; ++f) free_.push_back(f->slot);
    frames_.erase(begin, begin + count);
    kept_ = std::min(kept_, frames());
  }

  /// Writes a frame, its numbers of place rotated, and its numbers of time to where they stay.
  template <class B>
  void store(const B& backend, const Frame& frame, TensorView<const T, 2> from, Index first) {
    const Index times = 2 * time_pairs();
    const TensorView<const T, 2> rows{
        from.data + first * from.stride[0], {grid_.frame(), row()}, from.stride};
    detail::store_rows(backend, rows, row_of(frame, 0), row());
    for (Index t = 0; t < grid_.frame(); ++t)
      std::copy_n(row_of(frame, t) + options_.latent, times, times_of(frame) + t * times);
    if (times == rope()) return;
    const TensorView<S, 4> places{row_of(frame, 0) + options_.latent + times,
                                  {1, 1, grid_.frame(), rope() - times},
                                  {0, 0, row(), 1}};
    transformer::rotate(backend, places, places_);
  }

  /// Rotates the numbers of time of frames that stand where they did not. A frame is as many heads
  /// of one token.
  template <class B>
  void rotate_times(const B& backend) {
    const Index times = 2 * time_pairs();
    for (Index i = 0; i < frames(); ++i) {
      Frame& f = frames_[static_cast<std::size_t>(i)];
      if (std::exchange(f.time, i) == i || times == 0) continue;
      for (Index t = 0; t < grid_.frame(); ++t)
        std::copy_n(times_of(f) + t * times, times, row_of(f, t) + options_.latent);
      const TensorView<S, 4> rows{
          row_of(f, 0) + options_.latent, {1, grid_.frame(), 1, times}, {0, row(), 0, 1}};
      transformer::rotate(backend, rows, time_, {.first_position = i});
    }
  }

  VideoWindowOptions options_;
  transformer::RotaryGrid grid_;
  transformer::RotaryTable<T> time_, places_;
  AlignedBuffer<S> rows_;   ///< [slots, tokens of a frame, d_c + d_r]
  AlignedBuffer<S> times_;  ///< [slots, tokens of a frame, 2 pairs of time], not rotated
  std::vector<Frame> frames_;
  std::vector<Index> free_, positions_;
  Index kept_ = 0;
  Index video_frames_ = 0;  ///< that were kept
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
