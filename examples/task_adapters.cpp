// SPDX-License-Identifier: Apache-2.0
// Multi-head adapter routing: four adapters of two splits merged by the weights of a task, added to
// a weight and taken away again. Prints how far the weight is from where it was: below 1e-6.

#include <pare/routing/adapters.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  using namespace pare::routing;
  using Matrix = pare::RowMatrix<float>;
  constexpr pare::Index experts = 4, splits = 2, rank = 8, in = 64, out = 48;
  std::srand(1);
  const Matrix a = Matrix::Random(experts * in, rank) * 0.1f;
  const Matrix b = Matrix::Random(experts * rank, out) * 0.1f;
  AdapterBank<float> bank;
  bank.a = {
      a.data(), {experts, splits, in / splits, rank}, {in * rank, in / splits * rank, rank, 1}};
  bank.b = {b.data(), {experts, rank, splits, out / splits}, {rank * out, out, out / splits, 1}};

  const Matrix logits = Matrix::Random(splits, experts);  // of one task
  const auto adapter = merge_adapters(bank, task_weights(logits), {.alpha = 16});
  Matrix weight = Matrix::Random(out, in);
  const Matrix before = weight;
  add_adapter(adapter, weight);
  const float change = (weight - before).norm();
  subtract_adapter(adapter, weight);
  const float left = (weight - before).cwiseAbs().maxCoeff();
  std::printf("changed by %.3f, left %.1e\n", double(change), double(left));
  return change > 0.1f && left < 1e-6f ? 0 : 1;
}
