// SPDX-License-Identifier: Apache-2.0
// Expert attention (SHRP, reconstructed): one of 8 heads answers for each of 40 texts, through an
// expander that all heads share; the head that is used most is then all that is left. Prints how
// many texts it answers for, how much of the weights is left, and how far the layer that is left is
// from the whole one on these texts: below 1e-5.

#include <pare/attention/attend.hpp>
#include <pare/attention/heads/compact_heads.hpp>
#include <pare/attention/heads/head_usage.hpp>
#include <pare/routing/expert_attention.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

using namespace pare::routing;
using Matrix = pare::RowMatrix<float>;
using pare::Index;

constexpr Index num_heads = 8, head_dim = 16, width = 96, texts = 40, text_tokens = 12;

/// What `count` heads attend to within each text, [tokens x count dim].
Matrix attended_by(Index count, const Matrix& x, const Matrix& wq, const Matrix& wk,
                   const Matrix& wv) {
  Matrix q = x * wq.transpose(), k = x * wk.transpose(), v = x * wv.transpose();
  Matrix out(x.rows(), q.cols());
  const auto view = [&](Matrix& m) {
    return pare::TensorView<float, 4>{m.data(),
                                      {texts, count, text_tokens, head_dim},
                                      {text_tokens * m.cols(), head_dim, m.cols(), 1}};
  };
  pare::attention::attend(view(q), view(k), view(v), view(out));
  return out;
}

int main() {
  std::srand(4);
  Matrix x = Matrix::Random(texts * text_tokens, width);
  const Matrix wq = Matrix::Random(num_heads * head_dim, width),
               wk = Matrix::Random(num_heads * head_dim, width),
               wv = Matrix::Random(num_heads * head_dim, width), up = Matrix::Random(48, head_dim),
               down = Matrix::Random(width, 48);
  using Layer = pare::transformer::DenseLinear<float>;
  const FeedForward<Layer, pare::transformer::Gelu> expander{Layer(up), Layer(down)};

  std::vector<Index> offsets;
  for (Index t = 0; t <= texts; ++t) offsets.push_back(t * text_tokens);
  Matrix pooled(texts, width), router = Matrix::Random(num_heads, width);
  pool_sequences(x, offsets, pooled);
  const Matrix logits = pooled * router.transpose();
  const auto routes = route(logits, TopOne{.weight = GateWeight::One});
  Matrix y(x.rows(), width), left(x.rows(), width);
  expert_attention(attended_by(num_heads, x, wq, wk, wv), routes_of_tokens(routes, offsets),
                   expander, y);

  pare::attention::HeadUsage usage(num_heads);
  usage.add(logits);
  const auto kept = pare::attention::select_heads(usage.counts(), {.count = 1});
  const auto of_kept = [&](const Matrix& w) {
    return pare::attention::rows_of_heads(w, kept, head_dim);
  };
  expander.apply(pare::simd,
                 pare::const_view(attended_by(1, x, of_kept(wq), of_kept(wk), of_kept(wv))),
                 pare::to_view(left));
  float off = 0;
  for (Index t = 0; t < texts; ++t)
    if (routes.ids(t, 0) == kept[0])
      off = std::max(off, (y - left).middleRows(offsets[std::size_t(t)], text_tokens).norm() /
                              y.middleRows(offsets[std::size_t(t)], text_tokens).norm());
  const Index shared = up.size() + down.size(), used = usage.counts()[std::size_t(kept[0])];
  std::printf("head %td answers for %td of %td texts; %.0f %% of the weights; off by %.1e\n",
              kept[0], used, texts,
              100.0 * double(3 * wq.size() / num_heads + shared) /
                  double(3 * wq.size() + router.size() + shared),
              double(off));
  return off < 1e-5f && used > texts / num_heads ? 0 : 1;
}
