// SPDX-License-Identifier: Apache-2.0
#include <pare/attention/attend.hpp>
#include <pare/attention/permuted.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

int main() {
  Eigen::Tensor<float, 4, Eigen::RowMajor> q(1, 2, 100, 64), k(1, 2, 100, 64), v(1, 2, 100, 64),
      out(1, 2, 100, 64);
  q.setZero(), k.setZero(), v.setZero();
  pare::attention::attend(q, k, v, out, pare::attention::Permuted{});
}
