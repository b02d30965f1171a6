// SPDX-License-Identifier: Apache-2.0
// Structured weights in .safetensors files: what is written comes back, what is damaged is refused.
#include <pare/factor/structured/safetensors.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/matrices.hpp"

namespace factor_structured_safetensors_test {
namespace {

using namespace pare::factor;
using pare::bf16;
using pare::f16;
using pare::Index;
using pare::io::NamedTensor;
using pare::io::SafetensorsFile;

using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Words = Eigen::Matrix<std::uint16_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The bytes of a file with these tensors, at an aligned address.
class Stored {
 public:
  explicit Stored(const std::vector<NamedTensor>& tensors) {
    std::ostringstream os;
    pare::io::write_safetensors(os, tensors);
    const std::string text = os.str();
    size_ = text.size();
    words_.resize(size_ / 8 + 1);
    std::memcpy(words_.data(), text.data(), size_);
  }
  std::span<const std::byte> bytes(std::size_t cut = 0) const {
    return std::as_bytes(std::span(words_)).first(size_ - cut);
  }

 private:
  std::vector<std::uint64_t> words_;
  std::size_t size_ = 0;
};

template <class S>
TwoFour<S> some_weight(Index outputs, Index inputs) {
  TwoFourMask mask(outputs, inputs);
  for (Index o = 0; o < outputs; ++o)
    for (Index g = 0; g < inputs / 4; ++g) mask.set_group(o, g, (o + g) % 2 == 0 ? 0b1010 : 0b0110);
  return TwoFour<S>::from(pare::testing::random_matrix<Dense>(outputs, inputs, 1), mask);
}

template <class S>
class StructuredFile : public ::testing::Test {};
using Storages = ::testing::Types<float, double, bf16, f16, std::int8_t>;
TYPED_TEST_SUITE(StructuredFile, Storages);

TYPED_TEST(StructuredFile, TwoFourWeightsComeBack) {
  using W = TwoFour<TypeParam>;
  for (const Index inputs : {4, 20, 64, 260}) {
    const W small = some_weight<TypeParam>(3, inputs), other = some_weight<TypeParam>(5, 8);
    std::vector<NamedTensor> tensors;
    add_structured(tensors, "a", small);
    add_structured(tensors, "layer.b", other);
    const Stored stored(tensors);
    const SafetensorsFile file(stored.bytes());
    EXPECT_EQ(file.tensor("a.values").shape, (std::vector<Index>{3, inputs / 2}));
    const W again = read_structured<W>(file, "a");
    EXPECT_EQ(again.mask(), small.mask());
    Dense wanted(3, inputs), got(3, inputs);
    small.to_dense(wanted);
    again.to_dense(got);
    EXPECT_EQ(got, wanted);
    for (Index i = inputs / 2; i < again.row_values(); ++i)
      EXPECT_EQ(static_cast<double>(static_cast<two_four_t<TypeParam>>(again.values()(2, i))), 0);
    EXPECT_EQ(read_structured<W>(file, "layer.b").outputs(), 5);
  }
}

/// Reading `name` as a W throws with these words.
template <class W>
void refused(const Stored& stored, const std::string& words, const std::string& name = "a") {
  const SafetensorsFile file(stored.bytes());
  try {
    read_structured<W>(file, name);
    ADD_FAILURE() << "was read, wanted: " << words;
  } catch (const std::invalid_argument& e) {
    EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
  }
}

TEST(StructuredFile, DamagedFilesAreRefused) {
  using W = TwoFour<float>;
  const W weight = some_weight<float>(3, 20);
  std::vector<NamedTensor> tensors;
  add_structured(tensors, "a", weight);
  const Stored whole(tensors);
  for (const std::size_t cut : {1U, 7U, 40U})
    EXPECT_THROW(SafetensorsFile(whole.bytes(cut)), std::invalid_argument) << cut;
  refused<W>(whole, "no tensor", "b");
  refused<TwoFour<bf16>>(whole, "F32");
  refused<TwoFour<std::int8_t>>(whole, "F32");

  const Dense values = Dense::Ones(3, 10);
  Words words = Eigen::Map<const Words>(weight.mask().words().data, 3, 2);
  refused<W>(Stored({{"a.values", values}}), "a.mask");
  refused<W>(Stored({{"a.values", values}, {"a.mask", Dense(Dense::Ones(3, 2))}}), "U16");
  refused<W>(Stored({{"a.values", values}, {"a.mask", Words(words.topRows(2))}}),
             "a.mask: got [2, 2], wanted [3, 2]");
  refused<W>(Stored({{"a.values", Dense(Dense::Ones(3, 9))}, {"a.mask", words}}),
             "inputs: got 18, wanted a multiple of 4");
  words(2, 1) = 0x0007;
  refused<W>(Stored({{"a.values", values}, {"a.mask", words}}),
             "3 kept at row 2, columns 16 to 19, wanted 2 of each 4");
  words(2, 1) = 0x0033;
  refused<W>(Stored({{"a.values", values}, {"a.mask", words}}),
             "2 kept at row 2, columns 20 to 23, wanted none behind column 19");
}

TEST(StructuredFile, BlocksComeBack) {
  const auto blocks = pare::testing::random_matrix<Dense>(12, 4, 3);
  const auto weight = BlockDiagonal<bf16>::from(blocks);
  std::vector<NamedTensor> tensors;
  add_structured(tensors, "a", weight);
  const Stored stored(tensors);
  const auto again = read_structured<BlockDiagonal<bf16>>(SafetensorsFile(stored.bytes()), "a");
  EXPECT_EQ(again.block(), 4);
  for (Index i = 0; i < 12; ++i)
    for (Index j = 0; j < 4; ++j)
      EXPECT_EQ(static_cast<float>(again.values()(i, j)), static_cast<float>(bf16(blocks(i, j))));
  refused<BlockDiagonal<float>>(stored, "BF16");
  refused<BlockDiagonal<float>>(Stored({{"a.blocks", Dense(Dense::Ones(10, 4))}}),
                                "size: got 10, wanted a multiple of the block of 4");
}

/// Blocks of 20 outputs, which are no whole groups of 16; places of 8 and 16 bits.
DenseSparse<float> some_dense_sparse(Index atoms) {
  DenseSparse<float> weight(
      {.outputs = 40, .inputs = 9, .block = 20, .atoms = atoms, .nonzeros = 3});
  const auto dictionary = pare::testing::random_matrix<Dense>(2 * atoms, 9, 1);
  const auto values = pare::testing::random_matrix<Dense>(40, 3, 2);
  for (Index a = 0; a < 2 * atoms; ++a)
    for (Index i = 0; i < 9; ++i) weight.own_dictionary()(a, i) = dictionary(a, i);
  for (Index o = 0; o < 40; ++o)
    for (Index k = 0; k < 3; ++k) weight.set(o, k, k * (atoms / 3) + o % 2, values(o, k));
  return weight;
}

TEST(StructuredFile, DenseSparseWeightsComeBack) {
  using W = DenseSparse<float>;
  for (const Index atoms : {7, 300}) {
    const W weight = some_dense_sparse(atoms);
    std::vector<NamedTensor> tensors;
    add_structured(tensors, "a", weight);
    const Stored stored(tensors);
    const W again = read_structured<W>(SafetensorsFile(stored.bytes()), "a");
    EXPECT_EQ(again.dense(), weight.dense());
    EXPECT_EQ(again.place(39, 2), weight.place(39, 2));
    EXPECT_EQ(again.bytes(), weight.bytes());
    refused<DenseSparse<bf16>>(stored, "F32");
  }
}

TEST(StructuredFile, DamagedDenseSparseWeightsAreRefused) {
  using W = DenseSparse<float>;
  W weight = some_dense_sparse(7);
  std::vector<NamedTensor> tensors;
  add_structured(tensors, "a", weight);
  using Extents = Eigen::Matrix<std::int64_t, Eigen::Dynamic, 1>;
  const auto with = [&](const Extents& extents, const std::string& words) {
    std::vector<NamedTensor> changed(tensors.begin() + 1, tensors.end());
    const pare::TensorView<const std::int64_t, 1> view{extents.data(), {extents.size()}, {1}};
    changed.emplace_back("a.extents", view);
    refused<W>(Stored(changed), words);
  };
  with(Extents::Ones(4), "a.extents: got 4, wanted 5 numbers");
  with((Extents(5) << 40, 9, 19, 7, 3).finished(), "block: got 19");
  with((Extents(5) << 40, 9, 20, 7, 8).finished(), "nonzeros: got 8");
  with((Extents(5) << 40, 9, 20, 7, 2).finished(), "a.values: got [2, 2, 3, 16]");
  with((Extents(5) << 40, 8, 20, 7, 3).finished(), "a.dictionary: got [14, 9], wanted [14, 8]");
  with((Extents(5) << 40, 9, std::int64_t{1} << 62, 7, 3).finished(), "block");
  weight.set(25, 1, 0, 1.0f);  // behind a place of 1
  refused<W>(Stored(tensors), "0 as entry 1 of output 25");
}

TEST(StructuredFile, EightBitsNeedTheirScales) {
  using W = TwoFour<std::int8_t>;
  const W weight = some_weight<std::int8_t>(3, 132);
  auto values = weight.values();
  values.extent[1] = 66;
  const std::vector<NamedTensor> without{{"a.values", values}, {"a.mask", weight.mask().words()}};
  refused<W>(Stored(without), "a.scales");
  std::vector<NamedTensor> tensors = without;
  tensors.emplace_back("a.scales", Dense(Dense::Ones(3, 1)));
  refused<W>(Stored(tensors), "a.scales: got [3, 1], wanted [3, 2]");
}

}  // namespace
}  // namespace factor_structured_safetensors_test
