// SPDX-License-Identifier: Apache-2.0
// A layer pruned to two of each four inputs by four methods. Prints how much of the outputs each
// loses, tr(D C D^T) / tr(W C W^T) for D = W - What: magnitude most, SparseGPT least. And the loss
// that NoWag-P makes as small as any choice of entries can, which is its own.

#include <pare/factor/structured/normalized_weight.hpp>
#include <pare/factor/structured/select_two_four.hpp>
#include <pare/factor/structured/sparse_gpt.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>
#include <cstdlib>

using namespace pare::factor;

namespace {

/// Inputs in which a few features are large and half of the dimensions are shared.
Eigen::MatrixXf activations(Eigen::Index tokens, Eigen::Index in) {
  Eigen::MatrixXf x = Eigen::MatrixXf::Random(tokens, in / 2) * Eigen::MatrixXf::Random(in / 2, in);
  for (Eigen::Index j = 0; j < in; ++j) x.col(j) *= std::exp2(static_cast<float>(j % 7) - 3);
  return x + 0.1f * Eigen::MatrixXf::Random(tokens, in);
}

}  // namespace

int main() {
  std::srand(1);
  const Eigen::Index out = 96, in = 128;
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(out, in);
  Covariance covariance(in);
  covariance.add(activations(1000, in));
  const Eigen::MatrixXd c = covariance.matrix();
  const SecondMoments h(covariance);

  const auto energy = [&](const Eigen::MatrixXd& d) { return (d * c).cwiseProduct(d).sum(); };
  struct Loss {
    double outputs, proxy;
  };
  const auto judge = [&](const char* name, const auto& core) {
    Eigen::MatrixXf dense(out, in);
    core.to_dense(dense);
    const Loss loss{energy((w - dense).cast<double>()) / energy(w.cast<double>()),
                    proxy_loss(w, h, dense)};
    std::printf("%-10s %.4f of the outputs' energy lost, proxy loss %.4f, %td bytes\n", name,
                loss.outputs, loss.proxy, core.bytes());
    return loss;
  };
  const Loss magnitude = judge("magnitude", two_four(w, Magnitude{}));
  const Loss wanda = judge("Wanda", two_four(w, Wanda(h)));
  const Loss nowag = judge("NoWag-P", two_four(w, NowagP(h)));
  const Loss gpt = judge("SparseGPT", sparse_gpt(w, covariance));

  const bool right = gpt.outputs < wanda.outputs && wanda.outputs < magnitude.outputs &&
                     nowag.proxy <= wanda.proxy && nowag.proxy <= magnitude.proxy;
  return right ? 0 : 1;
}
