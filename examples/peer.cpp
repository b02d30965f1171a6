// SPDX-License-Identifier: Apache-2.0
// PEER: for each of 8 rows two heads find 16 of 128^2 experts of one neuron each by product keys.
// The experts are bf16 and lie in one buffer, as in a mapped file. Prints how far a row is from the
// sum over all experts that the search names, in double: below 1e-3 of its size.

#include <pare/routing/memory/peer.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  using namespace pare::routing;
  using Matrix = pare::RowMatrix<float>;
  using pare::Index;
  constexpr Index rows = 8, heads = 2, n = 128, half = 16, dim = 64, slots = n * n, k = 16;
  std::srand(1);
  const Matrix x = Matrix::Random(rows, dim), queries = Matrix::Random(rows, heads * 2 * half),
               keys = Matrix::Random(heads * 2 * n, half), all = Matrix::Random(2 * slots, dim);
  std::vector<pare::bf16> file;
  for (Index i = 0; i < all.size(); ++i) file.push_back(pare::bf16(all.data()[i]));
  const PeerExperts<pare::bf16> experts{{file.data(), {slots, dim}, {dim, 1}},
                                        {file.data() + slots * dim, {slots, dim}, {dim, 1}}};
  const pare::TensorView<const float, 3> q{
      queries.data(), {rows, heads, 2 * half}, {heads * 2 * half, 2 * half, 1}};
  const pare::TensorView<const float, 4> t{
      keys.data(), {heads, 2, n, half}, {2 * n * half, n * half, half, 1}};

  Matrix y(rows, dim);
  pare::Workspace workspace;  // a second call allocates nothing
  peer(pare::simd.with(workspace), x, q, t, experts, y, pare::transformer::Gelu{}, {.k = k});

  const MemoryHits<float> hits = search_product_keys(q, t, k);
  const Index r = rows - 1;
  Eigen::RowVectorXd wanted = Eigen::RowVectorXd::Zero(dim);
  for (Index h = 0; h < heads; ++h) {
    const auto score = [&](Index j) { return double(hits.scores(r, h * k + j)); };
    double sum = 0;
    for (Index j = 0; j < k; ++j) sum += std::exp(score(j) - score(0));
    for (Index j = 0; j < k; ++j) {
      const Index slot = hits.ids(r, h * k + j);
      double dot = 0;
      for (Index c = 0; c < dim; ++c) dot += double(float(experts.down(slot, c))) * double(x(r, c));
      const double neuron = dot / 2 * (1 + std::erf(dot / std::sqrt(2.0)));
      for (Index c = 0; c < dim; ++c)
        wanted[c] +=
            std::exp(score(j) - score(0)) / sum * neuron * double(float(experts.up(slot, c)));
    }
  }
  const double error = (y.row(r).cast<double>() - wanted).norm() / wanted.norm();
  std::printf("error of a row: %.1e\n", error);
  return error < 1e-3 ? 0 : 1;
}
