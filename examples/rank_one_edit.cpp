// SPDX-License-Identifier: Apache-2.0
// A rank-one edit (ROME): a layer gives one key another value, and changes least for other inputs.
// Prints how far the key's output is from that value, and how much other outputs change beside an
// edit that does not look at the inputs: about 1e-7, and .15.

#include <pare/core/matrix.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/structured/rank_one_edit.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/structured/edited_linear.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  using Matrix = pare::RowMatrix<float>;
  constexpr int in = 64, out = 48;
  const Matrix w = Matrix::Random(out, in);
  Matrix inputs = Matrix::Random(4000, in);  // rows are tokens; later features vary less
  for (int i = 0; i < in; ++i) inputs.col(i) /= float(1 + i);
  pare::factor::Covariance covariance(in);
  covariance.add(inputs);

  const Matrix key = Matrix::Random(1, in), value = Matrix::Random(1, out);
  const pare::factor::InverseMoment inverse(covariance);
  const pare::transformer::EditedLinear layer(pare::transformer::DenseLinear<float>(w),
                                              pare::factor::rome_edits(w, inverse, key, value));
  Matrix y(1, out);
  layer.apply(key, y);
  const float off = (y - value).norm() / value.norm();

  // The same with C = I.
  const pare::factor::InverseMoment identity(Matrix(Matrix::Identity(in, in)));
  const Matrix careful = pare::factor::rank_one_edit(w, inverse, key, value);
  const Matrix plain = pare::factor::rank_one_edit(w, identity, key, value);
  const float change =
      (inputs * (careful - w).transpose()).norm() / (inputs * (plain - w).transpose()).norm();
  std::printf("off by %.2g, others change by %.2f of what they would\n", double(off),
              double(change));
  return off < 1e-4f && change < 0.9f ? 0 : 1;
}
