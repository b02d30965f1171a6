// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a .gguf file may hold: the types of metadata and of tensors, their names and sizes.
///
/// Source: docs/gguf.md of ggml, and the constants of gguf-py.

#include <pare/core/scalar.hpp>
#include <pare/io/detail/elements.hpp>
#include <pare/kernel/quantized.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace pare::io {

/// The type of a value of the metadata.
enum class GgufValue : std::uint32_t {
  Uint8 = 0,
  Int8 = 1,
  Uint16 = 2,
  Int16 = 3,
  Uint32 = 4,
  Int32 = 5,
  Float32 = 6,
  Bool = 7,
  String = 8,
  Array = 9,
  Uint64 = 10,
  Int64 = 11,
  Float64 = 12
};

/// How the elements of a tensor are stored. Files may have numbers that are not among these.
enum class GgufType : std::uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  IQ2_XXS = 16,
  IQ2_XS = 17,
  IQ3_XXS = 18,
  IQ1_S = 19,
  IQ4_NL = 20,
  IQ3_S = 21,
  IQ2_S = 22,
  IQ4_XS = 23,
  I8 = 24,
  I16 = 25,
  I32 = 26,
  I64 = 27,
  F64 = 28,
  IQ1_M = 29,
  BF16 = 30,
  TQ1_0 = 34,
  TQ2_0 = 35,
  MXFP4 = 39
};

/// What tensors of floats may be viewed as: the C++ types of F64, F32, F16 and BF16.
template <class S>
concept GgufViewable = StorageScalar<S>;

/// The blocks of quantised tensors.
template <class S>
concept GgufBlocks =
    std::same_as<S, kernel::Q8_0> || std::same_as<S, kernel::Q4_0> ||
    std::same_as<S, kernel::Q4_1> || std::same_as<S, kernel::Q4_K> || std::same_as<S, kernel::Q6_K>;

/// Numbers of metadata: float, double, bool, and integers of 8 to 64 bits.
template <class T>
concept GgufNumber = detail::PlainNumber<T> && !std::same_as<T, f16>;

namespace detail {
PARE_ABI_BEGIN

/// Names by number, and the bytes of a value; 0 where they depend on the value.
struct GgufValueSize {
  std::string_view name;
  std::size_t bytes;
};

inline constexpr std::array<GgufValueSize, 13> gguf_values{{{"uint8", 1},
                                                            {"int8", 1},
                                                            {"uint16", 2},
                                                            {"int16", 2},
                                                            {"uint32", 4},
                                                            {"int32", 4},
                                                            {"float32", 4},
                                                            {"bool", 1},
                                                            {"string", 0},
                                                            {"array", 0},
                                                            {"uint64", 8},
                                                            {"int64", 8},
                                                            {"float64", 8}}};

constexpr const GgufValueSize& gguf_value(GgufValue type) {
  return gguf_values[static_cast<std::size_t>(type)];
}

/// A type of tensors: so many elements of a row are stored in so many bytes.
struct GgufBlock {
  GgufType type;
  std::string_view name;
  Index elements, bytes;
};

inline constexpr std::array<GgufBlock, 30> gguf_blocks{{{GgufType::F32, "F32", 1, 4},
                                                        {GgufType::F16, "F16", 1, 2},
                                                        {GgufType::Q4_0, "Q4_0", 32, 18},
                                                        {GgufType::Q4_1, "Q4_1", 32, 20},
                                                        {GgufType::Q5_0, "Q5_0", 32, 22},
                                                        {GgufType::Q5_1, "Q5_1", 32, 24},
                                                        {GgufType::Q8_0, "Q8_0", 32, 34},
                                                        {GgufType::Q2_K, "Q2_K", 256, 84},
                                                        {GgufType::Q3_K, "Q3_K", 256, 110},
                                                        {GgufType::Q4_K, "Q4_K", 256, 144},
                                                        {GgufType::Q5_K, "Q5_K", 256, 176},
                                                        {GgufType::Q6_K, "Q6_K", 256, 210},
                                                        {GgufType::IQ2_XXS, "IQ2_XXS", 256, 66},
                                                        {GgufType::IQ2_XS, "IQ2_XS", 256, 74},
                                                        {GgufType::IQ3_XXS, "IQ3_XXS", 256, 98},
                                                        {GgufType::IQ1_S, "IQ1_S", 256, 50},
                                                        {GgufType::IQ4_NL, "IQ4_NL", 32, 18},
                                                        {GgufType::IQ3_S, "IQ3_S", 256, 110},
                                                        {GgufType::IQ2_S, "IQ2_S", 256, 82},
                                                        {GgufType::IQ4_XS, "IQ4_XS", 256, 136},
                                                        {GgufType::I8, "I8", 1, 1},
                                                        {GgufType::I16, "I16", 1, 2},
                                                        {GgufType::I32, "I32", 1, 4},
                                                        {GgufType::I64, "I64", 1, 8},
                                                        {GgufType::F64, "F64", 1, 8},
                                                        {GgufType::IQ1_M, "IQ1_M", 256, 56},
                                                        {GgufType::BF16, "BF16", 1, 2},
                                                        {GgufType::TQ1_0, "TQ1_0", 256, 54},
                                                        {GgufType::TQ2_0, "TQ2_0", 256, 66},
                                                        {GgufType::MXFP4, "MXFP4", 32, 17}}};

/// Null for a number that the format did not have when this was written.
constexpr const GgufBlock* gguf_block(GgufType type) {
  for (const GgufBlock& block : gguf_blocks)
    if (block.type == type) return &block;
  return nullptr;
}

/// `type Q5_K (13)`, or `type 77`, for an error message.
inline std::string type_text(GgufType type) {
  const std::string number = std::to_string(static_cast<std::uint32_t>(type));
  const GgufBlock* const block = gguf_block(type);
  return block == nullptr ? "type " + number
                          : "type " + std::string(block->name) + " (" + number + ")";
}

/// The type whose elements, or whose blocks, a C++ type is.
template <class S>
constexpr GgufType gguf_type_of() {
  if (std::is_same_v<S, float>) return GgufType::F32;
  if (std::is_same_v<S, double>) return GgufType::F64;
  if (std::is_same_v<S, f16>) return GgufType::F16;
  if (std::is_same_v<S, bf16>) return GgufType::BF16;
  if (std::is_same_v<S, kernel::Q8_0>) return GgufType::Q8_0;
  if (std::is_same_v<S, kernel::Q4_0>) return GgufType::Q4_0;
  if (std::is_same_v<S, kernel::Q4_1>) return GgufType::Q4_1;
  if (std::is_same_v<S, kernel::Q4_K>) return GgufType::Q4_K;
  return GgufType::Q6_K;
}

/// The type of metadata that a C++ number is.
template <class T>
constexpr GgufValue gguf_value_of() {
  if (std::is_same_v<T, bool>) return GgufValue::Bool;
  if (std::is_same_v<T, float>) return GgufValue::Float32;
  if (std::is_same_v<T, double>) return GgufValue::Float64;
  if (sizeof(T) == 8) return std::is_signed_v<T> ? GgufValue::Int64 : GgufValue::Uint64;
  if (sizeof(T) == 4) return std::is_signed_v<T> ? GgufValue::Int32 : GgufValue::Uint32;
  if (sizeof(T) == 2) return std::is_signed_v<T> ? GgufValue::Int16 : GgufValue::Uint16;
  return std::is_signed_v<T> ? GgufValue::Int8 : GgufValue::Uint8;
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
