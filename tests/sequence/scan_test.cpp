// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/sequence/scan.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace sequence_scan_test {
namespace {

using pare::Index;
using pare::testing::bytes_of;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Tolerance;
using pare::testing::uniform;
using namespace pare::sequence;

struct Shape {
  Index batch, tokens, heads, groups, states, dim;
  bool per_state;
};

/// A tensor by rows that owns its numbers.
template <class X>
struct Tensor {
  std::array<Index, 4> extent{};
  std::vector<X> values;

  explicit Tensor(std::array<Index, 4> e) : extent(e) {
    values.resize(static_cast<std::size_t>(e[0] * e[1] * e[2] * e[3]));
  }
  pare::TensorView<X, 4> view() {
    return {values.data(),
            extent,
            {extent[1] * extent[2] * extent[3], extent[2] * extent[3], extent[3], 1}};
  }
  std::size_t size() const { return values.size(); }
  const X* data() const { return values.data(); }
};

template <class X>
pare::TensorView<X, 4> tokens_of(pare::TensorView<X, 4> v, Index begin, Index end) {
  v.data += begin * v.stride[1];
  v.extent[1] = end - begin;
  return v;
}

template <class S, class H = pare::compute_t<S>>
struct Case {
  using T = pare::compute_t<S>;
  Shape shape;
  Tensor<S> x, b, c, y;
  Tensor<T> a;
  Tensor<H> state;

  explicit Case(const Shape& s, double lowest_decay = 0.5)
      : shape(s),
        x({s.batch, s.tokens, s.heads, s.dim}),
        b({s.batch, s.tokens, s.groups, s.states}),
        c(b.extent),
        y(x.extent),
        a({s.batch, s.tokens, s.heads, s.per_state ? s.states : 1}),
        state({s.batch, s.heads, s.states, s.dim}) {
    pare::testing::Engine random(7);
    const auto fill = [&](auto& t, double low, double high) {
      for (auto& v : t.values)
        v = static_cast<std::remove_reference_t<decltype(v)>>(
            static_cast<T>(low + (high - low) * (uniform(random) + 1) / 2));
    };
    fill(x, -1, 1);
    fill(b, -1, 1);
    fill(c, -1, 1);
    fill(a, lowest_decay, 1);
    fill(state, -1, 1);
  }

  template <class B>
  void run(const B& backend, const ScanOptions& options = {}) {
    scan(backend, x.view(), a.view(), b.view(), c.view(), state.view(), y.view(), options);
  }
  std::vector<unsigned char> result() const {
    auto bytes = bytes_of(y);
    const auto more = bytes_of(state);
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
  }
};

/// y and the state of one value, in long double, and the magnitudes that the same sums have without
/// signs.
struct Oracle {
  std::vector<long double> y, magnitude, state, state_magnitude;

  template <class S, class H>
  Oracle(Case<S, H> k, Index i, Index g, Index p) {
    using T = pare::compute_t<S>;
    const Shape& s = k.shape;
    const auto wide = [](auto v) { return static_cast<long double>(static_cast<T>(v)); };
    for (Index n = 0; n < s.states; ++n) {
      state.push_back(wide(k.state.view()(i, g, n, p)));
      state_magnitude.push_back(std::abs(state.back()));
    }
    const Index group = g * s.groups / s.heads;
    for (Index t = 0; t < s.tokens; ++t) {
      y.push_back(0);
      magnitude.push_back(0);
      for (Index n = 0; n < s.states; ++n) {
        const auto at = static_cast<std::size_t>(n);
        const long double a = wide(k.a.view()(i, t, g, s.per_state ? n : 0));
        const long double in = wide(k.b.view()(i, t, group, n)) * wide(k.x.view()(i, t, g, p));
        const long double c = wide(k.c.view()(i, t, group, n));
        state[at] = a * state[at] + in;
        state_magnitude[at] = std::abs(a) * state_magnitude[at] + std::abs(in);
        y.back() += c * state[at];
        magnitude.back() += std::abs(c) * state_magnitude[at];
      }
    }
  }
};

/// Each token rounds a product and two sums of the state; then a dot product. With chunks the
/// decays of one are multiplied first, and a state is merged.
template <class S, class H>
void expect_scanned(const Case<S, H>& before, Case<S, H>& got) {
  using T = pare::compute_t<S>;
  const double stored = std::is_same_v<S, pare::bf16> ? 0x1p-8 : 0;
  const double kept = std::is_same_v<H, pare::bf16> ? 0x1p-8 : 0;
  const Shape& s = before.shape;
  const auto close = [&](auto value, long double wanted, long double magnitude, double terms,
                         double rounded) {
    const double bound = Tolerance<T>::gamma(terms) * static_cast<double>(magnitude) * 1.01;
    return pare::testing::within(static_cast<double>(static_cast<T>(value)),
                                 static_cast<double>(wanted),
                                 bound + rounded * (std::abs(static_cast<double>(wanted)) + bound));
  };
  for (Index i = 0; i < s.batch; ++i)
    for (Index g = 0; g < s.heads; ++g)
      for (Index p = 0; p < s.dim; p += 1 + s.dim / 7) {
        const Oracle oracle(before, i, g, p);
        for (Index t = 0; t < s.tokens; ++t) {
          const auto at = static_cast<std::size_t>(t);
          const double terms = 4 * static_cast<double>(t + 2) + static_cast<double>(s.states) + 2;
          ASSERT_TRUE(
              close(got.y.view()(i, t, g, p), oracle.y[at], oracle.magnitude[at], terms, stored))
              << i << " " << t << " " << g << " " << p << " of " << s.tokens << " " << s.states
              << " " << s.dim << " got "
              << static_cast<double>(static_cast<T>(got.y.view()(i, t, g, p))) << " wanted "
              << static_cast<double>(oracle.y[at]);
        }
        for (Index n = 0; n < s.states; ++n) {
          const auto at = static_cast<std::size_t>(n);
          ASSERT_TRUE(close(got.state.view()(i, g, n, p), oracle.state[at],
                            oracle.state_magnitude[at], 4 * static_cast<double>(s.tokens + 2),
                            kept))
              << i << ' ' << g << ' ' << n << ' ' << p;
        }
      }
}

const Shape shapes[] = {
    {2, 35, 4, 2, 19, 64, false}, {1, 17, 3, 1, 6, 37, true}, {1, 5, 2, 2, 64, 130, false},
    {2, 9, 6, 1, 21, 1, true},    {1, 40, 5, 5, 16, 1, true}, {1, 3, 4, 2, 5, 1, false},
    {1, 1, 2, 1, 64, 64, true},   {1, 20, 1, 1, 1, 3, true},  {1, 7, 9, 1, 67, 1, true},
};

template <class Case>
struct ScanTest : testing::Test {};
template <class B, class S, class H>
struct Kind {
  using backend = B;
  using scalar = S;
  using kept = H;
};
using Kinds = testing::Types<Kind<pare::testing::ReferenceBackend, float, float>,
                             Kind<pare::testing::BestBackend, float, float>,
                             Kind<pare::testing::ThreadedBackend, double, double>,
                             Kind<pare::testing::BestBackend, pare::bf16, float>,
                             Kind<pare::testing::BestBackend, pare::bf16, pare::bf16>>;
TYPED_TEST_SUITE(ScanTest, Kinds);

TYPED_TEST(ScanTest, IsTheRecurrence) {
  using K = Case<typename TypeParam::scalar, typename TypeParam::kept>;
  for (const Shape& shape : shapes)
    for (const Index chunk : {Index{0}, Index{7}}) {
      const K before(shape);
      K got = before;
      got.run(TypeParam::backend::make(), chunk == 0 ? ScanOptions{} : ScanOptions{.chunk = chunk});
      expect_scanned(before, got);
    }
}

TYPED_TEST(ScanTest, AStreamMayBeCutAnywhere) {
  using K = Case<typename TypeParam::scalar, typename TypeParam::kept>;
  // The definition rounds the state of double, and 16 bits are rounded, at the end of a call.
  if (TypeParam::backend::is_reference || std::is_same_v<typename TypeParam::kept, pare::bf16>)
    return;
  for (const Shape& shape : shapes) {
    K whole(shape), cut(shape);
    whole.run(TypeParam::backend::make());
    for (Index t = 0, step = 1; t < shape.tokens; t += step, step = step % 7 + 1) {
      const Index end = std::min(t + step, shape.tokens);
      scan(TypeParam::backend::make(), tokens_of(cut.x.view(), t, end),
           tokens_of(cut.a.view(), t, end), tokens_of(cut.b.view(), t, end),
           tokens_of(cut.c.view(), t, end), cut.state.view(), tokens_of(cut.y.view(), t, end));
    }
    EXPECT_TRUE(whole.result() == cut.result()) << shape.states << ' ' << shape.dim;
  }
}

TEST(Scan, AnyThreadsHaveTheSameBits) {
  for (const Shape& shape : {shapes[0], shapes[3]})
    for (const bool chunks : {false, true})
      pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
        Case<float> k(shape);
        k.run(backend, chunks ? ScanOptions{.chunk = 6} : ScanOptions{});
        return k.result();
      });
}

/// Constants and shared decays are strides of 0; other strides give the same bits.
TEST(Scan, StridesOfZeroAreConstants) {
  for (const Shape& shape : {shapes[1], shapes[3]}) {
    Case<float> k(shape);
    const auto first = [](auto view) {
      view.stride[0] = view.stride[1] = view.stride[2] = 0;
      return view;
    };
    const auto a = first(k.a.view());
    Case<float> filled = k;
    for (std::size_t i = 0; i < filled.a.size(); ++i)
      filled.a.values[i] = a.data[i % static_cast<std::size_t>(shape.states)];
    filled.run(pare::simd);
    scan(k.x.view(), a, k.b.view(), k.c.view(), k.state.view(), k.y.view());
    EXPECT_TRUE(k.result() == filled.result());
  }
}

/// One decay for all tokens, as of S4D, whole and in chunks: the recurrence, with the bits of
/// decays that are written out.
TEST(Scan, ConstantDecaysAreTheRecurrence) {
  for (const Shape& shape : shapes)
    for (const Index chunk : {Index{0}, Index{6}}) {
      Case<float> k(shape);
      auto a = k.a.view();
      a.stride[1] = 0;
      const ScanOptions options = chunk == 0 ? ScanOptions{} : ScanOptions{.chunk = chunk};
      Case<float> before = k;
      const auto written = before.a.view();
      for (Index i = 0; i < shape.batch; ++i)
        for (Index t = 0; t < shape.tokens; ++t)
          for (Index g = 0; g < shape.heads; ++g)
            for (Index n = 0; n < a.extent[3]; ++n) written(i, t, g, n) = a(i, t, g, n);
      Case<float> filled = before;
      filled.run(pare::simd, options);
      scan(pare::simd, k.x.view(), a, k.b.view(), k.c.view(), k.state.view(), k.y.view(), options);
      EXPECT_TRUE(k.result() == filled.result()) << shape.states << ' ' << shape.dim;
      expect_scanned(before, k);
    }
}

/// States that lie apart have the same bits, but those of heads of one value (shapes[3]).
TEST(Scan, StatesMayLieApart) {
  for (const Shape& shape : {shapes[0], shapes[3]}) {
    const Case<double> before(shape);
    Case<double> k = before, got = before;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    std::vector<double> memory(k.state.size() * 3, nan);
    auto view = k.state.view();
    pare::TensorView<double, 4> apart{memory.data(), view.extent, view.stride};
    for (std::size_t d = 0; d < 3; ++d) apart.stride[d] *= 3;
    const auto each = [&](const auto& f) {
      for (Index i = 0; i < view.extent[0]; ++i)
        for (Index g = 0; g < view.extent[1]; ++g)
          for (Index n = 0; n < view.extent[2]; ++n)
            for (Index p = 0; p < view.extent[3]; ++p) f(view(i, g, n, p), apart(i, g, n, p));
    };
    each([](double& from, double& to) { to = from; });
    scan(pare::simd, k.x.view(), k.a.view(), k.b.view(), k.c.view(), apart, k.y.view());
    each([](double& to, double& from) {
      to = from;
      from = std::numeric_limits<double>::quiet_NaN();
    });
    for (const double v : memory) ASSERT_TRUE(std::isnan(v));
    expect_scanned(before, k);
    got.run(pare::simd);
    EXPECT_TRUE(shape.dim == 1 || k.result() == got.result());
  }
}

TEST(Scan, WhatIsNoNumberStaysInItsValue) {
  for (const Shape& shape : {shapes[0], shapes[3]}) {
    Case<float> plain(shape), k(shape);
    k.x.view()(0, 2, 1, 0) = std::numeric_limits<float>::quiet_NaN();
    plain.run(pare::simd);
    k.run(pare::simd);
    for (Index i = 0; i < shape.batch; ++i)
      for (Index t = 0; t < shape.tokens; ++t)
        for (Index g = 0; g < shape.heads; ++g)
          for (Index p = 0; p < shape.dim; ++p) {
            const bool reached = i == 0 && g == 1 && p == 0 && t >= 2;
            const float y = k.y.view()(i, t, g, p);
            ASSERT_TRUE(reached ? std::isnan(y)
                                : pare::testing::same_bits(y, plain.y.view()(i, t, g, p)));
          }
  }
}

// The decays of a chunk have a product that no float holds: it meets a state of 0, or one that a
// decay of 0 forgets.
TEST(Scan, ChunksWhoseDecaysOverflowLeaveNoughtAlone) {
  for (const Shape& shape : {Shape{1, 200, 2, 1, 3, 5, true}, Shape{1, 200, 2, 1, 3, 1, false}}) {
    Case<float> k(shape);
    const auto x = k.x.view(), a = k.a.view(), state = k.state.view();
    for (Index g = 0; g < 2; ++g) {
      for (Index n = 0; n < 3; ++n)
        for (Index p = 0; p < shape.dim; ++p) state(0, g, n, p) *= static_cast<float>(g);
      for (Index t = 0; t < 64; ++t) {
        for (Index n = 0; n < a.extent[3]; ++n) a(0, t, g, n) = g == 1 && t == 50 ? 0.0f : 10.0f;
        for (Index p = 0; p < shape.dim; ++p)
          if (t < 60) x(0, t, g, p) = 0;
      }
    }
    for (Index n = 0; n < 3; ++n)
      for (Index p = 0; p < shape.dim; ++p) state(0, 1, n, p) = 1e-20f;
    for (Index t = 0; t < 10; ++t)
      for (Index n = 0; n < a.extent[3]; ++n) a(0, t, 1, n) = 0.5f;
    Case<float> whole = k;
    whole.run(pare::simd);
    k.run(pare::simd, {.chunk = 64});
    for (std::size_t i = 0; i < k.y.values.size(); ++i)
      ASSERT_NEAR(k.y.values[i], whole.y.values[i], 1e-4 * (1 + std::abs(whole.y.values[i]))) << i;
  }
}

TEST(Scan, AStepAllocatesNothing) {
  Case<float> k({1, 1, 2, 1, 16, 64, false});
  pare::Workspace workspace;
  k.run(pare::simd.with(workspace));
  const long before = pare::testing::allocations;
  k.run(pare::simd.with(workspace));
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TEST(Scan, WhatDoesNotFitIsRefused) {
  constexpr const char* f = "sequence::scan";
  Case<float> k({2, 5, 4, 2, 6, 8, true});
  const auto x = k.x.view(), a = k.a.view(), b = k.b.view(), c = k.c.view(), y = k.y.view();
  const auto state = k.state.view();
  const auto refused = [&](const auto& call, const char* argument) {
    refuses_and_leaves_alone(call, f, argument, k.y, k.state);
  };
  const auto cut = [](auto v, std::size_t d, Index extent) {
    v.extent[d] = extent;
    return v;
  };
  const auto r = pare::reference;
  refused([&] { scan(r, cut(x, 3, 0), a, b, c, cut(state, 3, 0), cut(y, 3, 0)); }, "x");
  refused([&] { scan(r, x, a, cut(b, 3, 0), cut(c, 3, 0), cut(state, 2, 0), y); }, "b");
  refused([&] { scan(r, x, a, cut(b, 1, 4), c, state, y); }, "b");
  refused([&] { scan(r, x, a, cut(b, 2, 0), cut(c, 2, 0), state, y); }, "b");
  refused([&] { scan(r, cut(x, 2, 3), cut(a, 2, 3), b, c, cut(state, 1, 3), cut(y, 2, 3)); }, "b");
  refused([&] { scan(r, x, a, b, cut(c, 3, 5), state, y); }, "c");
  refused([&] { scan(r, x, cut(a, 3, 5), b, c, state, y); }, "a");
  refused([&] { scan(r, x, cut(a, 0, 1), b, c, state, y); }, "a");
  refused([&] { scan(r, x, a, b, c, cut(state, 2, 5), y); }, "state");
  refused([&] { scan(r, x, a, b, c, state, cut(y, 1, 4)); }, "y");
  refused([&] { scan(r, x, a, b, c, state, y, {.chunk = 0}); }, "chunk");
  refused([&] { scan(r, x, a, b, c, state, x); }, "y");
  auto over = state;
  over.data = k.y.values.data();
  refused([&] { scan(r, x, a, b, c, over, y); }, "y");
  auto inside = x;  // which is the smaller
  inside.data = k.state.values.data();
  refused([&] { scan(r, inside, a, b, c, state, y); }, "state");
  auto same = state;
  same.stride[0] = 0;
  refused([&] { scan(r, x, a, b, c, same, y); }, "state");
  auto apart = x;
  apart.stride[3] = 2;
  refused([&] { scan(r, cut(apart, 3, 4), a, b, c, cut(state, 3, 4), cut(y, 3, 4)); }, "x");
  refused(
      [&] {
        scan(r, pare::TensorView<const float, 4>{nullptr, x.extent, x.stride}, a, b, c, state, y);
      },
      "x");
  auto negative = x;
  negative.extent[1] = -1;
  refused([&] { scan(r, negative, a, b, c, state, y); }, "x");
  const auto before = k.result();
  // No token: the state stays.
  scan(pare::simd, cut(x, 1, 0), cut(a, 1, 0), cut(b, 1, 0), cut(c, 1, 0), state, cut(y, 1, 0));
  EXPECT_TRUE(k.result() == before);
}

}  // namespace
}  // namespace sequence_scan_test
