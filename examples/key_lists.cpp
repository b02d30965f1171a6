// SPDX-License-Identifier: Apache-2.0
// Key lists: each query attends to the keys that it lists. Product quantisation (SPT) finds them:
// the eighth of the keys whose codes agree most with the query's. Prints the share of pairs, the
// error against exact attention, below .15 here, and the bytes of the lists against a dense map of
// scores; a list of all keys gives exact attention.

#include <pare/attention/attend.hpp>
#include <pare/attention/attend_key_lists.hpp>
#include <pare/attention/product_keys.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <cstdio>
#include <random>

using pare::Index;
using namespace pare::attention;
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [batch, heads, tokens, dim]

double relative_error(const Tensor& x, const Tensor& wanted) {
  const Eigen::Map<const Eigen::VectorXf> a(x.data(), x.size()), b(wanted.data(), wanted.size());
  return double((a - b).norm() / b.norm());
}

int main() {
  constexpr Index heads = 2, tokens = 1024, dim = 64;
  std::mt19937 bits(11);
  std::normal_distribution<float> normal;
  Tensor q(1, heads, tokens, dim), k(1, heads, tokens, dim), v(1, heads, tokens, dim);
  Tensor exact(1, heads, tokens, dim), out(1, heads, tokens, dim);
  // Tokens of 16 topics, in no order; a query looks for keys of its own.
  const Eigen::MatrixXf topics = 1.4f * Eigen::MatrixXf::Random(16, dim);
  for (Index h = 0; h < heads; ++h)
    for (Index t = 0; t < tokens; ++t) {
      const auto topic = Index(bits() % 16);
      for (Index c = 0; c < dim; ++c) {
        q(0, h, t, c) = topics(topic, c) + 0.3f * normal(bits);
        k(0, h, t, c) = topics(topic, c) + 0.3f * normal(bits);
        v(0, h, t, c) = normal(bits);
      }
    }

  attend(q, k, v, exact, {.causal = true});
  const auto book = train_codebook(q, k);
  const ProductCodes q_codes = encode(q, book), k_codes = encode(k, book);
  KeyLists lists;
  select_keys(q_codes, k_codes, {.keys = tokens / 8}, lists);
  const AttendStats stats = attend(q, k, v, out, lists, {.causal = true});
  const double error = relative_error(out, exact);
  const ProductKeyBytes bytes = product_key_bytes(book, q_codes, k_codes, lists);

  const KeyLists all = select_keys(q, k, book, {.keys = tokens});
  attend(q, k, v, out, all);
  const double rounding = relative_error(out, exact);
  std::printf("density %.3f, error %.4f; lists %.2f MiB of a map of %.2f; all keys: %.0e\n",
              stats.density, error, double(bytes.lists) / (1 << 20),
              double(bytes.dense_map) / (1 << 20), rounding);
  return error < 0.15 && rounding < 1e-5 ? 0 : 1;
}
