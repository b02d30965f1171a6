// SPDX-License-Identifier: Apache-2.0
// DirectAU without negative samples: 64 users of 8 kinds like the 64 items of their kind. 200 steps
// of plain gradient descent on all pairs; afterwards the item a user likes most is of the user's
// kind. Prints the share of users for whom that holds, 1.00, and the loss before and after.

#include <pare/core/matrix.hpp>
#include <pare/retrieval/objectives/direct_au.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  using namespace pare::retrieval;
  using Matrix = pare::RowMatrix<float>;
  std::srand(1);
  constexpr int rows = 64, kinds = 8, dim = 16;
  Matrix users = Matrix::Random(rows, dim), items = Matrix::Random(rows, dim);

  double first = 0, last = 0;
  Matrix by_users(rows, dim), by_items(rows, dim), batch(rows, dim);
  for (int step = 0; step < 200; ++step) {
    // User b is paired with another item of its kind in each step.
    const auto item_of = [&](int b) { return (b + kinds * step) % rows; };
    for (int b = 0; b < rows; ++b) batch.row(b) = items.row(item_of(b));
    const DirectAu loss = direct_au(users, batch, by_users, by_items, {.gamma = 1});
    (step == 0 ? first : last) = loss.total;
    users -= 4.0f * by_users;
    for (int b = 0; b < rows; ++b) items.row(item_of(b)) -= 4.0f * by_items.row(b);
  }

  int right = 0;
  const Matrix scores = users * items.rowwise().normalized().transpose();
  for (int u = 0; u < rows; ++u) {
    Eigen::Index best = 0;
    scores.row(u).maxCoeff(&best);
    right += best % kinds == u % kinds ? 1 : 0;
  }
  const double share = static_cast<double>(right) / rows;
  std::printf("loss %.2f -> %.2f, users served by their kind: %.2f\n", first, last, share);
  return share == 1 && last < first ? 0 : 1;
}
