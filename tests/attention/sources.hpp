// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Keys and values of test inputs where no tensor holds them.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <pare/attention/attend.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/core/permutation.hpp>

#include "attention/attend_calls.hpp"
#include "attention/data.hpp"

namespace pare::testing {

using attention::AttendOptions;
using attention::PagedKeyValue;

/// The keys and values of some inputs in pages, in random order; what no sequence uses is NaN.
template <class S>
struct Pages {
  Tensor<S> keys, values;
  std::vector<std::int32_t> table{};
  std::vector<Index> lengths;
  Index width;

  Pages(const Inputs<S>& x, std::vector<Index> n, Index page, Layout layout)
      : lengths(std::move(n)), width((x.sizes.keys + page - 1) / page) {
    const Index count = x.sizes.batch * width + 3;
    const S nan = static_cast<S>(std::numeric_limits<compute_t<S>>::quiet_NaN());
    keys = Tensor<S>({count, x.sizes.kv_heads, page, x.sizes.key_dim}, layout, nan);
    values = Tensor<S>({count, x.sizes.kv_heads, page, x.sizes.value_dim}, layout, nan);
    const auto shuffled = Permutation::random(count, 7);
    for (Index b = 0; b < x.sizes.batch; ++b)
      for (Index p = 0; p < width; ++p) {
        const bool used = p * page < lengths[static_cast<std::size_t>(b)];
        const auto name = static_cast<std::int32_t>(shuffled[b * width + p]);
        table.push_back(used ? name : -1);
        if (used) fill(x, b, p * page, name);
      }
  }

  PagedKeyValue<S> source() const {
    const auto sequences = static_cast<Index>(lengths.size());
    return {keys.view(), values.view(), {table.data(), {sequences, width}, {width, 1}}, lengths};
  }

 private:
  void fill(const Inputs<S>& x, Index b, Index first, Index name) {
    const Index n = lengths[static_cast<std::size_t>(b)];
    for (Index h = 0; h < x.sizes.kv_heads; ++h)
      for (Index t = 0; t < keys.extent[2] && first + t < n; ++t) {
        for (Index c = 0; c < x.sizes.key_dim; ++c) keys(name, h, t, c) = x.k(b, h, first + t, c);
        for (Index c = 0; c < x.sizes.value_dim; ++c)
          values(name, h, t, c) = x.v(b, h, first + t, c);
      }
  }
};

template <class B, class S, class Source>
Outputs<S> attended_from(const B& backend, const Inputs<S>& x, const Source& source,
                         AttendOptions options) {
  Outputs<S> y(x.sizes);
  options.lse = y.lse_view();
  attend(backend, x.q.view(), source, y.out.writable(), options);
  return y;
}

/// A store of a user: a ring of tokens for each sequence and head, keys and values side by side.
template <class S>
struct Ring {
  using scalar = S;

  const Inputs<S>* from = nullptr;
  Index turned = 0;
  std::vector<S> tokens{};

  Ring(const Inputs<S>& x, Index turn) : from(&x), turned(turn) {
    tokens.resize(
        static_cast<std::size_t>(x.sizes.batch * x.sizes.kv_heads * x.sizes.keys * row()));
    for (Index b = 0; b < x.sizes.batch; ++b)
      for (Index h = 0; h < x.sizes.kv_heads; ++h)
        for (Index j = 0; j < x.sizes.keys; ++j) {
          S* token = tokens.data() + at(b, h, j);
          for (Index c = 0; c < key_dim(); ++c) token[c] = x.k(b, h, j, c);
          for (Index c = 0; c < value_dim(); ++c) token[key_dim() + c] = x.v(b, h, j, c);
        }
  }

  Index row() const { return key_dim() + value_dim(); }
  Index at(Index b, Index h, Index j) const {
    const Sizes& s = from->sizes;
    return ((b * s.kv_heads + h) * s.keys + (j + turned) % s.keys) * row();
  }

  Index sequences() const { return from->sizes.batch; }
  Index kv_heads() const { return from->sizes.kv_heads; }
  Index key_dim() const { return from->sizes.key_dim; }
  Index value_dim() const { return from->sizes.value_dim; }
  Index length(Index) const { return from->sizes.keys; }
  const S* key(Index b, Index h, Index j) const { return tokens.data() + at(b, h, j); }
  const S* value(Index b, Index h, Index j) const { return key(b, h, j) + key_dim(); }
  void validate(const char* function) const {
    check(turned >= 0, function, "ring", turned, "a turn of at least 0");
  }
};
static_assert(attention::KeyValueSource<Ring<float>>);

/// Rows of 8 bits with a scale each, which are loaded; made of inputs, which are rounded to them.
struct Int8Rows {
  using scalar = float;

  Sizes sizes;
  std::vector<std::int8_t> keys{}, values{};
  std::vector<float> key_scales{}, value_scales{};
  bool sound = true;

  explicit Int8Rows(Inputs<float>& x) : sizes(x.sizes) {
    quantise(x.k, keys, key_scales);
    quantise(x.v, values, value_scales);
  }

  Index sequences() const { return sizes.batch; }
  Index kv_heads() const { return sizes.kv_heads; }
  Index key_dim() const { return sizes.key_dim; }
  Index value_dim() const { return sizes.value_dim; }
  Index length(Index) const { return sizes.keys; }
  void load_key(Index b, Index h, Index j, float* out) const {
    load(keys, key_scales, row(b, h, j), key_dim(), out);
  }
  void load_value(Index b, Index h, Index j, float* out) const {
    load(values, value_scales, row(b, h, j), value_dim(), out);
  }
  void validate(const char* function) const {
    check(sound, function, "rows", "unsound", "sound rows");
  }

 private:
  std::size_t row(Index b, Index h, Index j) const {
    check(j >= 0 && j < sizes.keys, "Int8Rows", "position", j, "a position of the sequence");
    return static_cast<std::size_t>((b * sizes.kv_heads + h) * sizes.keys + j);
  }
  static void load(const std::vector<std::int8_t>& list, const std::vector<float>& scales,
                   std::size_t row, Index dim, float* out) {
    for (Index c = 0; c < dim; ++c)
      out[c] = scales[row] *
               static_cast<float>(
                   list[row * static_cast<std::size_t>(dim) + static_cast<std::size_t>(c)]);
  }
  void quantise(Tensor<float>& x, std::vector<std::int8_t>& list, std::vector<float>& scales) {
    for (Index b = 0; b < sizes.batch; ++b)
      for (Index h = 0; h < sizes.kv_heads; ++h)
        for (Index j = 0; j < sizes.keys; ++j) {
          const float scale = 0.02f + 0.0003f * static_cast<float>(j % 17);
          scales.push_back(scale);
          for (Index c = 0; c < x.extent[3]; ++c) {
            const float steps = std::clamp(std::round(x(b, h, j, c) / scale), -127.0f, 127.0f);
            list.push_back(static_cast<std::int8_t>(steps));
            x(b, h, j, c) = scale * static_cast<float>(list.back());
          }
        }
  }
};
static_assert(attention::KeyValueSource<Int8Rows>);
static_assert(attention::LoadsKeys<Int8Rows> && !attention::PointsToKeys<Int8Rows>);

/// Keys of which all but the last 3 numbers are the value, and those lie apart, shared by heads.
struct LatentRows {
  using scalar = float;
  static constexpr Index apart = 3;

  Sizes sizes;
  std::vector<float> latent{}, rope{};

  explicit LatentRows(Inputs<float>& x) : sizes(x.sizes) {
    for (Index b = 0; b < sizes.batch; ++b)
      for (Index j = 0; j < sizes.keys; ++j)
        for (Index c = 0; c < sizes.key_dim; ++c) {
          (c < sizes.value_dim ? latent : rope).push_back(x.k(b, 0, j, c));
          if (c < sizes.value_dim) x.v(b, 0, j, c) = x.k(b, 0, j, c);
        }
  }

  Index sequences() const { return sizes.batch; }
  Index kv_heads() const { return 1; }
  Index key_dim() const { return sizes.key_dim; }
  Index value_dim() const { return sizes.value_dim; }
  Index length(Index) const { return sizes.keys; }
  const float* value(Index b, Index, Index j) const {
    return latent.data() + (b * sizes.keys + j) * value_dim();
  }
  void load_key(Index b, Index h, Index j, float* out) const {
    std::copy_n(value(b, h, j), value_dim(), out);
    std::copy_n(rope.data() + (b * sizes.keys + j) * apart, apart, out + value_dim());
  }
  void validate(const char*) const {}
};
static_assert(attention::KeyValueSource<LatentRows>);

}  // namespace pare::testing
