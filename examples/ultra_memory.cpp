// SPDX-License-Identifier: Apache-2.0
// The block of UltraMemV2: 64^2 slots by Tucker keys of rank 2, whose values in bf16 are weighed by
// two cores and by a product with the row. Two layers share the table, the second one with an
// offset. Prints by how much their outputs differ, since they read other rows, and how far the
// first is from the definition in double, below 1e-4. The second is, bit for bit, what a table
// gives whose rows begin at the offset.

#include <pare/routing/memory/ultra_memory_block.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
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
  std::vector<pare::bf16> turned(file);
  std::rotate(turned.begin(), turned.begin() + file.size() / 2, turned.end());
  const auto pre_values = [](const std::vector<pare::bf16>& memory) {
    return pare::TensorView<const pare::bf16, 2>{memory.data(), {slots, pre}, {pre + dim, 1}};
  };
  const auto values = [](const std::vector<pare::bf16>& memory) {
    return pare::TensorView<const pare::bf16, 2>{memory.data() + pre, {slots, dim}, {pre + dim, 1}};
  };

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

  const auto run = [&](const auto& backend, const std::vector<pare::bf16>& memory, Index offset) {
    Matrix y(rows, inputs);
    const UltraMemory<pare::bf16> block(tucker, pre_values(memory), values(memory),
                                        {.k = 16, .offset = offset});
    ultra_memory(backend, x, layers, block, y);
    return y;
  };
  const Matrix first = run(pare::simd, file, 0), second = run(pare::simd, file, slots / 2);
  const Matrix wanted = run(pare::reference, file, 0), same = run(pare::simd, turned, 0);
  const float difference = (first - second).norm() / first.norm();
  const float error = (first - wanted).norm() / wanted.norm();
  std::printf("difference between the layers: %.2f, error %.1e\n", double(difference),
              double(error));
  return error < 1e-4f && difference > 0.5f && second == same ? 0 : 1;
}
