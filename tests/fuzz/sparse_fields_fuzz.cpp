// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of fields on sparse storage and their permuted mix: what is taken must be sound,
/// what is refused must be wrong by a second, independent reading, and the mix of what is taken
/// must lose no value. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry point; built
/// with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid batches:
/// `sparse_fields_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/feature/leap/mix_sparse.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using namespace pare::feature;
using pare::Index;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using Rows = std::vector<std::uint32_t>;

struct Input {
  DonorPolicy policy{};
  SparseExchange exchange{};
  Index rows = 0;
  std::vector<Index> widths{}, groups{};
  std::vector<Rows> active{};

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    policy = static_cast<DonorPolicy>(bytes.number<std::uint8_t>() % 4);
    exchange = static_cast<SparseExchange>(bytes.number<std::uint8_t>() % 3);
    rows = bytes.number<Index>();
    widths = bytes.list<Index>();
    groups = bytes.list<Index>();
    for (std::size_t j = 0; j < widths.size(); ++j) active.push_back(bytes.list<std::uint32_t>());
  }
};

/// Sizes are small or as large as can be, nothing between: floating point tells them apart.
bool is_batch(const Input& x) {
  double dim = 0;
  for (const Index width : x.widths) {
    if (width < 1) return false;
    dim += static_cast<double>(width);
  }
  if (x.widths.empty() || dim > 1e18) return false;
  if (!x.groups.empty() && x.groups.size() != x.widths.size()) return false;
  const auto is_id = [&](Index id) { return id >= 0 && id < static_cast<Index>(x.widths.size()); };
  return std::ranges::all_of(x.groups, is_id) && x.rows >= 0 && x.rows < 1000;
}

bool are_rows(const Rows& rows, Index of) {
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (static_cast<Index>(rows[i]) >= of || (i > 0 && rows[i] <= rows[i - 1])) return false;
  return true;
}

/// True for each field that took its rows.
std::vector<bool> fill(const Input& in, SparseFields<float>& x) {
  std::vector<Index> room;
  for (const Rows& rows : in.active)
    room.push_back(std::min(static_cast<Index>(rows.size()), in.rows));
  x.reserve(room);
  std::vector<bool> taken;
  float value = 1;
  for (Index j = 0; j < x.layout().fields(); ++j) {
    const Rows& rows = in.active[static_cast<std::size_t>(j)];
    bool took = true;
    try {
      x.set_rows(j, rows);
    } catch (const std::invalid_argument&) {
      took = false;
    }
    require(took == are_rows(rows, in.rows),
            "rows are taken if and only if they rise in the batch");
    require(x.entries(j) == (took ? static_cast<Index>(rows.size()) : 0),
            "refused rows leave none");
    const auto values = x.values(j);
    for (Index i = 0; i < values.rows() * values.cols(); ++i) values.data[i] = value++;
    taken.push_back(took);
  }
  return taken;
}

std::vector<float> sorted_values(const SparseFields<float>& x, Index j) {
  const auto values = x.values(j);
  std::vector<float> list(values.data, values.data + values.rows() * values.cols());
  std::erase(list, 0.0f);
  std::sort(list.begin(), list.end());
  return list;
}

/// Closed gates move every value somewhere; half-open ones give what the definition gives.
void mix(const Input& in, const SparseFields<float>& x) {
  const Donors donors(in.policy, 3, 4, in.rows, x.layout());
  SparseMix<float> closed, half, defined;
  const std::vector<double> zeros(in.widths.size(), 0.0), halves(in.widths.size(), 0.5);
  mix_forward(x, zeros, donors, closed, in.exchange);
  mix_forward(x, halves, donors, half, in.exchange);
  mix_forward(pare::reference, x, halves, donors, defined, in.exchange);
  require(half.fields().same_pattern(defined.fields()), "rows are those of the definition");
  // Values count up from 1.
  const float rounding = static_cast<float>(1 + x.entries() * x.layout().dim()) *
                         std::numeric_limits<float>::epsilon();
  for (Index j = 0; j < x.layout().fields(); ++j) {
    require(sorted_values(closed.fields(), j) == sorted_values(x, j), "no value is lost");
    const auto got = half.fields().values(j), wanted = defined.fields().values(j);
    for (Index i = 0; i < got.rows() * got.cols(); ++i)
      require(std::abs(got.data[i] - wanted.data[i]) <= 4 * rounding,
              "values are those of the definition");
  }
  SparseFields<float> grad_x;
  MixGradients gradients;
  mix_backward(x, halves, donors, half, half.fields(), grad_x, gradients, {.detach = false});
  require(grad_x.same_pattern(x), "gradients are at the entries");
  for (const double g : gradients.gates) require(std::isfinite(g), "gradients are finite");
}

/// True if the batch and all of its rows were taken.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input in(bytes);
  std::optional<SparseFields<float>> x;
  try {
    x.emplace(FieldLayout(in.widths, in.groups), in.rows);
  } catch (const std::invalid_argument&) {
  }
  require(x.has_value() == is_batch(in), "batches are taken if and only if they are sound");
  if (!x) return false;
  const std::vector<bool> taken = fill(in, *x);
  if (in.rows >= 2) mix(in, *x);
  return std::ranges::all_of(taken, [](bool took) { return took; });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// A batch of a few fields with random rows, as bytes.
Data valid_batch(unsigned long long, std::mt19937_64& random) {
  const auto below = [&](std::uint64_t n) { return static_cast<std::uint8_t>(random() % n); };
  const std::uint8_t fields = static_cast<std::uint8_t>(1 + below(5)), rows = below(40);
  Data bytes{below(4), below(3), rows, fields};
  for (int j = 0; j < fields; ++j) bytes.push_back(static_cast<std::uint8_t>(1 + below(9)));
  const std::uint8_t groups = below(2) == 0 ? fields : std::uint8_t{0};
  bytes.push_back(groups);
  for (int j = 0; j < groups; ++j) bytes.push_back(below(fields));
  for (int j = 0; j < fields; ++j) {
    Data active;
    const std::uint64_t share = 1 + random() % 8;
    for (std::uint8_t b = 0; b < rows; ++b)
      if (random() % 8 < share) active.push_back(b);
    bytes.push_back(static_cast<std::uint8_t>(active.size()));
    bytes.insert(bytes.end(), active.begin(), active.end());
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("sparse_fields_fuzz", argc, argv, valid_batch, try_bytes);
}
#endif
