// SPDX-License-Identifier: Apache-2.0
// The block of UltraMemV2: 64^2 slots by Tucker keys of rank 2, whose values in bf16 are weighed by
// two cores and by a product with the row. Two layers share the table, the second one with an
// offset. Prints by how much their outputs differ: they read other rows.

#include <pare/routing/memory/ultra_memory_block.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  using namespace pare::routing;
  using Matrix = pare::RowMatrix<float>;
  using pare::Index;
  using Linear = pare::transformer::DenseLinear<float>;
  constexpr Index rows = 16, inputs = 96, n = 64, half = 24, pre = 24, dim = 48, slots = n * n;
  std::srand(1);
  const Matrix x = Matrix::Random(rows, inputs), keys = Matrix::Random(2 * n, half * 2);
  const Matrix w_query = Matrix::Random(2 * half, inputs), w_pre = Matrix::Random(pre, inputs),
               w_value = Matrix::Random(inputs, dim), table = Matrix::Random(slots, pre + dim);
  std::vector<pare::bf16> file;  // a pre-value and a value in a row
  for (Index i = 0; i < table.size(); ++i) file.push_back(pare::bf16(table.data()[i]));
  const pare::TensorView<const pare::bf16, 2> pre_values{file.data(), {slots, pre}, {pre + dim, 1}};
  const pare::TensorView<const pare::bf16, 2> values{
      file.data() + pre, {slots, dim}, {pre + dim, 1}};

  // Two cores, and the top singular vectors of their sum as a model stores them.
  const float cores[] = {1.0f, 0.2f, -0.1f, 0.5f, 0.3f, 0.0f, 0.2f, 0.4f};
  const float u[] = {0.97f, 0.24f}, v[] = {0.98f, 0.2f};
  const TuckerKeys<float> tucker{
      {keys.data(), {1, 2, n, half, 2}, {4 * n * half, 2 * n * half, 2 * half, 2, 1}},
      {cores, {2, 2, 2}, {4, 2, 1}},
      {u, {2}, {1}},
      {v, {2}, {1}}};
  const Linear query(w_query), before(w_pre), after(w_value);
  const std::vector<float> gain(half, std::pow(float(half), -0.4f)), bias(half, 0.0f);
  const UltraMemoryLayers<Linear> layers{
      query, before, after, {gain.data(), {half}, {1}}, {bias.data(), {half}, {1}}};

  Matrix first(rows, inputs), second(rows, inputs);
  const UltraMemory<pare::bf16> memory(tucker, pre_values, values, {.k = 16});
  const UltraMemory<pare::bf16> later(tucker, pre_values, values, {.k = 16, .offset = slots / 2});
  ultra_memory(x, layers, memory, first);
  ultra_memory(x, layers, later, second);
  const float difference = (first - second).norm() / first.norm();
  std::printf("difference between the layers: %.2f\n", double(difference));
  return first.allFinite() && difference > 0.5f ? 0 : 1;
}
