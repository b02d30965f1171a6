// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Keys and values of test inputs where no tensor holds them.

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

}  // namespace pare::testing
