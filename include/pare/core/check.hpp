// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Argument checks: every public function calls them before it writes anything.
///
/// ```cpp
/// pare::check(rank >= 1, "my_method", "rank", rank, "at least 1");
/// //          pare::my_method: rank: got 0, wanted at least 1
/// pare::check_extents<2>("my_method", "y", y.extent, {rows, 8});
/// //          pare::my_method: y: got [3, 4], wanted [3, 8]
/// const pare::Index size = pare::checked_product("my_method", "y", rows, columns);
/// ```
///
/// A failed check throws `std::invalid_argument` with a message as above. With `PARE_NO_EXCEPTIONS`
/// it prints the same line to stderr and calls `std::abort`. A check that holds builds no text.

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
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace pare {

/// The signed size and offset type of the public interface.
using Index = std::ptrdiff_t;

PARE_ABI_BEGIN

/// Throws std::invalid_argument with this message, or with PARE_NO_EXCEPTIONS prints it and aborts.
[[noreturn]] PARE_NOINLINE inline void invalid_argument(const std::string& message) {
#if defined(PARE_NO_EXCEPTIONS)
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
#else
  throw std::invalid_argument(message);
#endif
}

PARE_ABI_END

/// A number amid words, as `got` or `wanted` of a check: `Worded{"below ", n}`. The text is put
/// together only where it is printed.
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

inline void describe_extents(std::ostream& os, const Index* extents, std::size_t rank) {
  os << '[';
  for (std::size_t i = 0; i < rank; ++i) os << (i == 0 ? "" : ", ") << extents[i];
  os << ']';
}

template <std::size_t N>
void describe(std::ostream& os, const std::array<Index, N>& extents) {
  describe_extents(os, extents.data(), N);
}

/// A value of any type that is printed if a check fails. It is looked at there, not kept.
class Printed {
 public:
  Printed(const char* text)  // NOLINT(google-explicit-constructor): stands for the text itself
      : value_(text),
        print_([](std::ostream& os, const void* value) { os << static_cast<const char*>(value); }) {
  }

  template <class T>
  requires(!std::is_convertible_v<const T&, const char*>)
  Printed(const T& value)  // NOLINT(google-explicit-constructor): likewise
      : value_(&value),
        print_([](std::ostream& os, const void* v) { describe(os, *static_cast<const T*>(v)); }) {}

  void print(std::ostream& os) const { print_(os, value_); }

 private:
  const void* value_;
  void (*print_)(std::ostream&, const void*);
};

[[noreturn]] PARE_NOINLINE inline void refuse(const char* function, const char* argument,
                                              const Printed& got, const Printed& wanted) {
  std::ostringstream os;
  os.imbue(std::locale::classic());  // no thousands separators
  os << "pare::" << function << ": " << argument << ": got ";
  got.print(os);
  os << ", wanted ";
  wanted.print(os);
  invalid_argument(os.str());
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Throws unless `ok`.
///
/// \param function its name without `pare::`, such as "projection::project"
/// \param argument which argument, or member of its options
/// \param got      what was passed: anything a stream prints, extents, or a Worded
/// \param wanted   what would be right: likewise
/// \throws std::invalid_argument as the file says, here and in the checks below
template <class Got, class Wanted>
void check(bool ok, const char* function, const char* argument, const Got& got,
           const Wanted& wanted) {
  if (!ok) detail::refuse(function, argument, got, wanted);
}

/// Throws unless the extents of the argument are those wanted.
template <std::size_t N>
void check_extents(const char* function, const char* argument, const std::array<Index, N>& got,
                   const std::array<Index, N>& wanted) {
  check(got == wanted, function, argument, got, wanted);
}

/// Throws if `value` is no enumerator of E, whose enumerators count from 0 to `last`.
template <class E>
void check_enumerator(const char* function, const char* argument, E value, E last) {
  const auto number = static_cast<Index>(value);
  check(number >= 0 && number <= static_cast<Index>(last), function, argument, number,
        Worded{"an enumerator from 0 to ", static_cast<Index>(last)});
}

/// a b of two sizes. \throws std::invalid_argument if one is negative or the product does not fit
/// `Index`.
inline Index checked_product(const char* function, const char* argument, Index a, Index b) {
  if (a < 0 || b < 0 || (b != 0 && a > std::numeric_limits<Index>::max() / b))
    detail::refuse(function, argument, std::array<Index, 2>{a, b},
                   "a product of sizes that fits 63 bits");
  return a * b;
}

/// a + b of two counts. \throws std::invalid_argument if one is negative or the sum does not fit
/// `Index`.
inline Index checked_sum(const char* function, const char* argument, Index a, Index b) {
  if (a < 0 || b < 0 || a > std::numeric_limits<Index>::max() - b)
    detail::refuse(function, argument, std::array<Index, 2>{a, b}, "a sum that fits 63 bits");
  return a + b;
}

/// `count` if the bytes of that many elements of `size` bytes fit `Index`.
/// \throws std::invalid_argument if they do not, or count is negative
inline Index checked_count(const char* function, const char* argument, Index count,
                           std::size_t size) {
  checked_product(function, argument, count, static_cast<Index>(size));
  return count;
}

/// Throws unless offsets of rows that lie sequence by sequence are right: from 0 to the number of
/// rows, never decreasing. Rows [offsets[s], offsets[s + 1]) are those of sequence s. `noun` is
/// what a message calls them.
inline void check_offsets(const char* function, const char* argument,
                          std::span<const Index> offsets, Index rows, const char* noun = "tokens") {
  check(!offsets.empty(), function, argument, offsets.size(), "at least 1 offset");
  check(offsets.front() == 0, function, argument, offsets.front(), "0 as the first offset");
  for (std::size_t i = 1; i < offsets.size(); ++i)
    check(offsets[i] >= offsets[i - 1], function, argument, offsets[i],
          "offsets that never decrease");
  if (offsets.back() != rows)
    detail::refuse(
        function, argument, offsets.back(),
        std::string("the ") + noun + ", " + std::to_string(rows) + ", as the last offset");
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
