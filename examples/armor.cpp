// SPDX-License-Identifier: Apache-2.0
// ARMOR: a 2:4 matrix between two block-diagonal ones. Prints the proxy loss after each sweep,
// which starts at that of NoWag-P and never rises, its end recomputed from the product, and how far
// a layer that runs on the three matrices is from that product: below 1e-5.

#include <pare/factor/structured/armor.hpp>
#include <pare/transformer/structured/wrapped_linear.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>
#include <cstdlib>

int main() {
  std::srand(1);
  using Rows = pare::RowMatrix<float>;
  const Rows w = Rows::Random(128, 192);
  Eigen::VectorXd h(192);
  for (Eigen::Index j = 0; j < h.size(); ++j) h[j] = std::exp2(static_cast<double>(j % 9));

  const auto f = pare::factor::armor(w, h, {.block = 32, .sweeps = 4});
  bool falls = true;
  for (std::size_t i = 1; i < f.loss_history.size(); ++i)
    falls = falls && f.loss_history[i] <= f.loss_history[i - 1];
  for (std::size_t i = 0; i < f.loss_history.size(); i += 3)
    std::printf("after %zu sweeps: proxy loss %.4f\n", i / 3, f.loss_history[i]);
  const Rows product = f.product();
  const double again = pare::factor::proxy_loss(w, pare::factor::SecondMoments(h), product);
  std::printf("of the product: %.4f; %td bytes, %td of the dense weight\n", again, f.bytes(),
              w.size() * pare::Index{sizeof(float)});

  const auto layer = pare::transformer::armor_linear<float>(f);
  const Rows x = Rows::Random(3, 192);
  Rows y(3, 128);
  layer.apply(x, y);
  const Rows wanted = x * product.transpose();
  const float off = (y - wanted).norm() / wanted.norm();
  std::printf("the layer is off by %.1e\n", static_cast<double>(off));
  const double last = f.loss_history.back();
  return falls && std::abs(again - last) < 1e-4 && off < 1e-5f ? 0 : 1;
}
