// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The header of a .npy file: which scalars have a dtype, the text that describes an array, and the
/// strict parser of that text.
///
/// Source: numpy.lib.format, versions 1.0 (length in 2 bytes), 2.0 (4 bytes) and 3.0 (UTF-8 text).

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/io/detail/elements.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/shape.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pare::io {

PARE_ABI_BEGIN

/// What a .npy header says.
struct NpyHeader {
  std::string dtype;  ///< byte order, kind and item size as NumPy spells them: `<f4`, `|u1`
  bool fortran_order = false;  ///< true if the first index varies fastest in the file
  std::vector<Index> shape;    ///< one extent a dimension; empty for a 0-d array
  friend bool operator==(const NpyHeader&, const NpyHeader&) = default;
};

PARE_ABI_END

/// Scalars with a .npy dtype: float, double, f16, bool, and integers of 8 to 64 bits. Character
/// types are text and have none; nor has bf16.
template <class T>
concept NpyScalar = detail::PlainNumber<T>;

namespace detail {
PARE_ABI_BEGIN

template <class... T>
struct NpyTypeList {};

/// One C++ type for each dtype that is read.
using NpyTypes =
    NpyTypeList<bool, std::int8_t, std::uint8_t, std::int16_t, std::uint16_t, std::int32_t,
                std::uint32_t, std::int64_t, std::uint64_t, f16, float, double>;

template <class T>
inline constexpr bool is_npy_float = std::is_floating_point_v<T> || std::is_same_v<T, f16>;

/// Kind and item size, the dtype without its byte order: {'f', '4'}.
template <NpyScalar T>
inline constexpr std::array<char, 2> npy_code{is_npy_float<T>           ? 'f'
                                              : std::is_same_v<T, bool> ? 'b'
                                              : std::is_signed_v<T>     ? 'i'
                                                                        : 'u',
                                              static_cast<char>('0' + sizeof(T))};

/// Headers above this are refused unread. The longest that a NumPy array of plain numbers can have,
/// 64 dimensions of 19 digits, is under 2 KiB.
inline constexpr std::size_t npy_longest_header = std::size_t{1} << 20;

inline constexpr std::string_view npy_magic{"\x93NUMPY", 6};

/// The dtype of T in this machine's byte order.
template <NpyScalar T>
std::string npy_dtype() {
  const char order = sizeof(T) == 1 ? '|' : std::endian::native == std::endian::little ? '<' : '>';
  return {order, npy_code<T>[0], npy_code<T>[1]};
}

/// Calls `f` with the identity of the type that a kind and item size name; false if none does.
template <class F, class... T>
bool with_npy_type(NpyTypeList<T...>, std::string_view code, const F& f) {
  const auto names = [&](const std::array<char, 2>& c) {
    return code == std::string_view(&c[0], 2);
  };
  return ((names(npy_code<T>) && (f(std::type_identity<T>{}), true)) || ...);
}

/// The dtype with its byte order: `=f4` and `f4` are in this machine's, a single byte has none.
/// Empty if it is none that is read.
inline std::string full_npy_dtype(std::string_view dtype) {
  const bool has_order = dtype.size() == 3;
  const std::string_view code = dtype.substr(has_order ? 1 : 0);
  if (!with_npy_type(NpyTypes{}, code, [](auto) {})) return {};
  const char order = has_order ? dtype[0] : '=';
  if (std::string_view("<>=|").find(order) == std::string_view::npos) return {};
  if (code[1] == '1') return '|' + std::string(code);
  if (order == '|') return {};
  constexpr char native = std::endian::native == std::endian::little ? '<' : '>';
  return (order == '=' ? native : order) + std::string(code);
}

/// Reads the Python dictionary `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`: these
/// three keys once each in any order, and no other Python; of Python 2 also `u'descr'` and `3L`.
class NpyHeaderParser {
 public:
  NpyHeaderParser(std::string_view text, const Place& place) : rest_(text), place_(place) {}

  NpyHeader parse() {
    expect('{');
    while (!accept('}')) {
      entry();
      if (accept(',')) continue;
      expect('}');
      break;
    }
    skip_space();
    if (!rest_.empty()) wanted("nothing after the dictionary");
    if (!dtype_ || !fortran_order_ || !shape_)
      place_.refuse("a header without " + std::string(!dtype_           ? "'descr'"
                                                      : !fortran_order_ ? "'fortran_order'"
                                                                        : "'shape'"),
                    "'descr', 'fortran_order' and 'shape'");
    return {*dtype_, *fortran_order_, *shape_};
  }

 private:
  [[noreturn]] void wanted(const std::string& what) const {
    place_.refuse(rest_.empty() ? "the end of the header" : "header text `" + excerpt(rest_) + "`",
                  what);
  }

  void skip_space() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\n"), rest_.size()));
  }

  bool accept(char c) {
    skip_space();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void expect(char c) {
    if (!accept(c)) wanted(std::string{'`', c, '`'});
  }

  bool accept_word(std::string_view word) {
    skip_space();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  /// Python 2 wrote some of its strings as u'text'.
  std::string_view quoted() {
    skip_space();
    const bool prefixed = rest_.starts_with("u'") || rest_.starts_with("u\"");
    if (prefixed) rest_.remove_prefix(1);
    const char quote = accept('\'') ? '\'' : accept('"') ? '"' : '\0';
    if (quote == '\0') wanted("a quoted string");
    const std::size_t end = rest_.find(quote);
    if (end == std::string_view::npos) wanted("a closing quote");
    const std::string_view text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return text;
  }

  void entry() {
    const std::string_view key = quoted();
    const bool again = (key == "descr" && dtype_) || (key == "fortran_order" && fortran_order_) ||
                       (key == "shape" && shape_);
    if (again) place_.refuse("header key '" + excerpt(key) + "' twice", "every key once");
    expect(':');
    if (key == "descr")
      dtype_ = dtype();
    else if (key == "fortran_order")
      fortran_order_ = boolean();
    else if (key == "shape")
      shape_ = shape();
    else
      place_.refuse("header key '" + excerpt(key) + "'", "'descr', 'fortran_order' or 'shape'");
  }

  std::string dtype() {
    const std::string plain = "a plain number: <, > or | with b1, i1 to i8, u1 to u8, f2, f4 or f8";
    if (accept('[')) place_.refuse("a structured dtype", plain);
    const std::string_view text = quoted();
    std::string full = full_npy_dtype(text);
    if (full.empty()) place_.refuse("dtype '" + excerpt(text) + "'", plain);
    return full;
  }

  bool boolean() {
    if (accept_word("True")) return true;
    if (!accept_word("False")) wanted("True or False");
    return false;
  }

  std::vector<Index> shape() {
    std::vector<Index> extents;
    expect('(');
    bool comma = true;
    while (!accept(')')) {
      if (!comma) wanted("`,` or `)`");
      extents.push_back(extent());
      comma = accept(',');
    }
    if (extents.size() == 1 && !comma)
      place_.refuse("a shape that is a number", "a tuple, `(n,)` for one dimension");
    return extents;
  }

  Index extent() {
    skip_space();
    if (rest_.starts_with('-')) wanted("extents that are not negative");
    const bool padded = rest_.size() > 1 && rest_[0] == '0' && rest_[1] >= '0' && rest_[1] <= '9';
    Index value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error == std::errc::result_out_of_range) wanted("an extent that fits 63 bits");
    if (error != std::errc{} || padded) wanted("a decimal extent");
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    // Python 2 wrote its long integers as 3L.
    if (rest_.starts_with('L')) rest_.remove_prefix(1);
    return value;
  }

  std::string_view rest_;
  const Place& place_;
  std::optional<std::string> dtype_;
  std::optional<bool> fortran_order_;
  std::optional<std::vector<Index>> shape_;
};

/// Magic, version, length and text, padded with spaces to a multiple of 64 bytes as NumPy does.
/// Version 1.0 unless the text needs more than 16 bits of length.
inline std::string npy_header_bytes(const NpyHeader& header) {
  std::string text = "{'descr': '" + header.dtype +
                     "', 'fortran_order': " + (header.fortran_order ? "True" : "False") +
                     ", 'shape': " + shape_text(header.shape) + ", }";
  const auto padded = [&](std::size_t prefix) {
    return (prefix + text.size() + 1 + 63) / 64 * 64 - prefix;
  };
  const bool is_short = padded(10) <= 0xffff;
  const std::size_t length = padded(is_short ? 10 : 12);
  text.resize(length - 1, ' ');
  std::string bytes(npy_magic);
  bytes += {is_short ? '\1' : '\2', '\0'};
  for (std::size_t i = 0; i < (is_short ? 2u : 4u); ++i)
    bytes += static_cast<char>(static_cast<unsigned char>(length >> (8 * i)));
  return bytes + text + '\n';
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
