// SPDX-License-Identifier: Apache-2.0
// Pruning of attention heads: counts which head of a layer adds most to how many tokens, keeps the
// 3 of 8 that are used most, and runs the layer that is left: 3 query heads on 2 of the 4 key/value
// heads. Prints how much of the weights is left, and how far the output is from the whole layer's.

#include <pare/attention/attend.hpp>
#include <pare/attention/heads/compact_heads.hpp>
#include <pare/attention/heads/head_contributions.hpp>
#include <pare/attention/heads/head_usage.hpp>

#include <cstdio>
#include <cstdlib>
#include <vector>

using namespace pare::attention;
using Matrix = pare::RowMatrix<float>;
using pare::Index;

constexpr Index heads = 8, kv_heads = 4, dim = 16, width = 96;

/// Some heads of a matrix [tokens x heads dim], as `attend` takes them.
pare::TensorView<float, 4> part(Matrix& m, Index head, Index count) {
  return {m.data() + head * dim, {1, count, m.rows(), dim}, {0, dim, m.cols(), 1}};
}

/// What the heads attend to, [tokens x heads dim].
Matrix attended(const Matrix& x, const Matrix& wq, const Matrix& wk, const Matrix& wv,
                const std::vector<HeadRun>& runs) {
  Matrix q = x * wq.transpose(), k = x * wk.transpose(), v = x * wv.transpose();
  Matrix out(x.rows(), q.cols());
  for (const HeadRun& run : runs)  // groups of equal size
    attend(part(q, run.head, run.heads), part(k, run.kv_head, run.kv_heads),
           part(v, run.kv_head, run.kv_heads), part(out, run.head, run.heads), {.causal = true});
  return out;
}

int main() {
  std::srand(5);
  const Matrix x = Matrix::Random(200, width), wq = Matrix::Random(heads * dim, width),
               wk = Matrix::Random(kv_heads * dim, width),
               wv = Matrix::Random(kv_heads * dim, width);
  Matrix wo = Matrix::Random(width, heads * dim);
  for (const Index unused : {0, 1, 3, 6, 7}) wo.middleCols(unused * dim, dim) *= 0.02f;

  const Matrix o = attended(x, wq, wk, wv, {{0, heads, 0, kv_heads}});
  Matrix lengths(x.rows(), heads);
  head_contributions(o, wo, lengths);
  HeadUsage usage(heads);
  usage.add(lengths);
  const std::vector<Index> kept = select_heads(usage.counts(), {.count = 3});

  const auto small = compact_heads(wq, wk, wv, wo, {heads, kv_heads}, kept);
  const Matrix y = attended(x, small.wq, small.wk, small.wv, small.runs()) * small.wo.transpose();
  const Matrix whole = o * wo.transpose();
  const double error = double((y - whole).norm() / whole.norm());
  const Index all = wq.size() + wk.size() + wv.size() + wo.size();
  std::printf(
      "kept heads %td, %td and %td on %zu key/value heads, %.0f %% of the weights, error "
      "%.3f\n",
      kept[0], kept[1], kept[2], small.kv_heads.size(),
      100.0 * double(small.parameters()) / double(all), error);
  return error < 0.05 && small.kv_heads.size() == 2 ? 0 : 1;
}
