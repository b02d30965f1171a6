// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// OpenBLAS, opened while the suite runs: the suite builds and runs where it is not installed.

#include <string>

namespace pare::bench {

/// The functions of OpenBLAS and its LAPACK that a peer calls. Products run on one thread a call: a
/// peer that uses several calls them from several. Decompositions take the threads they are given.
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

  /// y [m] = a [m, n] x [n], a by rows (gemv).
  void multiply_vector(int m, int n, const float* a, int lda, const float* x, float* y) const;

  /// Singular values and thin singular vectors of a [m, n], by columns, which is lost (gesdd).
  void decompose(int m, int n, float* a, int threads) const;

  /// The k largest eigenvalues and their vectors of a a^T [n, n], a being [n, m] by rows: ssyrk and
  /// ssyevr; then vectors^T a. The strongest plain recipe for a truncated decomposition.
  void gram_decompose(int n, int m, int k, const float* a, int threads) const;

  /// Version and kernels as the library describes itself.
  const std::string& description() const { return description_; }

 private:
  using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                         const float* a, int lda, const float* b, int ldb, float beta, float* c,
                         int ldc);

  using Sgemv = void (*)(int order, int trans, int m, int n, float alpha, const float* a, int lda,
                         const float* x, int step_x, float beta, float* y, int step_y);
  using Ssyrk = void (*)(int order, int half, int trans, int n, int k, float alpha, const float* a,
                         int lda, float beta, float* c, int ldc);
  using Sgesdd = void (*)(const char* job, const int* m, const int* n, float* a, const int* lda,
                          float* s, float* u, const int* ldu, float* vt, const int* ldvt,
                          float* work, const int* work_size, int* integers, int* info);
  using Ssyevr = void (*)(const char* job, const char* range, const char* half, const int* n,
                          float* a, const int* lda, const float* low, const float* high,
                          const int* first, const int* last, const float* tolerance, int* found,
                          float* values, float* vectors, const int* ldz, int* support, float* work,
                          const int* work_size, int* integers, const int* integers_size, int* info);

  OpenBlas() = default;
  static OpenBlas open();

  Sgemm sgemm_ = nullptr;
  Sgemv sgemv_ = nullptr;
  Ssyrk ssyrk_ = nullptr;
  Sgesdd sgesdd_ = nullptr;
  Ssyevr ssyevr_ = nullptr;
  void (*set_threads_)(int) = nullptr;
  std::string description_;
};

}  // namespace pare::bench
