// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of BM25: its two constants, and which idf. bm25.hpp has the formulas.
///
/// ```cpp
/// Bm25Options options{.k1 = 0.9, .b = 0.4, .idf = Bm25Idf::Atire};
/// ```

#include <pare/core/macros_off.hpp>

#include <cstdint>

namespace pare::retrieval {

/// Which inverse document frequency.
enum class Bm25Idf : std::uint8_t { Lucene, Robertson, Atire };

/// The defaults are those of Lucene.
struct Bm25Options {
  double k1 = 1.2;  ///< finite, at least 0; 0 counts a term once, however often it stands
  double b = 0.75;  ///< in [0, 1]; 0: the length of a document does not matter
  Bm25Idf idf = Bm25Idf::Lucene;
};

}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
