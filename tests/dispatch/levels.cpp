// SPDX-License-Identifier: Apache-2.0
// levels <instruction set>: a program with kernels of every instruction set, started with that one
// as PARE_SIMD_LEVEL. It runs on it, or on one below it where the processor has not got it (77:
// skipped), and projects to the bits of the baseline. Caps in words of their own are tested here
// too, where all levels are.
#include <pare/dispatch.hpp>
#include <pare/projection/project.hpp>

#include <Eigen/Core>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

bool fail(const char* what) {
  std::printf("%s\n", what);
  return false;
}

std::vector<std::string> levels() {
  std::vector<std::string> names;
  pare::detail::any_built_arch([&](auto tag) {
    names.emplace_back(tag.name);
    return false;
  });
  return names;
}

/// Best first: the choice under a cap is never better than the cap, nor than without one.
bool caps_are_upper_bounds() {
  const auto names = levels();
  const std::size_t best = pare::detail::choose_arch(nullptr);
  for (std::size_t cap = 0; cap < names.size(); ++cap) {
    const std::size_t chosen = pare::detail::choose_arch(names[cap].c_str());
    if (chosen < cap || chosen < best) return fail("a level above the cap was chosen");
    if (cap >= best && chosen != cap) return fail("a level that runs here was not chosen");
  }
  return true;
}

bool projects_to_the_bits_of_the_baseline() {
  const pare::projection::SparseProjection omega{
      .input_dim = 300, .output_dim = 70, .density = 0.1, .seed = 5};
  const Matrix x = Matrix::Random(45, omega.input_dim);
  Matrix picked(x.rows(), omega.output_dim), baseline(x.rows(), omega.output_dim);
  pare::projection::project(pare::dispatched, x, omega, picked);
  pare::projection::project(pare::simd, x, omega, baseline);
  return (picked.array() == baseline.array()).all() || fail("other bits than the baseline");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fail("levels <instruction set>");
    return 1;
  }
  if (!caps_are_upper_bounds() || !projects_to_the_bits_of_the_baseline()) return 1;
  const std::string level = argv[1], ran = pare::dispatched_arch();
  std::printf("%s ran\n", ran.c_str());
  const std::string wanted = levels()[pare::detail::choose_arch(level.c_str())];
  if (ran != wanted) {
    fail("PARE_SIMD_LEVEL does not hold: another level ran than the best below the cap");
    return 1;
  }
  return wanted == level ? 0 : 77;
}
