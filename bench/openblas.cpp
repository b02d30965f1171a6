// SPDX-License-Identifier: Apache-2.0
#include "openblas.hpp"

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include <dlfcn.h>

namespace pare::bench {
namespace {

// Values of the enumerations of the C interface to the BLAS.
constexpr int row_major = 101;
constexpr int as_it_is = 111;
constexpr int transposed = 112;
constexpr int lower = 122;

template <class Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(what);
}

std::vector<float> floats(int rows, int columns) {
  return std::vector<float>(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns));
}

}  // namespace

OpenBlas OpenBlas::open() {
  // Read by the library while it loads: threads it would start for itself are never used here.
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  OpenBlas blas;
  void* library = nullptr;
  for (const char* name : {"libopenblas.so.0", "libopenblas.so"})
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return blas;
  const auto set_threads = symbol<void (*)(int)>(library, "openblas_set_num_threads");
  const auto describe = symbol<const char* (*)()>(library, "openblas_get_config");
  if (set_threads == nullptr || describe == nullptr) return blas;
  set_threads(1);
  blas.description_ = describe();
  blas.set_threads_ = set_threads;
  blas.sgemv_ = symbol<Sgemv>(library, "cblas_sgemv");
  blas.ssyrk_ = symbol<Ssyrk>(library, "cblas_ssyrk");
  blas.sgesdd_ = symbol<Sgesdd>(library, "sgesdd_");
  blas.ssyevr_ = symbol<Ssyevr>(library, "ssyevr_");
  blas.sgemm_ = symbol<Sgemm>(library, "cblas_sgemm");
  return blas;
}

const OpenBlas* OpenBlas::installed() {
  static const OpenBlas blas = [] {
    OpenBlas opened = open();
    if (opened.sgemm_ != nullptr)
      std::fprintf(stderr, "peer %s\n", opened.description_.c_str());
    else
      std::fprintf(stderr, "peer OpenBLAS: left out, libopenblas.so.0 is missing\n");
    return opened;
  }();
  return blas.sgemm_ != nullptr ? &blas : nullptr;
}

void OpenBlas::multiply(int m, int n, int k, float alpha, const float* a, int lda, const float* b,
                        int ldb, float beta, float* c, int ldc) const {
  sgemm_(row_major, as_it_is, as_it_is, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void OpenBlas::multiply_transposed(int m, int n, int k, float alpha, const float* a, int lda,
                                   const float* b, int ldb, float beta, float* c, int ldc) const {
  sgemm_(row_major, as_it_is, transposed, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void OpenBlas::multiply_vector(int m, int n, const float* a, int lda, const float* x,
                               float* y) const {
  require(sgemv_ != nullptr, "OpenBLAS without sgemv");
  sgemv_(row_major, as_it_is, m, n, 1, a, lda, x, 1, 0, y, 1);
}

void OpenBlas::decompose(int m, int n, float* a, int threads) const {
  require(sgesdd_ != nullptr, "OpenBLAS comes without LAPACK");
  const int small = m < n ? m : n;
  std::vector<float> s(static_cast<std::size_t>(small)), u = floats(m, small),
                                                         vt = floats(small, n);
  std::vector<int> integers(8 * static_cast<std::size_t>(small));
  set_threads_(threads);
  float wanted = 0;
  int query = -1, info = 0;
  sgesdd_("S", &m, &n, a, &m, s.data(), u.data(), &m, vt.data(), &small, &wanted, &query,
          integers.data(), &info);
  // The size comes as a float, which may have been rounded down.
  const int size = static_cast<int>(wanted * 1.001f) + 64;
  std::vector<float> work(static_cast<std::size_t>(size));
  sgesdd_("S", &m, &n, a, &m, s.data(), u.data(), &m, vt.data(), &small, work.data(), &size,
          integers.data(), &info);
  set_threads_(1);
  require(info == 0, "sgesdd failed");
}

void OpenBlas::gram_decompose(int n, int m, int k, const float* a, int threads) const {
  require(ssyrk_ != nullptr && ssyevr_ != nullptr, "OpenBLAS comes without LAPACK");
  set_threads_(threads);
  std::vector<float> gram = floats(n, n), vectors = floats(k, n), right = floats(k, m);
  std::vector<float> values(static_cast<std::size_t>(n));
  std::vector<int> support(2 * static_cast<std::size_t>(k));
  ssyrk_(row_major, lower, as_it_is, n, m, 1.0f, a, m, 0.0f, gram.data(), n);
  const int first = n - k + 1, size = 64 * n, integers_size = 16 * n;
  std::vector<float> work(static_cast<std::size_t>(size));
  std::vector<int> integers(static_cast<std::size_t>(integers_size));
  const float tolerance = 0;
  int found = 0, info = 0;
  // The lower half by rows is the upper half by columns.
  ssyevr_("V", "I", "U", &n, gram.data(), &n, nullptr, nullptr, &first, &n, &tolerance, &found,
          values.data(), vectors.data(), &n, support.data(), work.data(), &size, integers.data(),
          &integers_size, &info);
  sgemm_(row_major, as_it_is, as_it_is, k, m, n, 1.0f, vectors.data(), n, a, m, 0.0f, right.data(),
         m);
  set_threads_(1);
  require(info == 0 && found == k, "ssyevr failed");
}

}  // namespace pare::bench
