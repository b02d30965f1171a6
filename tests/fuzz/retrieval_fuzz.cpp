// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of retrieval: BM25's index and search, residual codecs, exact search and MaxSim of
/// floats and of bytes, with sizes, strides, offsets and ids of any kind. What is taken must be
/// sound by a second reading, what is refused must be wrong by it, and results must be those of the
/// definitions. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry point; built with
/// PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid inputs:
/// `retrieval_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/core/matrix.hpp>
#include <pare/retrieval/bm25.hpp>
#include <pare/retrieval/max_sim.hpp>
#include <pare/retrieval/residual_codec.hpp>
#include <pare/retrieval/residual_max_sim.hpp>
#include <pare/retrieval/top_k_dot.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using namespace pare::retrieval;
using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using pare::linalg::Int8View;

/// call(), or nothing if it throws std::invalid_argument.
template <class Call>
bool taken(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return false;
  }
  return true;
}

bool is_small(Index n) { return n >= 0 && n < 127; }

/// Eighths, whose products and sums have no rounding; the ends of a byte are not finite.
float number_of(Bytes& bytes) {
  const Index x = bytes.number<Index>();
  if (x == std::numeric_limits<Index>::max()) return std::numeric_limits<float>::quiet_NaN();
  if (x == std::numeric_limits<Index>::min()) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(x) / 8;
}

/// A matrix as a caller may give it: sizes of any kind, rows apart, reversed, or one upon another.
/// Where sizes are small it has memory.
template <class S>
struct Rows {
  Index rows = 0, dim = 0;
  std::vector<S> memory{};
  TensorView<const S, 2> view{};

  template <class Make>
  Rows(Bytes& bytes, Index wanted_dim, const Make& make)
      : rows(bytes.number<Index>()), dim(wanted_dim) {
    const Index form = bytes.number<Index>() & 3;
    const Index step = form == 0 ? 0 : is_small(dim) ? dim + (form == 1 ? 3 : 0) : dim;
    if (in_memory()) memory.resize(static_cast<std::size_t>(rows * (dim + 3)));
    for (Index i = 0; i < std::min<Index>(static_cast<Index>(memory.size()), 40); ++i)
      memory[static_cast<std::size_t>(i)] = make(bytes);
    // What is not given repeats itself, a step apart from dim.
    for (std::size_t i = 40; i < memory.size(); ++i) memory[i] = memory[i - 37];
    memory.reserve(1);
    const bool reversed = form == 3 && in_memory() && rows > 0;
    view = {memory.data() + (reversed ? (rows - 1) * step : 0),
            {rows, dim},
            {reversed ? -step : step, 1}};
  }
  bool in_memory() const { return is_small(rows) && is_small(dim); }
  bool has_rows() const { return in_memory() && dim >= 1; }
};

bool are_offsets(const std::vector<Index>& offsets, Index of) {
  return !offsets.empty() && offsets.front() == 0 && offsets.back() == of &&
         std::ranges::is_sorted(offsets);
}

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/// Maxima are added up in double, in an order of each arch: exact of floats, nearly so of bytes.
bool nearly(float a, float b) {
  return same(a, b) || std::abs(a - b) <= std::abs(b) * std::numeric_limits<float>::epsilon();
}

struct Scales {
  std::vector<float> list{};
  explicit Scales(Bytes& bytes) {
    const Index count = bytes.number<Index>();
    for (Index i = 0; i < count && is_small(count); ++i) list.push_back(number_of(bytes));
  }
};

template <class Table>
bool search(const Table& table, const Rows<float>& queries, Index rows, Index k, bool sound) {
  DotHits<float> got, wanted;
  const bool ok = taken([&] { top_k_dot(pare::simd, table, queries.view, k, got); });
  require(ok == (sound && k >= 1 && k <= rows), "a table is taken if and only if it is sound");
  require(ok == taken([&] { top_k_dot(pare::reference, table, queries.view, k, wanted); }),
          "all backends refuse the same");
  if (!ok) return false;
  require(got.ids == wanted.ids, "hits are those of the definition");
  for (Index i = 0; i < got.scores.size(); ++i)
    require(same(got.scores.data()[i], wanted.scores.data()[i]), "and so are their scores");
  return true;
}

template <class Documents>
bool score(const Documents& documents, const Rows<float>& queries, Index tokens,
           const std::vector<Index>& offsets, bool sound) {
  std::vector<float> got, wanted;
  const bool ok = taken([&] { got = max_sim(pare::simd, queries.view, documents, offsets); });
  require(ok == (sound && are_offsets(offsets, tokens)),
          "documents are taken if and only if they are sound");
  require(ok == taken([&] { wanted = max_sim(pare::reference, queries.view, documents, offsets); }),
          "all backends refuse the same");
  require(std::ranges::equal(got, wanted, nearly), "scores are those of the definition");
  return ok;
}

/// Exact search and MaxSim of floats.
bool try_floats(Bytes& bytes) {
  const Index dim = bytes.number<Index>(), k = bytes.number<Index>();
  const bool one_dim = bytes.number<Index>() != 1;
  const Rows<float> table(bytes, dim, number_of),
      queries(bytes, one_dim ? dim : bytes.number<Index>(), number_of);
  const std::vector<Index> offsets = bytes.list<Index>();
  const bool sound = table.has_rows() && queries.has_rows() && table.dim == queries.dim;
  const bool found = search(table.view, queries, table.rows, k, sound);
  return score(table.view, queries, table.rows, offsets, sound) && found;
}

/// The same of bytes.
bool try_int8(Bytes& bytes) {
  const Index dim = bytes.number<Index>(), k = bytes.number<Index>();
  const bool one_dim = bytes.number<Index>() != 1;
  const Rows<std::int8_t> table(bytes, dim, [](Bytes& b) { return b.number<std::int8_t>(); });
  const Rows<float> queries(bytes, one_dim ? dim : bytes.number<Index>(), number_of);
  const std::vector<Index> offsets = bytes.list<Index>();
  const Scales scales(bytes);
  const Int8View view{table.view, scales.list};
  const bool sound = table.has_rows() && queries.has_rows() && table.dim == queries.dim &&
                     static_cast<Index>(scales.list.size()) == table.rows;
  const bool found = search(view, queries, table.rows, k, sound);
  return score(view, queries, table.rows, offsets, sound) && found;
}

/// A codec of small tokens, and rows that are not what it has encoded.
bool try_codec(Bytes& bytes) {
  const Index dim = bytes.number<Index>(), bits = bytes.number<Index>(),
              count = bytes.number<Index>();
  const Rows<float> tokens(bytes, dim, number_of), queries(bytes, dim, number_of);
  const std::vector<Index> offsets = bytes.list<Index>();
  bool finite = true;
  for (Index i = 0; tokens.in_memory() && i < tokens.rows; ++i)
    for (Index c = 0; c < dim; ++c) finite = finite && std::isfinite(tokens.view(i, c));
  if (!finite || !tokens.has_rows() || tokens.rows == 0) return false;
  ResidualCodec codec;
  const bool fits = taken([&] {
    codec = fit_residual_codec(
        tokens.view,
        {.bits = static_cast<int>(std::clamp<Index>(bits, -9, 9)), .centroids = count});
  });
  require(fits == ((bits == 1 || bits == 2 || bits == 4) && count >= 1 && count <= tokens.rows),
          "options are taken if and only if they are in range");
  if (!fits) return false;
  ResidualRows rows = encode(codec, tokens.view);
  const auto centroid = bytes.number<std::uint32_t>();
  const std::size_t at = bytes.number<std::uint8_t>(), cut = bytes.number<std::uint8_t>() % 4;
  if (at < rows.centroids.size()) rows.centroids[at] = centroid;
  if (at < rows.codes.size()) rows.codes[at] = static_cast<std::uint8_t>(centroid);
  if (cut == 1) rows.codes.pop_back();
  if (cut == 2) rows.scales.push_back(1);
  const bool sound =
      (at >= rows.centroids.size() || centroid < codec.centroids.rows()) && (cut == 0 || cut == 3);
  RowMatrix<float> restored(tokens.rows, dim);
  require(taken([&] { decode(codec, rows, restored); }) == sound,
          "rows are decoded if and only if they are the codec's");
  std::vector<float> got, wanted;
  const bool ok = taken([&] { got = residual_max_sim(queries.view, codec, rows, offsets); });
  require(ok == (sound && queries.has_rows() && are_offsets(offsets, tokens.rows)),
          "rows are scored if and only if they are the codec's");
  if (!ok) return false;
  wanted = residual_max_sim(pare::reference, queries.view, codec, rows, offsets);
  // Products of bytes are off by what residual_max_sim.hpp says; values are at most 2 x 16.
  double sizes = 0, scale = 0;
  for (Index i = 0; i < queries.rows; ++i)
    for (Index c = 0; c < dim; ++c) sizes += std::abs(static_cast<double>(queries.view(i, c)));
  for (const float s : rows.scales) scale = std::max(scale, static_cast<double>(s));
  const double bound = scale * sizes * (32.0 * static_cast<double>(dim) / 254 + .1);
  for (std::size_t d = 0; d < got.size(); ++d)
    require(same(got[d], wanted[d]) || std::abs(static_cast<double>(got[d] - wanted[d])) <= bound,
            "scores are nearly those of the definition");
  return true;
}

bool shares_a_term(std::span<const std::int32_t> document, std::span<const std::int32_t> query) {
  return std::ranges::any_of(query, [&](std::int32_t term) {
    return std::ranges::find(document, term) != document.end();
  });
}

void check_hits(const std::vector<Hit>& hits, std::span<const std::int32_t> tokens,
                const std::vector<Index>& offsets, std::span<const std::int32_t> query, Index k,
                const Bm25Options& options) {
  const auto wanted = reference_bm25(tokens, offsets, query, options);
  // A term's size is at most ln(255) (k1 + 1), and float sums round once a term.
  const auto terms = static_cast<double>(query.size());
  const double off = terms * (terms + 2) * 5.6 * (options.k1 + 1) * 0x1p-23;
  std::vector<bool> listed(wanted.size());
  for (std::size_t i = 0; i < hits.size(); ++i) {
    require(i == 0 || ranks_before(hits[i - 1], hits[i]), "hits fall");
    const auto id = static_cast<std::size_t>(hits[i].id);
    require(id < wanted.size() && std::abs(hits[i].score - wanted[id]) <= off,
            "scores are those of the definition");
    listed[id] = true;
  }
  Index there = 0;
  for (std::size_t d = 0; d < wanted.size(); ++d) {
    const auto document = tokens.subspan(static_cast<std::size_t>(offsets[d]),
                                         static_cast<std::size_t>(offsets[d + 1] - offsets[d]));
    const bool shares = shares_a_term(document, query);
    there += shares ? 1 : 0;
    require(!listed[d] || shares, "hits share a term");
    require(!shares || listed[d] || (!hits.empty() && wanted[d] <= hits.back().score + off),
            "no better document is left out");
  }
  require(static_cast<Index>(hits.size()) == std::min(k, there), "as many hits as there are");
}

bool try_bm25(Bytes& bytes) {
  const Index k = bytes.number<Index>();
  const Bm25Options options{.k1 = static_cast<double>(number_of(bytes)),
                            .b = static_cast<double>(number_of(bytes)),
                            .idf = static_cast<Bm25Idf>(bytes.number<std::uint8_t>())};
  std::vector<std::int32_t> tokens = bytes.list<std::int32_t>();
  for (std::int32_t& token : tokens) token = std::min(token, 126);  // the index has room for each
  const std::vector<Index> offsets = bytes.list<Index>();
  const std::vector<std::int32_t> query = bytes.list<std::int32_t>();
  const bool sound = options.k1 >= 0 && options.b >= 0 && options.b <= 1 &&
                     options.idf <= Bm25Idf::Atire &&
                     are_offsets(offsets, static_cast<Index>(tokens.size())) &&
                     std::ranges::all_of(tokens, [](std::int32_t t) { return t >= 0; });
  require(sound == taken([&] {
            const Bm25Index index(tokens, offsets, options);
            const bool asked = std::ranges::all_of(query, [](auto t) { return t >= 0; }) && k >= 1;
            std::vector<Hit> hits;
            require(asked == taken([&] { hits = index.search(query, k); }),
                    "queries are taken if and only if they are sound");
            if (asked) check_hits(hits, tokens, offsets, query, k, options);
          }),
          "documents are taken if and only if they are sound");
  return sound;
}

/// True if the input was taken.
bool try_bytes(std::span<const std::uint8_t> data) {
  Bytes bytes(data);
  switch (bytes.number<Index>()) {
    case 0:
      return try_floats(bytes);
    case 1:
      return try_int8(bytes);
    case 2:
      return try_codec(bytes);
    case 3:
      return try_bm25(bytes);
    default:
      return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// Numbers as the bytes of an input.
class Written {
 public:
  explicit Written(std::mt19937_64& random) : random_(random) {}

  Index below(Index n) { return static_cast<Index>(random_() % static_cast<std::uint64_t>(n)); }
  Index add(Index x) {
    bytes.push_back(static_cast<std::uint8_t>(x));
    return x;
  }
  /// A matrix of so many rows, numbers of at most `most` in size.
  void rows(Index count, Index dim, Index most) {
    add(count);
    add(below(4));
    for (Index i = 0; i < std::min<Index>(count * (dim + 3), 40); ++i)
      add(below(2 * most + 1) - most);
  }
  void offsets(Index of) {
    const Index documents = 1 + below(6);
    std::vector<Index> cuts{0, of};
    for (Index d = 1; d < documents; ++d) cuts.push_back(below(of + 1));
    std::ranges::sort(cuts);
    list(cuts);
  }
  void list(const std::vector<Index>& numbers) {
    add(static_cast<Index>(numbers.size()));
    for (const Index x : numbers) add(x);
  }
  std::vector<Index> terms(Index count) {
    std::vector<Index> list(static_cast<std::size_t>(count));
    for (Index& x : list) x = below(12);
    return list;
  }

  Data bytes;

 private:
  std::mt19937_64& random_;
};

/// An input of each kind in turn, as bytes.
Data valid_input(unsigned long long run, std::mt19937_64& random) {
  Written w(random);
  const Index kind = w.add(static_cast<Index>(run % 4));
  const Index count = 1 + w.below(40), dim = 1 + w.below(20);
  if (kind < 2) {
    w.add(dim);
    w.add(1 + w.below(count));
    w.add(0);
    w.rows(count, dim, kind == 0 ? 100 : 127);
    w.rows(w.below(20), dim, 100);
    w.offsets(count);
    if (kind == 1) {
      w.add(count);
      for (Index i = 0; i < count; ++i) w.add(w.below(100));
    }
  } else if (kind == 2) {
    w.add(dim);
    w.add(Index{1} << w.below(3));
    const Index centroids = w.add(1 + w.below(count));
    w.rows(count, dim, 100);
    w.rows(w.below(20), dim, 100);
    w.offsets(count);
    w.add(w.below(centroids));
    w.add(w.below(100));
    w.add(0);
  } else {
    w.add(1 + w.below(9));
    w.add(w.below(30));
    w.add(w.below(9));
    w.add(w.below(3));
    w.list(w.terms(count));
    w.offsets(count);
    w.list(w.terms(w.below(6)));
  }
  return w.bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("retrieval_fuzz", argc, argv, valid_input, try_bytes);
}
#endif
