// SPDX-License-Identifier: Apache-2.0
// One binary for every x86-64 machine (or AArch64 one): compiled for the baseline, it carries the
// kernels of each instruction set and picks the best that the processor has.
//
//   ./dispatch                           what was picked, and what that gains over the baseline
//   PARE_SIMD_LEVEL=avx2 ./dispatch      nothing above AVX2

#include <pare/dispatch.hpp>
#include <pare/pare.hpp>

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>

namespace {

using RowMajorMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The best of five runs, in milliseconds.
template <class F>
double milliseconds(const F& f) {
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count());
  }
  return best;
}

int run() {
  const pare::projection::SparseProjection omega{.input_dim = 4096, .output_dim = 512, .seed = 7};
  const RowMajorMatrix x = RowMajorMatrix::Random(2048, omega.input_dim);
  RowMajorMatrix picked(x.rows(), omega.output_dim), baseline(x.rows(), omega.output_dim);
  pare::Workspace workspace;

  const double fast = milliseconds(
      [&] { pare::projection::project(pare::dispatched.with(workspace), x, omega, picked); });
  const double plain = milliseconds(
      [&] { pare::projection::project(pare::simd.with(workspace), x, omega, baseline); });

  std::printf("compiled for %s, dispatched to %s\n", pare::arch::best::name,
              pare::dispatched_arch());
  std::printf("projection of 2048 x 4096 floats to 512: %.2f ms, baseline %.2f ms\n", fast, plain);
  std::printf("largest difference between the two: %g\n",
              static_cast<double>((picked - baseline).cwiseAbs().maxCoeff()));
  return (picked - baseline).cwiseAbs().maxCoeff() == 0.0f ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dispatch: %s\n", error.what());
    return 2;
  }
}
