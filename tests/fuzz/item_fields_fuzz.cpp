// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of item fields: what is taken must be sound and what is refused wrong by a second,
/// independent reading; rows of what is taken are means of the values listed and read nothing else,
/// and lists by value hold what lists by item do. Built with libFuzzer (clang -fsanitize=fuzzer) it
/// is an entry point; built with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of
/// valid fields: `item_fields_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/core/matrix.hpp>
#include <pare/retrieval/items/embedding_bag.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using pare::Index;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using pare::retrieval::ItemFields;
using Matrix = pare::RowMatrix<float>;

struct Input {
  bool single = false;
  Index items = 0, values = 0;
  std::vector<Index> offsets{}, ids{};

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    single = bytes.number<Index>() % 2 != 0;
    items = bytes.number<Index>();
    values = bytes.number<Index>();
    offsets = bytes.list<Index>();
    ids = bytes.list<Index>();
  }
};

/// Whether a field is one, read a second time: place by place.
bool is_field(const Input& x) {
  if (x.items < 0 || x.values < 1 || x.values > 1000) return false;
  for (const Index id : x.ids)
    if (id < 0 || id >= x.values) return false;
  const auto places = static_cast<double>(x.ids.size());
  if (x.single) return places == static_cast<double>(x.items);
  if (static_cast<double>(x.offsets.size()) != static_cast<double>(x.items) + 1) return false;
  Index last = 0;
  for (const Index offset : x.offsets) {
    if (offset < last) return false;
    last = offset;
  }
  return x.offsets.front() == 0 && last == static_cast<Index>(x.ids.size());
}

/// Each value's embedding is its number, in columns that fill no register; the gradient by it
/// counts the items that have it, by their share.
void check_rows(const Input& x, const ItemFields& fields) {
  std::vector<Matrix> tables(1, Matrix(x.values, 3)), by(1, Matrix(x.values, 3));
  for (Index v = 0; v < x.values; ++v) tables[0].row(v).setConstant(static_cast<float>(v));
  Matrix rows = Matrix::Constant(x.items, 3, -1), ones = Matrix::Ones(x.items, 3);
  embedding_bag(fields, tables, rows);
  embedding_bag_gradient(fields, ones, by);
  std::vector<double> counts(static_cast<std::size_t>(x.values), 0);
  for (Index i = 0; i < x.items; ++i) {
    const auto item = static_cast<std::size_t>(i);
    const Index begin = x.single ? i : x.offsets[item],
                end = x.single ? i + 1 : x.offsets[item + 1];
    double sum = 0;
    for (Index p = begin; p < end; ++p) {
      const Index id = x.ids[static_cast<std::size_t>(p)];
      sum += static_cast<double>(id);
      counts[static_cast<std::size_t>(id)] += 1 / static_cast<double>(end - begin);
    }
    const double wanted = end > begin ? sum / static_cast<double>(end - begin) : 0;
    for (Index c = 0; c < 3; ++c)
      require(std::abs(static_cast<double>(rows(i, c)) - wanted) < 1e-3, "a row is the mean");
  }
  for (Index v = 0; v < x.values; ++v)
    require(std::abs(static_cast<double>(by[0](v, 2)) - counts[static_cast<std::size_t>(v)]) < 1e-3,
            "a value has the gradient of its items");
}

/// True if the field was taken.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input x(bytes);
  bool taken = false;
  try {
    ItemFields fields(x.items);
    if (x.single)
      fields.add(x.values, x.ids);
    else
      fields.add(x.values, x.ids, x.offsets);
    taken = true;
    if (is_field(x)) check_rows(x, fields);
  } catch (const std::invalid_argument&) {
    require(!taken, "what was taken has rows");
  }
  require(taken == is_field(x), "a field is taken if and only if it is sound");
  return taken;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// A field of random values, as bytes.
Data valid_field(unsigned long long run, std::mt19937_64& random) {
  const auto below = [&](Index n) { return static_cast<Index>(random() % std::uint64_t(n)); };
  const auto byte_of = [](Index value) { return static_cast<std::uint8_t>(value); };
  const Index items = below(20), values = 1 + below(30);
  Data offsets{0}, ids;
  for (Index i = 0; i < items; ++i) {
    for (Index n = run % 2 != 0 ? 1 : below(5); n > 0; --n) ids.push_back(byte_of(below(values)));
    offsets.push_back(byte_of(static_cast<Index>(ids.size())));
  }
  Data bytes{byte_of(run % 2 != 0 ? 1 : 0), byte_of(items), byte_of(values)};
  for (const Data& list : {offsets, ids}) {
    bytes.push_back(byte_of(static_cast<Index>(list.size())));
    bytes.insert(bytes.end(), list.begin(), list.end());
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("item_fields_fuzz", argc, argv, valid_field, try_bytes);
}
#endif
