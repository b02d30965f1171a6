// SPDX-License-Identifier: Apache-2.0
// A thread pool of one's own carries Pare's work. This one starts its threads anew for each call.
// Prints the largest difference to one thread: 0, to the bit, as with every executor.

#include <pare/projection/project.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

struct Pool {
  int threads = 1;

  int concurrency() const { return threads; }
  /// Calls work(0) to work(n - 1), n <= concurrency(), and returns when all are done.
  void run(int n, const std::function<void(int)>& work) const {
    std::vector<std::thread> others;
    for (int i = 1; i < n; ++i) others.emplace_back([&work, i] { work(i); });
    work(0);
    for (std::thread& other : others) other.join();
  }
};

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(200, 1000);
  Eigen::MatrixXf one(200, 64), many(200, 64);
  const pare::projection::SparseProjection omega{.input_dim = 1000, .output_dim = 64, .seed = 7};

  pare::projection::project(pare::simd, x, omega, one);
  pare::projection::project(pare::simd.on(Pool{.threads = 3}), x, omega, many);

  const float difference = (one - many).cwiseAbs().maxCoeff();
  std::printf("largest difference to one thread: %g\n", double(difference));
  return difference == 0 ? 0 : 1;
}
