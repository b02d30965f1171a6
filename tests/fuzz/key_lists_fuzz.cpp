// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of key lists: what is taken must be sound, what is refused must be wrong by a
/// second, independent reading, and attention over what is taken reads nothing else. Built with
/// libFuzzer (clang -fsanitize=fuzzer) it is an entry point; built with PARE_FUZZ_STANDALONE it has
/// a main that runs seeded mutations of valid lists: `key_lists_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/attention/attend_key_lists.hpp>
#include <pare/attention/key_lists.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace {

using pare::Index;
using pare::attention::KeyLists;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;

struct Input {
  KeyLists::Shape shape{};
  std::vector<Index> offsets{};
  std::vector<std::int32_t> keys{};

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    shape.causal = bytes.number<Index>() % 2 != 0;
    for (Index* size : {&shape.batch, &shape.heads, &shape.queries, &shape.keys})
      *size = bytes.number<Index>();
    offsets = bytes.list<Index>();
    keys = bytes.list<std::int32_t>();
  }
};

/// Whether compressed rows are lists, read a second time: a set for each row, sizes in floating
/// point. Sizes are small or as large as can be, nothing between.
bool are_lists(const Input& x) {
  const KeyLists::Shape& s = x.shape;
  for (const Index size : {s.batch, s.heads, s.queries, s.keys})
    if (size < 0) return false;
  if (s.queries > 1000 || s.keys > 1000) return false;
  const double pairs = static_cast<double>(s.batch) * static_cast<double>(s.heads);
  const double rows = pairs * static_cast<double>(s.queries);
  if (pairs > 9.3e18 || rows + 1 != static_cast<double>(x.offsets.size())) return false;
  std::size_t at = 0;
  for (std::size_t row = 0; row + 1 < x.offsets.size(); ++row) {
    if (x.offsets[row] != static_cast<Index>(at)) return false;
    const Index query = static_cast<Index>(row) % s.queries;
    std::set<std::int32_t> seen;
    for (; static_cast<Index>(at) < x.offsets[row + 1]; ++at) {
      if (at == x.keys.size()) return false;
      const std::int32_t key = x.keys[at];
      if (key < 0 || key >= s.keys || (!seen.empty() && key <= *seen.rbegin())) return false;
      if (s.causal && key - query > s.keys - s.queries) return false;
      seen.insert(key);
    }
  }
  return x.offsets.back() == static_cast<Index>(at) && at == x.keys.size();
}

/// Values are 1 where the row lists them, and NaN for the keys that no row does: each row is 1, or
/// 0 if it lists none.
template <class B>
void attend_to_ones(const B& backend, const KeyLists& lists) {
  const KeyLists::Shape& s = lists.shape();
  const std::vector<float> queries(static_cast<std::size_t>(s.batch * s.heads * s.queries * 3), 1);
  const auto nan = std::nanf("");
  std::vector<float> keys(static_cast<std::size_t>(s.batch * s.keys * 3), nan), values = keys;
  for (Index b = 0; b < s.batch; ++b)
    for (Index h = 0; h < s.heads; ++h)
      for (Index i = 0; i < s.queries; ++i)
        for (const std::int32_t j : lists.row(b, h, i))
          for (Index c = 0; c < 3; ++c) {
            const auto at = static_cast<std::size_t>((b * s.keys + j) * 3 + c);
            keys[at] = 0.5f;
            values[at] = 1;
          }
  std::vector<float> out(queries.size(), 7);
  const auto view = [](auto& x, Index batch, Index heads, Index tokens) {
    return pare::TensorView<std::remove_pointer_t<decltype(x.data())>, 4>{
        x.data(), {batch, heads, tokens, 3}, {heads * tokens * 3, tokens * 3, 3, 1}};
  };
  attend(backend, view(queries, s.batch, s.heads, s.queries), view(keys, s.batch, 1, s.keys),
         view(values, s.batch, 1, s.keys), view(out, s.batch, s.heads, s.queries), lists);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const bool empty = lists.offsets()[i / 3] == lists.offsets()[i / 3 + 1];
    require(std::abs(out[i] - (empty ? 0 : 1)) < 1e-5f, "weights of a list add up to 1");
  }
}

/// True if the lists were taken.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input x(bytes);
  std::optional<KeyLists> lists;
  try {
    lists = KeyLists::from_csr(x.shape, x.offsets, x.keys);
  } catch (const std::invalid_argument&) {
  }
  require(lists.has_value() == are_lists(x), "lists are taken if and only if they are sound");
  if (!lists) return false;
  require(lists->listed() == static_cast<Index>(x.keys.size()), "every key is kept");
  const KeyLists::Shape& s = x.shape;
  if (s.batch > 0 && s.heads > 0 && s.queries > 0 && s.batch * s.keys <= 1000) {
    attend_to_ones(pare::reference, *lists);
    attend_to_ones(pare::simd, *lists);
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// Lists of random keys, as bytes.
Data valid_lists(unsigned long long run, std::mt19937_64& random) {
  const auto below = [&](Index n) { return static_cast<Index>(random() % std::uint64_t(n)); };
  const auto byte_of = [](Index value) { return static_cast<std::uint8_t>(value); };
  const KeyLists::Shape s{1 + below(2), 1 + below(3), 1 + below(8), below(40), run % 2 != 0};
  Data offsets, keys;
  for (Index row = 0; row < s.batch * s.heads * s.queries; ++row) {
    offsets.push_back(byte_of(static_cast<Index>(keys.size())));
    for (Index j = 0; j < s.listable(row % s.queries) && keys.size() < 100; ++j)
      if (below(4) == 0) keys.push_back(byte_of(j));
  }
  offsets.push_back(byte_of(static_cast<Index>(keys.size())));
  Data bytes{byte_of(s.causal ? 1 : 0), byte_of(s.batch), byte_of(s.heads), byte_of(s.queries),
             byte_of(s.keys)};
  for (const Data& list : {offsets, keys}) {
    bytes.push_back(byte_of(static_cast<Index>(list.size())));
    bytes.insert(bytes.end(), list.begin(), list.end());
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("key_lists_fuzz", argc, argv, valid_lists, try_bytes);
}
#endif
