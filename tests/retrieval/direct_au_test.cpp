// SPDX-License-Identifier: Apache-2.0
// Alignment and DirectAU: the golden, the sum of the parts, finite differences, refusals.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/objectives/direct_au.hpp>

#include "support/properties.hpp"

namespace retrieval_direct_au_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::retrieval::alignment;
using pare::retrieval::direct_au;
using pare::retrieval::DirectAu;
using pare::retrieval::uniformity;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using Wide = RowMatrix<double>;

TEST(Alignment, IsTheGoldenOne) {
  const Wide identity = Wide::Identity(4, 4);
  Wide shifted(4, 4);
  for (Index i = 0; i < 4; ++i) shifted.row(i) = 3 * identity.row((i + 1) % 4);
  EXPECT_NEAR(alignment(identity, shifted), 2, 1e-15);
  // Each difference is off by two roundings of a unit row's element, which are squared.
  EXPECT_NEAR(alignment(shifted, shifted), 0, 1e-31);
  EXPECT_NEAR(alignment(identity, Wide(-2 * identity)), 4, 1e-15);
  const RowMatrix<float> narrow = shifted.cast<float>();
  EXPECT_NEAR(alignment(RowMatrix<float>(.5f * narrow), narrow), 0, 1e-31);
}

struct Batch {
  Wide users = random_matrix<Wide>(8, 5, 1), items = random_matrix<Wide>(8, 5, 2);
  Wide by_users = Wide::Zero(8, 5), by_items = Wide::Zero(8, 5);
};

TEST(DirectAu, IsTheSumOfItsParts) {
  Batch b;
  const DirectAu loss = direct_au(b.users, b.items, b.by_users, b.by_items, {.gamma = 5, .t = 3});
  EXPECT_NEAR(loss.alignment, alignment(b.users, b.items), 1e-15);
  EXPECT_NEAR(loss.user_uniformity, uniformity(b.users, {.t = 3}), 1e-13);
  EXPECT_NEAR(loss.item_uniformity, uniformity(b.items, {.t = 3}), 1e-13);
  EXPECT_NEAR(loss.total, loss.alignment + 2.5 * (loss.user_uniformity + loss.item_uniformity),
              1e-13);
}

/// Central differences of the loss that the reference returns, h = 1e-5: off by about h^2 and 1e-15
/// / h.
TEST(DirectAu, ItsGradientsAreThoseOfFiniteDifferences) {
  for (const auto& call : {true, false}) {
    Batch b;
    Wide ignored(8, 5), other(8, 5);
    if (call)
      direct_au(pare::reference, b.users, b.items, b.by_users, b.by_items, {.gamma = .5});
    else
      direct_au(b.users, b.items, b.by_users, b.by_items, {.gamma = .5});
    const auto check = [&](Wide& of, const Wide& gradient) {
      for (Index i = 0; i < 8; ++i)
        for (Index c = 0; c < 5; ++c) {
          const double at = of(i, c), h = 1e-5;
          const auto loss = [&](double x) {
            of(i, c) = x;
            return direct_au(pare::reference, b.users, b.items, ignored, other, {.gamma = .5})
                .total;
          };
          const double above = loss(at + h), below = loss(at - h);
          of(i, c) = at;
          EXPECT_NEAR(gradient(i, c), (above - below) / (2 * h), 1e-8);
        }
    };
    check(b.users, b.by_users);
    check(b.items, b.by_items);
  }
}

/// Rows of 16 bits are those that they widen to.
template <class S>
void expect_widened() {
  const RowMatrix<S> users = random_matrix<RowMatrix<S>>(8, 5, 1);
  const RowMatrix<S> items = random_matrix<RowMatrix<S>>(8, 5, 2);
  RowMatrix<float> u(8, 5), v(8, 5), got(16, 5), wanted(16, 5);
  for (Index k = 0; k < u.size(); ++k) {
    u.data()[k] = static_cast<float>(users.data()[k]);
    v.data()[k] = static_cast<float>(items.data()[k]);
  }
  EXPECT_EQ(direct_au(users, items, got.topRows(8), got.bottomRows(8)).total,
            direct_au(u, v, wanted.topRows(8), wanted.bottomRows(8)).total);
  EXPECT_TRUE(got == wanted);
  EXPECT_EQ(alignment(users, items), alignment(u, v));
}
TEST(DirectAu, RowsOf16BitsAreWidened) {
  expect_widened<pare::bf16>();
  expect_widened<pare::f16>();
}

TEST(DirectAu, SameBitsForAnyThreads) {
  const Wide users = random_matrix<Wide>(400, 9, 1), items = random_matrix<Wide>(400, 9, 2);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Wide both(800, 9);
    direct_au(backend, users, items, both.topRows(400), both.bottomRows(400));
    return both;
  });
}

TEST(DirectAu, RefusesWhatDoesNotFit) {
  Batch b;
  const Wide fewer = b.items.topRows(7), narrower = b.items.leftCols(4);
  refusal([&] { alignment(b.users, fewer); }, "retrieval::alignment", "y");
  refusal([&] { alignment(b.users, narrower); }, "retrieval::alignment", "y");
  refusal([&] { alignment(Wide(0, 5), Wide(0, 5)); }, "retrieval::alignment", "x");
  refusal([&] { alignment(b.users, Wide(Wide::Zero(8, 5))); }, "retrieval::alignment", "y");
  const char* const f = "retrieval::direct_au";
  const auto refused = [&](const Wide& u, const Wide& i, const pare::retrieval::DirectAuOptions& o,
                           const char* argument) {
    refuses_and_leaves_alone([&] { direct_au(u, i, b.by_users, b.by_items, o); }, f, argument,
                             b.by_users, b.by_items);
  };
  refused(b.users, fewer, {}, "items");
  refused(b.users.topRows(1), b.items.topRows(1), {}, "users");
  for (const double bad : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    refused(b.users, b.items, {.gamma = bad}, "gamma");
    refused(b.users, b.items, {.t = bad}, "t");
    Wide items = b.items;
    if (bad == -1)
      items.row(3).setZero();
    else
      items(3, 1) = bad;
    refused(b.users, items, {}, "items");
  }
  Wide small(7, 5);
  refusal([&] { direct_au(b.users, b.items, small, b.by_items); }, f, "user_gradient");
  refusal([&] { direct_au(b.users, b.items, b.by_users, small); }, f, "item_gradient");
  refusal([&] { direct_au(b.users, b.items, b.items, b.by_items); }, f, "user_gradient");
  refusal([&] { direct_au(b.users, b.items, b.by_users, b.users); }, f, "item_gradient");
  refusal([&] { direct_au(b.users, b.items, b.by_users, b.by_users); }, f, "user_gradient");
  // A norm for each row would not fit any memory.
  const double one = 1;
  const pare::TensorView<const double, 2> many{&one, {Index{1} << 60, 1}, {0, 0}};
  refusal([&] { alignment(many, many); }, "retrieval::alignment", "x");
  refuses_and_leaves_alone([&] { direct_au(many, many, b.by_users, b.by_items); }, f, "users",
                           b.by_users, b.by_items);
}

}  // namespace
}  // namespace retrieval_direct_au_test
