// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of block masks and key orders: what is taken must be sound, what is refused must be
/// wrong by a second, independent reading. Built with libFuzzer (clang -fsanitize=fuzzer) it is an
/// entry point; built with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid
/// masks and orders: `block_mask_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/attention/block_mask.hpp>
#include <pare/attention/key_order.hpp>
#include <pare/attention/reference.hpp>
#include <pare/attention/score_modifier.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using pare::Index;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using Lists = std::vector<std::vector<std::int32_t>>;

/// A first byte chooses what the rest means.
struct Input {
  bool is_order = false;
  BlockMask::Shape mask{};
  std::vector<Index> offsets{};
  std::vector<std::int32_t> columns{};
  KeyOrder::Shape order{};
  std::vector<std::uint32_t> positions{};

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    is_order = bytes.number<Index>() % 2 != 0;
    if (is_order) {
      for (Index* size : {&order.batch, &order.heads, &order.keys}) *size = bytes.number<Index>();
      positions = bytes.list<std::uint32_t>();
      return;
    }
    for (Index* size :
         {&mask.batch, &mask.heads, &mask.queries, &mask.keys, &mask.row_block, &mask.column_block})
      *size = bytes.number<Index>();
    offsets = bytes.list<Index>();
    columns = bytes.list<std::int32_t>();
  }
};

/// The number of blocks along one side, or nothing if the sizes are refused.
std::optional<double> blocks_along(Index tokens, Index block) {
  if (tokens < 0 || block < 1) return {};
  return std::ceil(static_cast<long double>(tokens) / static_cast<long double>(block));
}

/// Whether compressed rows are a mask, read a second time: row after row instead of array after
/// array, and sizes in floating point. Sizes are small or as large as can be, nothing between.
bool is_mask(const Input& x) {
  const auto rows = blocks_along(x.mask.queries, x.mask.row_block);
  const auto columns = blocks_along(x.mask.keys, x.mask.column_block);
  if (!rows || !columns || x.mask.batch < 0 || x.mask.heads < 0 || *columns > 2147483647.0)
    return false;
  if (static_cast<double>(x.mask.batch) * static_cast<double>(x.mask.heads) > 9.3e18) return false;
  const double lines =
      static_cast<double>(x.mask.batch) * static_cast<double>(x.mask.heads) * *rows;
  if (lines + 1 != static_cast<double>(x.offsets.size())) return false;
  std::size_t at = 0;
  for (std::size_t line = 0; line + 1 < x.offsets.size(); ++line) {
    if (x.offsets[line] != static_cast<Index>(at)) return false;
    std::int64_t previous = -1;
    for (; static_cast<Index>(at) < x.offsets[line + 1]; ++at) {
      if (at == x.columns.size() || x.columns[at] <= previous) return false;
      if (static_cast<double>(x.columns[at]) >= *columns) return false;
      previous = x.columns[at];
    }
  }
  return x.offsets.back() == static_cast<Index>(at) && at == x.columns.size();
}

bool is_order(const Input& x) {
  const KeyOrder::Shape& s = x.order;
  if (s.batch < 0 || s.heads < 0 || s.keys < 0 || s.keys > 0xffffffff) return false;
  const double rows = static_cast<double>(s.batch) * static_cast<double>(s.heads);
  if (rows > 9.3e18 ||
      rows * static_cast<double>(s.keys) != static_cast<double>(x.positions.size()))
    return false;
  const auto keys = static_cast<std::size_t>(s.keys);
  for (std::size_t start = 0; start < x.positions.size(); start += keys) {
    std::vector<std::uint32_t> row(x.positions.begin() + static_cast<Index>(start),
                                   x.positions.begin() + static_cast<Index>(start + keys));
    std::sort(row.begin(), row.end());
    for (std::size_t i = 0; i < keys; ++i)
      if (row[i] != i) return false;
  }
  return true;
}

/// Every way to make the mask gives the same mask.
void check_every_way(const BlockMask& mask) {
  const BlockMask::Shape& s = mask.shape();
  const Index rows = mask.row_blocks(), columns = mask.column_blocks();
  Lists lists;
  const auto dense =
      std::make_unique<bool[]>(static_cast<std::size_t>(s.batch * s.heads * rows * columns));
  for (Index line = 0; line < s.batch * s.heads * rows; ++line) {
    const auto row = mask.row(line / rows / s.heads, line / rows % s.heads, line % rows);
    lists.emplace_back(row.begin(), row.end());
    for (const std::int32_t n : row) dense[static_cast<std::size_t>(line * columns + n)] = true;
  }
  const pare::TensorView<const bool, 4> view{
      dense.get(),
      {s.batch, s.heads, rows, columns},
      {s.heads * rows * columns, rows * columns, columns, 1}};
  require(BlockMask::from_lists(s, lists) == mask, "the lists of a mask give the mask");
  require(BlockMask::from_dense(s, view) == mask, "the dense form of a mask gives the mask");
  require(BlockMask::from_predicate(s, view) == mask, "asking for its blocks gives the mask");
  for (const bool causal : {false, true})
    require(mask.density(causal) >= 0 && mask.density(causal) <= 1, "a density is a share");
  require(BlockMask::causal(s).density(true) == 1, "the causal mask is all of the triangle");
}

/// Attention of ones is 1 where a row sees a key, and 0 where it sees none.
void attend_to_ones(const BlockMask* mask, const KeyOrder* order, Index queries, Index keys) {
  const std::vector<double> zeros(static_cast<std::size_t>(queries + keys), 0.0);
  std::vector<double> out(static_cast<std::size_t>(queries)), lse(out.size());
  const double one = 1;
  pare::attention::detail::ReferenceHead head{.causal = true, .mask = mask};
  if (order != nullptr) head.order = order->of(0, 0);
  const auto key = [&](Index j) { return zeros.data() + j; };
  const auto value = [&](Index j) {
    require(j >= 0 && j < keys, "keys are asked for by position");
    return &one;
  };
  pare::attention::detail::reference_attend(
      head, pare::TensorView<const double, 2>{zeros.data(), {queries, 1}, {1, 1}}, keys, key, value,
      pare::attention::Exact{}, pare::TensorView<double, 2>{out.data(), {queries, 1}, {1, 1}},
      pare::TensorView<double, 1>{lse.data(), {queries}, {1}});
  for (std::size_t i = 0; i < out.size(); ++i)
    require(std::isfinite(lse[i]) ? std::abs(out[i] - 1) < 1e-12 : out[i] == 0,
            "weights add up to 1");
}

/// True if the mask was taken.
bool try_mask(const Input& x) {
  std::optional<BlockMask> mask;
  try {
    mask = BlockMask::from_csr(x.mask, x.offsets, x.columns);
  } catch (const std::invalid_argument&) {
  }
  require(mask.has_value() == is_mask(x), "masks are taken if and only if they are sound");
  if (!mask) return false;
  require(mask->selected() == static_cast<Index>(x.columns.size()), "every column is kept");
  // Each extent for itself: where one is zero, the others may be as large as they like.
  const Index blocks = static_cast<Index>(x.offsets.size()) * (mask->column_blocks() + 1);
  if (blocks <= 1000 && std::max({x.mask.batch, x.mask.heads, mask->row_blocks()}) <= 1000)
    check_every_way(*mask);
  if (x.mask.batch > 0 && x.mask.heads > 0 && x.mask.queries <= 30 && x.mask.keys <= 30)
    attend_to_ones(&*mask, nullptr, x.mask.queries, x.mask.keys);
  return true;
}

/// True if the order was taken.
bool try_order(const Input& x) {
  std::optional<KeyOrder> order;
  try {
    order.emplace(x.order, x.positions);
  } catch (const std::invalid_argument&) {
  }
  require(order.has_value() == is_order(x), "orders are taken if and only if they are bijections");
  if (!order) return false;
  if (x.positions.empty()) return true;
  for (Index b = 0; b < x.order.batch; ++b)
    for (Index h = 0; h < x.order.heads; ++h)
      require(std::ranges::equal(
                  order->of(b, h),
                  std::span(x.positions)
                      .subspan(static_cast<std::size_t>((b * x.order.heads + h) * x.order.keys),
                               static_cast<std::size_t>(x.order.keys))),
              "every row is in its place");
  attend_to_ones(nullptr, &*order, std::min<Index>(x.order.keys, 5), x.order.keys);
  return true;
}

bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input x(bytes);
  return x.is_order ? try_order(x) : try_mask(x);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

std::uint8_t byte_of(Index value) { return static_cast<std::uint8_t>(value); }

/// A mask of random rows, as bytes.
Data valid_mask(std::mt19937_64& random) {
  const auto below = [&](Index n) { return static_cast<Index>(random() % std::uint64_t(n)); };
  const BlockMask::Shape s{1 + below(2), 1 + below(3), below(20),
                           below(20),    1 + below(8), 1 + below(8)};
  Data offsets, columns;
  for (Index line = 0; line < s.batch * s.heads * s.row_blocks(); ++line) {
    offsets.push_back(byte_of(static_cast<Index>(columns.size())));
    for (Index n = 0; n < s.column_blocks() && columns.size() < 100; ++n)
      if (below(3) == 0) columns.push_back(byte_of(n));
  }
  offsets.push_back(byte_of(static_cast<Index>(columns.size())));
  Data bytes{0,
             byte_of(s.batch),
             byte_of(s.heads),
             byte_of(s.queries),
             byte_of(s.keys),
             byte_of(s.row_block),
             byte_of(s.column_block)};
  for (const Data& list : {offsets, columns}) {
    bytes.push_back(byte_of(static_cast<Index>(list.size())));
    bytes.insert(bytes.end(), list.begin(), list.end());
  }
  return bytes;
}

/// An order of random rows, as bytes.
Data valid_order(std::mt19937_64& random) {
  const std::uint64_t batch = 1 + random() % 3, heads = 1 + random() % 3, keys = random() % 20;
  Data bytes{1, std::uint8_t(batch), std::uint8_t(heads), std::uint8_t(keys),
             std::uint8_t(batch * heads * keys)};
  for (std::uint64_t row = 0; row < batch * heads; ++row) {
    for (std::uint64_t i = 0; i < keys; ++i) bytes.push_back(std::uint8_t(i));
    std::shuffle(bytes.end() - static_cast<Index>(keys), bytes.end(), random);
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  const auto valid = [](unsigned long long run, std::mt19937_64& random) {
    return run % 2 == 0 ? valid_mask(random) : valid_order(random);
  };
  return pare::fuzz::run_mutations("block_mask_fuzz", argc, argv, valid, try_bytes);
}
#endif
