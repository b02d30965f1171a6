// SPDX-License-Identifier: Apache-2.0
// 2:4 sparse layers: of each four weights the two largest are kept, stored in bf16 and in 8 bits.
// Prints the share of the weight's energy that is kept, 4/5 for uniform weights, and how far the
// layers are from the dense product of what is kept: below 1 % each.

#include <pare/factor/structured/two_four.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/structured/two_four_linear.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <utility>

using pare::factor::TwoFour;
using pare::factor::TwoFourMask;
using namespace pare::transformer;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The two of each four that are largest by magnitude.
TwoFourMask largest(const Rows& w) {
  Eigen::Matrix<bool, Eigen::Dynamic, Eigen::Dynamic> kept(w.rows(), w.cols());
  for (Eigen::Index o = 0; o < w.rows(); ++o)
    for (Eigen::Index i = 0; i < w.cols(); ++i) {
      int larger = 0;  // of the others in the group; of equal ones the first is kept
      for (Eigen::Index k = i / 4 * 4; k < i / 4 * 4 + 4; ++k)
        larger += std::abs(w(o, k)) > std::abs(w(o, i)) ||
                  (k < i && std::abs(w(o, k)) == std::abs(w(o, i)));
      kept(o, i) = larger < 2;
    }
  return TwoFourMask::of_kept(kept);
}

/// ||y - wanted|| / ||wanted|| of a layer, for whatever models `Linear`.
template <Linear L>
float error_of(const L& layer, const Rows& x, const Rows& wanted) {
  Rows y(x.rows(), layer.outputs());
  layer.apply(pare::simd.threads(2), x, y);
  return (y - wanted).norm() / wanted.norm();
}

int main() {
  const Rows w = Rows::Random(512, 768), x = Rows::Random(3, 768);
  const TwoFourMask mask = largest(w);
  auto halves = TwoFour<pare::bf16>::from(w, mask);
  auto bytes = TwoFour<std::int8_t>::from(w, mask);

  Rows kept(w.rows(), w.cols());
  TwoFour<float>::from(w, mask).to_dense(kept);
  const double dense_bytes = 2.0 * static_cast<double>(w.size());
  std::printf("bytes of a dense bf16 weight: %.3f of bf16, %.3f of 8 bits\n",
              static_cast<double>(halves.bytes()) / dense_bytes,
              static_cast<double>(bytes.bytes()) / dense_bytes);

  const Rows wanted = x * kept.transpose();
  const float energy = kept.squaredNorm() / w.squaredNorm();
  const float of_halves = error_of(TwoFourLinear<pare::bf16>(std::move(halves)), x, wanted);
  const float of_bytes = error_of(TwoFourLinear<std::int8_t>(std::move(bytes)), x, wanted);
  std::printf("kept energy %.3f, off by %.2g (bf16) and %.2g (8 bits)\n", double(energy),
              double(of_halves), double(of_bytes));
  return std::abs(energy - 0.8f) < 0.01f && of_halves < 0.01f && of_bytes < 0.01f ? 0 : 1;
}
