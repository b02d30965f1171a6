// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of sparse input to projections, products and embeddings: a matrix is taken if and
/// only if it is sound by a second, independent reading, and what is taken gives what the
/// definition gives. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry point; built
/// with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid matrices:
/// `sparse_projection_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/graph/fast_rp.hpp>
#include <pare/linalg/spmm.hpp>
#include <pare/projection/project.hpp>

#include <Eigen/SparseCore>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

using namespace pare::graph;
using namespace pare::linalg;
using namespace pare::projection;
using pare::Index;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <int Order>
using Map = Eigen::Map<const Eigen::SparseMatrix<float, Order, std::int64_t>>;

/// Compressed lines, and an operator for one side of them.
struct Input {
  Index lines = 0, length = 0;
  std::vector<std::int64_t> outer, counts, inner;
  std::vector<float> values;
  SparseProjection r;

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    lines = bytes.number<std::uint8_t>() % 40;
    length = bytes.number<Index>();
    r.input_dim = bytes.number<Index>();
    r.output_dim = bytes.number<std::int8_t>();
    r.density = bytes.number<std::int8_t>() / 8.0;
    outer = bytes.list<std::int64_t>();
    counts = bytes.list<std::int64_t>();
    inner = bytes.list<std::int64_t>();
    for (std::size_t e = 0; e < inner.size(); ++e) values.push_back(bytes.number<std::int8_t>());
    // What a map cannot say the caller must: arrays as long as they are read.
    outer.resize(static_cast<std::size_t>(lines) + 1);
    if (!counts.empty()) counts.resize(static_cast<std::size_t>(lines));
  }

  bool gapless() const { return counts.empty(); }
  std::int64_t end(std::size_t line) const {
    return gapless() ? outer[line + 1] : outer[line] + counts[line];
  }
  template <int Order>
  Map<Order> map(Index rows, Index cols) const {
    return Map<Order>(rows, cols, static_cast<Index>(values.size()), outer.data(), inner.data(),
                      values.data(), gapless() ? nullptr : counts.data());
  }
};

/// Bytes give numbers from -128 to 127 and the ends of the type: sums of two are told in double.
bool is_sound(const Input& in) {
  if (in.length < 0) return false;
  double previous = 0;
  for (std::size_t u = 0; u < static_cast<std::size_t>(in.lines); ++u) {
    const auto begin = static_cast<double>(in.outer[u]);
    const double end = in.gapless() ? static_cast<double>(in.outer[u + 1])
                                    : begin + static_cast<double>(in.counts[u]);
    if (begin < previous || end < begin || end > 1e17) return false;
    previous = end;
    // Where no line is wrong so far, its entries are there or the map lies about its arrays.
    for (auto e = in.outer[u]; e < in.end(u); ++e)
      if (in.inner[static_cast<std::size_t>(e)] < 0 ||
          in.inner[static_cast<std::size_t>(e)] >= in.length)
        return false;
  }
  return true;
}

/// Lengthens the arrays to where sound lines lead.
void make_room(Input& in) {
  std::int64_t last = 0;
  for (std::size_t u = 0; u < static_cast<std::size_t>(in.lines); ++u) {
    for (const std::int64_t n : {in.outer[u], in.gapless() ? in.outer[u + 1] : in.counts[u]})
      if (n < 0 || n > 1000) return;  // refused at this line, before its entries are read
    if (in.outer[u] < last || in.end(u) < in.outer[u]) return;
    last = in.end(u);
    const auto size = std::max(in.inner.size(), static_cast<std::size_t>(last));
    in.inner.resize(size, 0);
    in.values.resize(size, 1.0f);
  }
}

bool is_operator(const SparseProjection& r) {
  return r.input_dim >= 1 && r.output_dim >= 1 && *r.density > 0 && *r.density <= 1;
}

/// True if the call is taken.
template <class Call>
bool takes(const Call& call) {
  try {
    call();
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

/// Values are integers: sums are exact, and only the scale rounds.
void expect_close(const Dense& got, const Dense& wanted, float scale, const char* what) {
  for (Index i = 0; i < got.size(); ++i)
    require(
        std::abs(got.data()[i] - wanted.data()[i]) <=
            4 * std::numeric_limits<float>::epsilon() * std::max(scale, std::abs(wanted.data()[i])),
        what);
}

bool project_lines(const Input& in, bool sound) {
  const auto x = in.map<Eigen::RowMajor>(in.lines, in.length);
  const Index outputs = std::max<Index>(in.r.output_dim, 0);
  Dense y(in.lines, outputs), wanted(in.lines, outputs);
  const bool good = sound && is_operator(in.r) && in.r.input_dim == in.length;
  require(takes([&] { project(x, in.r, y); }) == good, "rows are projected if and only if sound");
  require(takes([&] { project(pare::reference, x, in.r, wanted); }) == good, "so says the other");
  if (good) expect_close(y, wanted, 1, "projected rows are those of the definition");
  return good;
}

void project_columns(const Input& in, bool sound) {
  if (in.length < 0 || in.length > 1000) return;
  const auto x = in.map<Eigen::ColMajor>(in.length, in.lines);
  const Index outputs = std::max<Index>(in.r.output_dim, 0);
  Dense y(in.length, outputs), wanted(in.length, outputs);
  const bool good = sound && is_operator(in.r) && in.r.input_dim == in.lines;
  require(takes([&] { project(x, in.r, y); }) == good, "columns are taken if and only if sound");
  if (!good) return;
  project(pare::reference, x, in.r, wanted);
  expect_close(y, wanted, 1, "projected columns are those of the definition");
}

void multiply(const Input& in, bool sound) {
  if (in.length < 0 || in.length > 1000) return;
  const auto a = in.map<Eigen::RowMajor>(in.lines, in.length);
  const Dense b = Dense::Constant(in.length, 5, 3.0f);
  Dense c(in.lines, 5), wanted(in.lines, 5);
  require(takes([&] { spmm(a, b, c); }) == sound, "products are taken if and only if sound");
  if (!sound) return;
  spmm(pare::reference, a, b, wanted);
  expect_close(c, wanted, 1, "products are those of the definition");
}

void embed(const Input& in, bool sound) {
  if (in.length != in.lines) return;
  const auto a = in.map<Eigen::RowMajor>(in.lines, in.length);
  bool weights = sound;
  for (std::size_t u = 0; sound && u < static_cast<std::size_t>(in.lines); ++u)
    for (auto e = in.outer[u]; e < in.end(u); ++e)
      weights = weights && in.values[static_cast<std::size_t>(e)] >= 0;
  FastRpOptions o;
  o.dim = 6;
  o.weights = {1, 2};
  Dense out(in.lines, 6);
  require(takes([&] { fast_rp(pare::simd, a, out, o); }) == weights,
          "graphs are taken if and only if sound");
  for (Index i = 0; weights && i < out.size(); ++i)
    require(std::isfinite(out.data()[i]), "embeddings are finite");
}

/// True if the rows were projected.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  Input in(bytes);
  make_room(in);
  const bool sound = is_sound(in);
  project_columns(in, sound);
  multiply(in, sound);
  embed(in, sound);
  return project_lines(in, sound);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// A few lines of random entries, with and without gaps, and an operator that fits.
Data valid_matrix(unsigned long long, std::mt19937_64& random) {
  const auto below = [&](std::uint64_t n) { return static_cast<std::uint8_t>(random() % n); };
  const auto lines = static_cast<std::uint8_t>(1 + below(20));
  const auto length = below(2) == 0 ? lines : static_cast<std::uint8_t>(1 + below(60));
  Data bytes{lines, length, length, static_cast<std::uint8_t>(1 + below(100)),
             static_cast<std::uint8_t>(1 + below(8))};
  const bool gaps = below(2) == 0;
  Data outer{0}, counts, inner;
  for (int u = 0; u < lines; ++u) {
    const std::uint8_t count = below(5);
    const auto room = static_cast<std::uint8_t>(count + (gaps ? below(2) : 0));
    for (int e = 0; e < room; ++e) inner.push_back(below(length));
    counts.push_back(count);
    outer.push_back(static_cast<std::uint8_t>(outer.back() + room));
  }
  if (!gaps) counts.clear();
  for (const Data& list : {outer, counts, inner}) {
    bytes.push_back(static_cast<std::uint8_t>(list.size()));
    bytes.insert(bytes.end(), list.begin(), list.end());
  }
  for (std::size_t e = 0; e < inner.size(); ++e) bytes.push_back(below(9));
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("sparse_projection_fuzz", argc, argv, valid_matrix, try_bytes);
}
#endif
