// SPDX-License-Identifier: Apache-2.0
#include "openblas.hpp"

#include <cstdio>
#include <cstdlib>

#include <dlfcn.h>

namespace pare::bench {
namespace {

// Values of the enumerations of the C interface to the BLAS.
constexpr int row_major = 101;
constexpr int as_it_is = 111;
constexpr int transposed = 112;

template <class Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
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

}  // namespace pare::bench
