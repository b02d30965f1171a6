// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// y = x W^T for a 2:4 weight: the definition, a few rows, many rows.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/two_four.hpp>
#include <pare/kernel/pack_two_four.hpp>
#include <pare/kernel/two_four_rows.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/weight_rows.hpp>
#include <pare/transformer/detail/linear_product.hpp>
#include <pare/transformer/linear.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace pare::transformer::detail {
PARE_ABI_BEGIN

template <class S>
void reference_two_four(const factor::TwoFour<S>& w, TensorView<const factor::two_four_t<S>, 2> x,
                        TensorView<factor::two_four_t<S>, 2> y) {
  using T = factor::two_four_t<S>;
  std::vector<double> sums(static_cast<std::size_t>(w.outputs()));
  for (Index r = 0; r < y.rows(); ++r) {
    std::fill(sums.begin(), sums.end(), 0.0);
    w.each_entry([&](Index o, Index i, T entry) {
      sums[static_cast<std::size_t>(o)] +=
          static_cast<double>(entry) * static_cast<double>(x(r, i));
    });
    for (Index o = 0; o < y.cols(); ++o)
      y(r, o) = static_cast<T>(sums[static_cast<std::size_t>(o)]);
  }
}

/// What kernels read of a weight, from an output and an input on.
template <class Call, class S>
Call two_four_call(const factor::TwoFour<S>& w, Index output, Index input) {
  Call call;
  call.values = w.values().data + output * w.row_values() + input / 2;
  call.value_stride = w.row_values();
  const auto words = w.mask().words();
  call.mask = words.data + output * words.stride[0] + input / factor::TwoFourMask::word_inputs;
  call.mask_stride = words.stride[0];
  if constexpr (std::is_same_v<S, std::int8_t>) {
    static_assert(factor::TwoFour<S>::scale_inputs == kernel::two_four_scale_inputs);
    const auto scales = w.scales();
    call.scales = scales.data + output * scales.stride[0] + input / kernel::two_four_scale_inputs;
    call.scale_stride = scales.stride[0];
  }
  return call;
}

/// Weights up to this many bytes are likely to be in L2 still when they are read again: a quarter
/// of it, since those of a model follow each other, and what is wrongly taken for cached arrives
/// from memory at a third of its rate.
inline constexpr Index cached_two_four_bytes = Index{1} << 18;

template <class B, class S, class T>
void multiply_few_two_four(const B& backend, const factor::TwoFour<S>& w, TensorView<const T, 2> x,
                           TensorView<T, 2> y) {
  const bool from_cache = w.bytes() <= cached_two_four_bytes;
  const Index each =
      linalg::detail::weight_rows_item(worker_count(backend.executor, w.outputs()), w.outputs());
  parallel_for(backend.executor, ceil_div(w.outputs(), each), [&](Index item, int) {
    const Index begin = item * each;
    auto a = two_four_call<kernel::MultiplyTwoFourRows<S>>(w, begin, 0);
    a.x = x.data;
    a.x_stride = x.stride[0];
    a.y = y.data + begin;
    a.y_stride = y.stride[0];
    a.rows = x.rows();
    a.inputs = w.inputs();
    a.outputs = std::min(each, w.outputs() - begin);
    a.from_cache = from_cache;
    launch(backend, a);
  });
}

/// A right factor of linalg::multiply, whose panels are packed of a 2:4 weight.
template <bool Pairs, class B, class S, class T>
linalg::detail::PackedFactor<B, T> two_four_factor(const factor::TwoFour<S>& w) {
  using Factor = linalg::detail::PackedFactor<B, T>;
  return {&w, 1, 1,
          [](const B& backend, const Factor& factor, const typename Factor::Part& part,
             const linalg::ProductOptions<T>&, T* to) {
            auto a = two_four_call<kernel::PackTwoFour<S, Pairs>>(
                *static_cast<const factor::TwoFour<S>*>(factor.data), part.begin, part.first);
            a.outputs = part.count;
            a.inputs = part.depth;
            a.panels = to;
            launch(backend, a);
          }};
}

template <bool Pairs, class B, class S, class X, class T>
void multiply_many_two_four(const B& backend, const factor::TwoFour<S>& w, TensorView<const X, 2> x,
                            TensorView<T, 2> y) {
  static_assert(linalg::product_depth % kernel::two_four_scale_inputs == 0);
  linalg::detail::run_product<Pairs>(backend, linalg::detail::left_factor<Pairs, B, X, T>(x),
                                     two_four_factor<Pairs, B, S, T>(w), w.inputs(), y,
                                     linalg::ProductOptions<T>{}, linalg::NoEpilogue{});
}

/// A layer's call, checked. `rounds`: many rows to bf16.
template <class B, class S>
void apply_two_four(const B& backend, const factor::TwoFour<S>& w,
                    TensorView<const factor::two_four_t<S>, 2> x,
                    TensorView<factor::two_four_t<S>, 2> y, [[maybe_unused]] bool rounds) {
  if (y.rows() == 0) return;
  if constexpr (KernelBackend<B>) {
    const auto any = on_any_executor(backend);
    with_contiguous_rows(any, with_unit_steps(x), with_unit_steps(y), [&](auto from, auto to) {
      if (from.rows() <= few_rows) return multiply_few_two_four(any, w, from, to);
      if constexpr (std::is_same_v<S, bf16>)
        if (rounds)
          return with_rounded_rows(any, from, from.cols(), [&](TensorView<const bf16, 2> rounded) {
            multiply_many_two_four<true>(any, w, rounded, to);
          });
      multiply_many_two_four<false>(any, w, from, to);
    });
  } else {
    reference_two_four(w, x, y);
  }
}

PARE_ABI_END
}  // namespace pare::transformer::detail

#include <pare/core/macros_on.hpp>
