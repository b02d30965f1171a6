// SPDX-License-Identifier: Apache-2.0
// Sampled softmax: 64 users of 8 kinds learn which of 2,048 items are of their kind, against 256
// items that are drawn anew for each step. 300 steps of plain gradient descent. Prints the loss
// before and after on new items, and how near that is to the loss against all items.

#include <pare/core/matrix.hpp>
#include <pare/retrieval/objectives/proposal.hpp>
#include <pare/retrieval/objectives/sampled_softmax.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main() {
  using namespace pare::retrieval;
  using Matrix = pare::RowMatrix<float>;
  std::srand(1);
  constexpr int rows = 64, kinds = 8, all = 2048, dim = 16, steps = 300;
  Matrix users = 0.1f * Matrix::Random(rows, dim), items = 0.1f * Matrix::Random(all, dim);
  Matrix by_users(rows, dim), by_items(all, dim);

  const auto proposal = Proposal::uniform(all);
  std::vector<pare::Index> positives(rows), negatives(256), every(all);
  const auto draw = [&](int step) {
    for (std::size_t i = 0; i < rows; ++i)  // an item of the user's kind
      positives[i] = static_cast<int>(i) % kinds + kinds * (std::rand() % (all / kinds));
    proposal.draw(negatives, {.seed = 1, .step = static_cast<std::uint64_t>(step)});
  };
  const SampledItems sampled{positives, negatives, proposal.log_probabilities(), {}};
  double first = 0;
  for (int step = 0; step < steps; ++step) {
    draw(step);
    const double loss = sampled_softmax_gradient(users, items, sampled, by_users, by_items);
    if (step == 0) first = loss;
    users -= 20.0f * by_users;
    items -= 20.0f * by_items;
  }

  draw(steps);
  for (std::size_t i = 0; i < every.size(); ++i) every[i] = static_cast<pare::Index>(i);
  const double last = sampled_softmax(users, items, sampled);
  const double full = sampled_softmax(users, items, {.positives = positives, .negatives = every});
  // 256 items of a kind, of which none can be told from the others: ln 256 is the least.
  std::printf("loss %.2f -> %.2f; against all items %.2f (at best %.2f)\n", first, last, full,
              std::log(256.0));
  return last < first - 1 && std::abs(last - full) < 0.2 ? 0 : 1;
}
