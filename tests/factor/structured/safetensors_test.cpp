// SPDX-License-Identifier: Apache-2.0
// Structured weights in .safetensors files: what is written comes back, what is damaged is refused.
#include <pare/factor/structured/safetensors.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
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
