// SPDX-License-Identifier: Apache-2.0
// Gated residuals of first-layer values, against the formula in long double.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <pare/attention/value_residual.hpp>
#include <pare/core/aligned_buffer.hpp>

#include "attention/data.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace attention_value_residual_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::TensorView;
using pare::attention::ResidualGate;
using pare::attention::value_residual;
using pare::attention::ValueResidualOptions;
using pare::testing::all_same_bits;
using pare::testing::Layout;
using pare::testing::normal_rows;
using pare::testing::normal_tensor;
using pare::testing::PlainRows;
using pare::testing::Tensor;

constexpr ResidualGate gates[] = {ResidualGate::Relu,    ResidualGate::Sigmoid,
                                  ResidualGate::Tanh,    ResidualGate::Identity,
                                  ResidualGate::Softmax, ResidualGate::SoftmaxSigmoid};

/// Inputs of unit variance, weights of 1 / model dim so that z is of unit variance too.
template <class S>
struct Mix {
  Index batch, heads, tokens, dim, model;
  PlainRows<S> hidden, weights;
  Tensor<S> v, first;

  Mix(Index b, Index h, Index t, Index d, Index m, Layout layout = Layout::by_token)
      : batch(b),
        heads(h),
        tokens(t),
        dim(d),
        model(m),
        hidden(normal_rows<S>(b * t, m, 1)),
        weights(normal_rows<S>(h, m, 2)),
        v(normal_tensor<S>({b, h, t, d}, 3, layout)),
        first(normal_tensor<S>({b, h, t, d}, 4, Layout::by_head)) {
    for (S& w : weights.list)
      w = static_cast<S>(static_cast<pare::compute_t<S>>(w) /
                         static_cast<pare::compute_t<S>>(std::sqrt(static_cast<double>(m))));
  }

  TensorView<const S, 3> hidden_view() const { return hidden.heads(batch); }

  template <class B>
  Tensor<S> mixed(const B& backend, const ValueResidualOptions& options = {}) const {
    Tensor<S> out({batch, heads, tokens, dim}, Layout::apart);
    value_residual(backend, hidden_view(), weights.view(), v.view(), first.view(), out.writable(),
                   options);
    return out;
  }
};

template <class S>
long double share_of(const Mix<S>& x, ResidualGate gate, const std::vector<float>& bias, Index b,
                     Index head, Index t) {
  const auto wide = [](S y) {
    return static_cast<long double>(static_cast<pare::compute_t<S>>(y));
  };
  const auto z = [&](Index h) {
    long double sum =
        bias.empty() ? 0.0L : static_cast<long double>(bias[static_cast<std::size_t>(h)]);
    for (Index j = 0; j < x.model; ++j)
      sum += wide(x.weights(h, j)) * wide(x.hidden(b * x.tokens + t, j));
    return sum;
  };
  const long double mine = z(head), sigmoid = 1 / (1 + std::exp(-mine));
  long double total = 0;
  for (Index h = 0; h < x.heads; ++h) total += std::exp(z(h));
  const long double softmax = std::exp(mine) / total * static_cast<long double>(x.heads);
  switch (gate) {
    case ResidualGate::Relu:
      return mine > 0 ? mine : 0;
    case ResidualGate::Sigmoid:
      return sigmoid;
    case ResidualGate::Tanh:
      return std::tanh(mine);
    case ResidualGate::Identity:
      return mine;
    case ResidualGate::Softmax:
      return softmax;
    case ResidualGate::SoftmaxSigmoid:
      return softmax * sigmoid;
  }
  return 0;
}

template <class S>
void expect_mixed(const Mix<S>& x, const Tensor<S>& got, ResidualGate gate,
                  const std::vector<float>& bias, double bound) {
  const auto wide = [](S y) { return static_cast<double>(static_cast<pare::compute_t<S>>(y)); };
  double worst = 0;
  for (Index b = 0; b < x.batch; ++b)
    for (Index h = 0; h < x.heads; ++h)
      for (Index t = 0; t < x.tokens; ++t) {
        const auto share = static_cast<double>(share_of(x, gate, bias, b, h, t));
        for (Index c = 0; c < x.dim; ++c) {
          const double wanted = wide(x.v(b, h, t, c)) + share * wide(x.first(b, h, t, c));
          const double off = std::abs(wide(got(b, h, t, c)) - wanted);
          worst = std::max(worst, off / (1 + std::abs(wanted)));
        }
      }
  EXPECT_LE(worst, bound) << "gate " << static_cast<int>(gate);
}

// z is off by 2^-24 sqrt(model / 6) < 4e-7 rms of its terms, of which six deviations are 2.4e-6; a
// softmax of five heads has a slope below 5 / 4, and |v_1| < 4.5.
TEST(ValueResidual, EveryGateIsItsFormula) {
  const std::vector<float> bias{0.5f, -1, 0, 2, 0.25f};
  for (const ResidualGate gate : gates) {
    const Mix<float> x(2, 5, 37, 21, 70);
    expect_mixed(x, x.mixed(pare::reference, {.gate = gate}), gate, {}, 2e-7);
    expect_mixed(x, x.mixed(pare::simd, {.gate = gate}), gate, {}, 1.5e-5);
    expect_mixed(x, x.mixed(pare::simd, {.gate = gate, .bias = bias}), gate, bias, 1.5e-5);
    expect_mixed(x, x.mixed(pare::reference, {.gate = gate, .bias = bias}), gate, bias, 2e-7);
    const Mix<double> twice(1, 3, 5, 16, 33);
    expect_mixed(twice, twice.mixed(pare::simd, {.gate = gate}), gate, {}, 1e-14);
    const Mix<bf16> half(1, 4, 9, 32, 64);
    expect_mixed(half, half.mixed(pare::simd, {.gate = gate}), gate, {}, 0x1p-8);
  }
}

TEST(ValueResidual, WeightsOfZeroArePlainValuesOrHalfOfTheFirst) {
  Mix<float> x(1, 2, 20, 16, 40);
  x.weights.list.assign(x.weights.list.size(), 0.0f);
  for (const ResidualGate gate : {ResidualGate::Relu, ResidualGate::Tanh, ResidualGate::Identity})
    for (Index t = 0; t < 20; ++t)
      EXPECT_EQ(x.mixed(pare::simd, {.gate = gate})(0, 1, t, 3), x.v(0, 1, t, 3));
  const auto half = x.mixed(pare::simd, {.gate = ResidualGate::Sigmoid});
  const auto alike = x.mixed(pare::simd, {.gate = ResidualGate::Softmax});
  for (Index t = 0; t < 20; ++t) {
    EXPECT_FLOAT_EQ(half(0, 1, t, 3), x.v(0, 1, t, 3) + 0.5f * x.first(0, 1, t, 3));
    EXPECT_FLOAT_EQ(alike(0, 1, t, 3), x.v(0, 1, t, 3) + x.first(0, 1, t, 3));
  }
}

TEST(ValueResidual, InPlaceAndAnyLayoutHaveTheSameBits) {
  const Mix<float> x(2, 3, 70, 16, 40);
  const Tensor<float> wanted = x.mixed(pare::simd);
  Tensor<float> v = x.v;
  value_residual(x.hidden_view(), x.weights.view(), v.view(), x.first.view(), v.writable());
  Eigen::MatrixXf by_columns(3, 40);
  for (Index h = 0; h < 3; ++h)
    for (Index j = 0; j < 40; ++j) by_columns(h, j) = x.weights(h, j);
  Tensor<float> other({2, 3, 70, 16});
  value_residual(x.hidden_view(), by_columns, x.v.view(), x.first.view(), other.writable());
  for (Index h = 0; h < 3; ++h)
    for (Index t = 0; t < 70; ++t) {
      EXPECT_EQ(v(1, h, t, 5), wanted(1, h, t, 5));
      EXPECT_EQ(other(1, h, t, 5), wanted(1, h, t, 5));
    }
}

// 9 MiB of output in whole lines is written past the caches.
TEST(ValueResidual, WhatIsStreamedIsTheSame) {
  const Mix<float> x(1, 2, 18000, 64, 8, Layout::by_head);
  const Tensor<float> wanted = x.mixed(pare::simd);
  pare::AlignedBuffer<float> lines(std::size_t{2} * 18000 * 64);
  const TensorView<float, 4> out{lines.data(), x.v.extent, {18000 * 64 * 2, 18000 * 64, 64, 1}};
  value_residual(pare::simd.threads(2), x.hidden_view(), x.weights.view(), x.v.view(),
                 x.first.view(), out);
  Index differ = 0;
  for (Index h = 0; h < 2; ++h)
    for (Index t = 0; t < 18000; ++t)
      for (Index c = 0; c < 64; ++c) differ += out(0, h, t, c) != wanted(0, h, t, c);
  EXPECT_EQ(differ, 0);
}

TEST(ValueResidual, SameBitsForAnyThreadsAndNothingAllocatedTwice) {
  const Mix<float> x(2, 3, 150, 16, 40);
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return x.mixed(backend).list; });
  pare::Workspace workspace;
  Tensor<float> out({2, 3, 150, 16});
  const auto call = [&] {
    value_residual(pare::simd.with(workspace), x.hidden_view(), x.weights.view(), x.v.view(),
                   x.first.view(), out.writable());
  };
  call();
  const long before = pare::testing::allocations.load();
  call();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(ValueResidual, NanStaysInItsToken) {
  Mix<float> x(1, 2, 20, 16, 40);
  x.hidden(7, 3) = std::nanf("");
  for (const ResidualGate gate : gates) {
    const auto y = x.mixed(pare::simd, {.gate = gate});
    for (Index t = 0; t < 20; ++t) EXPECT_EQ(std::isnan(y(0, 0, t, 0)), t == 7);
  }
}

TEST(ValueResidual, ExtremeLogitsHaveSharesThatAreNumbers) {
  Mix<float> x(1, 2, 4, 16, 8);
  for (float& w : x.weights.list) w *= 1e20f;
  for (const ResidualGate gate : {ResidualGate::Sigmoid, ResidualGate::Tanh, ResidualGate::Softmax,
                                  ResidualGate::SoftmaxSigmoid})
    for (const float y : x.mixed(pare::simd, {.gate = gate}).list) EXPECT_TRUE(std::isfinite(y));
}

TEST(ValueResidual, RefusesWhatHasNoMeaning) {
  const Mix<float> x(2, 3, 5, 6, 8), more(2, 3, 6, 6, 8), wider(2, 3, 5, 6, 9),
      heads(2, 4, 5, 6, 8);
  Tensor<float> out({2, 3, 5, 6}, Layout::by_head, 0.5f),
      small({2, 3, 5, 5}, Layout::by_head, 0.5f);
  const auto expect = [&](const std::string& argument, const Mix<float>& h, const Mix<float>& w,
                          const Mix<float>& first, TensorView<float, 4> to,
                          const ValueResidualOptions& options = {}) {
    for (const bool definition : {true, false})
      pare::testing::refuses_and_leaves_alone(
          [&] {
            const auto call = [&](const auto& backend) {
              value_residual(backend, h.hidden_view(), w.weights.view(), x.v.view(),
                             first.first.view(), to, options);
            };
            definition ? call(pare::reference) : call(pare::simd);
          },
          "attention::value_residual", argument, out.list, small.list, x.first.list);
  };
  expect("hidden", more, x, x, out.writable());
  expect("w_alpha", x, wider, x, out.writable());
  expect("w_alpha", x, heads, x, out.writable());
  expect("v_first", x, x, more, out.writable());
  expect("out", x, x, x, small.writable());
  expect("gate", x, x, x, out.writable(), {.gate = static_cast<ResidualGate>(6)});
  const std::vector<float> few(2, 0.0f);
  expect("bias", x, x, x, out.writable(), {.bias = few});
  expect("out", x, x, x, out.writable(), {.bias = std::span<const float>(out.list.data() + 4, 3)});
  Tensor<float> in = x.first;
  pare::testing::refusal(
      [&] {
        value_residual(x.hidden_view(), x.weights.view(), x.v.view(), in.view(), in.writable());
      },
      "attention::value_residual", "out");
  std::vector<float> memory(181, 0.5f);
  const auto at = [&](Index i) {
    return TensorView<float, 4>{memory.data() + i, {2, 3, 5, 6}, {90, 6, 18, 1}};
  };
  pare::testing::refusal(
      [&] { value_residual(x.hidden_view(), x.weights.view(), at(0), x.first.view(), at(1)); },
      "attention::value_residual", "out");
  const Mix<float> none(1, 2, 0, 6, 8);
  none.mixed(pare::simd);
}

}  // namespace
}  // namespace attention_value_residual_test
