// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Argument checks: every public function calls them before it writes anything.
///
/// A failed check throws `std::invalid_argument` whose message reads
/// `pare::projection::project: y: got [3, 4], wanted [3, 8]`. With `PARE_NO_EXCEPTIONS` it prints
/// the same line to stderr and calls `std::abort`.

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace pare {

/// The signed size and offset type of the public interface.
using Index = std::ptrdiff_t;

PARE_ABI_BEGIN

/// Reports a broken precondition; never returns.
[[noreturn]] PARE_NOINLINE inline void invalid_argument(const std::string& message) {
#if defined(PARE_NO_EXCEPTIONS)
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
#else
  throw std::invalid_argument(message);
#endif
}

PARE_ABI_END

/// A number amid words, as got or wanted; put together only where it is printed.
struct Worded {
  const char* before;
  Index number;
  const char* behind = "";
};

namespace detail {
PARE_ABI_BEGIN

inline void describe(std::ostream& os, const Worded& value) {
  os << value.before << value.number << value.behind;
}

template <class T>
void describe(std::ostream& os, const T& value) {
  if constexpr (std::is_floating_point_v<T>) os.precision(17);
  os << value;
}

template <std::size_t N>
void describe(std::ostream& os, const std::array<Index, N>& extents) {
  os << '[';
  for (std::size_t i = 0; i < N; ++i) os << (i == 0 ? "" : ", ") << extents[i];
  os << ']';
}

template <class Got, class Wanted>
[[noreturn]] PARE_NOINLINE void refuse(const char* function, const char* argument, const Got& got,
                                       const Wanted& wanted) {
  std::ostringstream os;
  os.imbue(std::locale::classic());  // no thousands separators
  os << "pare::" << function << ": " << argument << ": got ";
  describe(os, got);
  os << ", wanted ";
  describe(os, wanted);
  invalid_argument(os.str());
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Refuses the argument unless `ok`. `got` and `wanted` are anything a stream or an extent list
/// prints; `function` is the name below `pare::`.
template <class Got, class Wanted>
void check(bool ok, const char* function, const char* argument, const Got& got,
           const Wanted& wanted) {
  if (!ok) detail::refuse(function, argument, got, wanted);
}

/// Refuses the argument unless its extents are those wanted.
template <std::size_t N>
void check_extents(const char* function, const char* argument, const std::array<Index, N>& got,
                   const std::array<Index, N>& wanted) {
  check(got == wanted, function, argument, got, wanted);
}

/// Refuses a number that names no enumerator of E, which counts from 0 to `last`.
template <class E>
void check_enumerator(const char* function, const char* argument, E value, E last) {
  const auto number = static_cast<Index>(value);
  check(number >= 0 && number <= static_cast<Index>(last), function, argument, number,
        Worded{"an enumerator from 0 to ", static_cast<Index>(last)});
}

/// The product of two sizes; refused if one is negative or the product does not fit `Index`.
inline Index checked_product(const char* function, const char* argument, Index a, Index b) {
  if (a < 0 || b < 0 || (b != 0 && a > std::numeric_limits<Index>::max() / b))
    detail::refuse(function, argument, std::array<Index, 2>{a, b},
                   "a product of sizes that fits 63 bits");
  return a * b;
}

/// The sum of two counts; refused if one is negative or the sum does not fit `Index`.
inline Index checked_sum(const char* function, const char* argument, Index a, Index b) {
  if (a < 0 || b < 0 || a > std::numeric_limits<Index>::max() - b)
    detail::refuse(function, argument, std::array<Index, 2>{a, b}, "a sum that fits 63 bits");
  return a + b;
}

/// True unless NaN or infinite, judged on the bits so that no compiler flag can assume it away.
inline bool is_finite(double value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return ((bits >> 52) & 0x7ff) != 0x7ff;
}

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
