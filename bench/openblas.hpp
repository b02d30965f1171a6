// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// OpenBLAS, opened while the suite runs: the suite builds and runs where it is not installed.

#include <string>

namespace pare::bench {

/// The functions of OpenBLAS that a peer calls, set to one thread a call: a peer that uses several
/// calls it from several.
class OpenBlas {
 public:
  /// The installed library, opened at the first call; null, and said on stderr, where there is
  /// none.
  static const OpenBlas* installed();

  /// c [m, n] = alpha a [m, k] b [k, n] + beta c, all by rows.
  void multiply(int m, int n, int k, float alpha, const float* a, int lda, const float* b, int ldb,
                float beta, float* c, int ldc) const;

  /// c [m, n] = alpha a [m, k] b [n, k]^T + beta c, all by rows.
  void multiply_transposed(int m, int n, int k, float alpha, const float* a, int lda,
                           const float* b, int ldb, float beta, float* c, int ldc) const;

  /// Version and kernels as the library describes itself.
  const std::string& description() const { return description_; }

 private:
  using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                         const float* a, int lda, const float* b, int ldb, float beta, float* c,
                         int ldc);

  OpenBlas() = default;
  static OpenBlas open();

  Sgemm sgemm_ = nullptr;
  std::string description_;
};

}  // namespace pare::bench
