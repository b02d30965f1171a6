// SPDX-License-Identifier: Apache-2.0
// Attention over 16-bit storage against the oracle on the same rounded numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include <pare/attention/attend.hpp>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/oracle.hpp"

namespace attention_attend_storage_test {
namespace {

using pare::compute_t;
using pare::Index;
using pare::attention::attend;
using pare::testing::attended;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::Sees;
using pare::testing::Sizes;

template <class Case>
struct AttendStorageTest : testing::Test {
  using Storage = typename Case::scalar;
  using Compute = compute_t<Storage>;
  static constexpr double tolerance = pare::testing::attention_bound<Case>();
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(AttendStorageTest, pare::testing::AttendStorages);

TYPED_TEST(AttendStorageTest, HeadSizes) {
  pare::testing::expect_head_sizes<typename TestFixture::Storage>(this->backend(), this->tolerance);
}

// Weights are rounded to the storage scalar before they meet values, but not in their sum that lse
// tells: the rounding of three weights would move it by 2^-9.
TYPED_TEST(AttendStorageTest, LogSumExpIsOfWeightsThatAreNotRounded) {
  using S = typename TestFixture::Storage;
  for (const pare::Index queries : {1, 9}) {
    const Inputs<S> x(Sizes{1, 4, 2, queries, 3, 32, 5});
    const auto got = attended(this->backend(), x).lse.list;
    const auto wanted = attended(pare::reference, x).lse.list;
    // Products of 32 numbers below 2, summed in float or wider.
    for (std::size_t i = 0; i < wanted.size(); ++i)
      EXPECT_NEAR(static_cast<double>(got[i]), static_cast<double>(wanted[i]), 1e-4) << i;
  }
}

TYPED_TEST(AttendStorageTest, LengthsAroundTilesBlocksAndRegisters) {
  pare::testing::expect_lengths<typename TestFixture::Storage>(this->backend(), this->tolerance);
}

TYPED_TEST(AttendStorageTest, OutputInTheStorageScalar) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{1, 2, 1, 30, 40, 16, 19});
  Outputs<S, S> y(x.sizes);
  attend(this->backend(), x.q.view(), x.k.view(), x.v.view(), y.out.writable(),
         {.lse = y.lse_view()});
  // One rounding more, of outputs below 4.
  const double u = std::is_same_v<S, pare::bf16> ? 0x1p-9 : 0x1p-12;
  expect_attention(x, y, this->tolerance + 4 * u, Sees{30, 40});
}

// The rule of Block-Sparse-Attention's tests: no worse than twice a plain form that rounds the
// probabilities to the storage scalar.
TYPED_TEST(AttendStorageTest, NoWorseThanTwiceAPlainFormOfLowPrecision) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{1, 1, 1, 60, 200, 64, 32});
  const Outputs<S> y = attended(this->backend(), x);
  const auto wanted = pare::testing::dense_attention(x.q.head(0, 0), x.k.head(0, 0), x.v.head(0, 0),
                                                     0.125, [](Index, Index) { return true; });
  const auto value = [](S s) { return static_cast<double>(static_cast<float>(s)); };
  double plain = 0, worst = 0;
  for (Index i = 0; i < 60; ++i)
    for (Index c = 0; c < 32; ++c) {
      double sum = 0;
      for (Index j = 0; j < 200; ++j)
        sum += value(static_cast<S>(static_cast<float>(wanted.p(i, j)))) * value(x.v(0, 0, j, c));
      plain = std::max(plain, std::abs(sum - wanted.out(i, c)));
      worst = std::max(worst, std::abs(static_cast<double>(y.out(0, 0, i, c)) - wanted.out(i, c)));
    }
  EXPECT_LE(worst, 2 * plain);
}

}  // namespace
}  // namespace attention_attend_storage_test
