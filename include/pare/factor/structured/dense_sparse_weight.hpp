// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A weight that is a sparse times a small dense matrix (DSFormer): each output is a sum of a few
/// of the atoms that its block of outputs shares.
///
/// ```cpp
/// const auto fit = dense_sparse(w, {.atoms = 64, .nonzeros = 8});  // dense_sparse.hpp
/// const DenseSparse<bf16> stored = fit.weight.rounded<bf16>();
/// stored.bytes(), stored.place(o, k), stored.value(o, k), stored.dictionary();
/// const DenseSparse<float> read(shape, dictionary, places, values);  // checked
/// ```
///
/// W [outputs x inputs], outputs in blocks of `block`:
///
///     W_b = S_b D_b, D_b [atoms x inputs] dense, S_b [block x atoms] with `nonzeros` in each row.
///
/// The paper writes its weight the other way round (y = x W), so that its columns are outputs here.
/// Blocks of outputs, not of inputs: y_b = S_b (D_b x) is then a product with a dense matrix and a
/// look-up of a few sums for each output. Blocks of inputs would ask for S_b x_b first, which adds
/// each input to places all over the sums: 4 to 12 times slower (kernel/combine_atoms.hpp). Errors
/// of outputs are also weighed by one covariance of the inputs, the same for each row of W.
///
/// Stored are: all D_b one below the other; of each 16 outputs the k-th values side by side, those
/// of the last group filled up with zeros, and likewise their places, in 8 bits up to 256 atoms and
/// in 16 beyond. In bf16: 2 atoms inputs outputs / block bytes, and 3 or 4 for each of the
/// nonzeros.
///
/// Source of the form: Chand, Prabhu and Kumar, DSFormer, arXiv 2312.13211. The layout is ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/combine_atoms.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace pare::factor {

/// Atoms of a block at most, and up to how many places have 8 bits.
inline constexpr Index most_atoms = 65536, small_place_atoms = 256;

/// The extents of a dense times sparse weight.
struct DenseSparseShape {
  Index outputs = 1;   ///< at least 1
  Index inputs = 1;    ///< at least 1
  Index block = 1;     ///< outputs that share atoms, a divisor of `outputs`
  Index atoms = 1;     ///< of a block, in [1, 65536]
  Index nonzeros = 1;  ///< of an output, in [1, atoms]
};

PARE_ABI_BEGIN

/// Checks the extents; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range, or the memory beyond 63 bits
inline void validate(const char* function, const DenseSparseShape& s) {
  check(s.outputs >= 1, function, "outputs", s.outputs, "at least 1");
  check(s.inputs >= 1, function, "inputs", s.inputs, "at least 1");
  check(s.block >= 1 && s.outputs % s.block == 0, function, "block", s.block,
        Worded{"a divisor of the outputs, ", s.outputs});
  check(s.atoms >= 1 && s.atoms <= most_atoms, function, "atoms", s.atoms,
        "a number in [1, 65536]");
  check(s.nonzeros >= 1 && s.nonzeros <= s.atoms, function, "nonzeros", s.nonzeros,
        Worded{"a number from 1 to the atoms, ", s.atoms});
  const Index rows = checked_product(function, "atoms", s.outputs / s.block, s.atoms);
  checked_count(function, "inputs", checked_product(function, "inputs", rows, s.inputs), 8);
  checked_count(function, "nonzeros", checked_product(function, "nonzeros", s.outputs, s.nonzeros),
                8 * 16);
}

/// W of S, in the layout of this file. It can be moved, not copied; `copy` says so in words.
template <StorageScalar S>
class DenseSparse {
  static constexpr Index group = kernel::code_group;

 public:
  using scalar = S;
  using compute = compute_t<S>;

  /// A matrix of no outputs.
  DenseSparse() = default;
  /// What is moved from has no outputs.
  DenseSparse(DenseSparse&& other) noexcept { *this = std::move(other); }
  DenseSparse& operator=(DenseSparse&& other) noexcept {
    shape_ = std::exchange(other.shape_, none);
    extents_ = std::exchange(other.extents_, {});
    dictionary_ = std::move(other.dictionary_);
    values_ = std::move(other.values_);
    small_ = std::move(other.small_);
    wide_ = std::move(other.wide_);
    return *this;
  }

  /// All values zero, places 0, 1, 2, ...
  /// \throws std::invalid_argument as `validate`
  explicit DenseSparse(const DenseSparseShape& shape)
      : shape_(shape),
        extents_{shape.outputs, shape.inputs, shape.block, shape.atoms, shape.nonzeros} {
    validate("factor::DenseSparse", shape);
    const std::size_t entries = size_of(blocks() * block_entries());
    fill(dictionary_, size_of(blocks() * atoms() * inputs()));
    fill(values_, entries);
    if (places_are_small())
      fill(small_, entries);
    else
      fill(wide_, entries);
    for (Index o = 0; o < outputs(); ++o)
      for (Index k = 0; k < nonzeros(); ++k) set(o, k, k, S{});
  }

  /// Of parts, which are copied.
  ///
  /// \param shape      the extents
  /// \param dictionary [outputs / block * atoms x inputs] of S: the atoms of the first block, of
  ///                   the second, ...
  /// \param places     [outputs x nonzeros] integers, one row behind the other: atoms of the
  ///                   output's block, ascending
  /// \param values     [outputs x nonzeros] of S
  /// \throws std::invalid_argument as `validate`, if an extent differs, or if a place is no atom or
  ///         not above the one before it
  template <class P>
  DenseSparse(const DenseSparseShape& shape, TensorView<const S, 2> dictionary,
              std::span<const P> places, TensorView<const S, 2> values)
      : DenseSparse(shape) {
    constexpr const char* function = "factor::DenseSparse";
    check_view(function, "dictionary", dictionary);
    check_extents<2>(function, "dictionary", dictionary.extent, {blocks() * atoms(), inputs()});
    check_view(function, "values", values);
    check_extents<2>(function, "values", values.extent, {outputs(), nonzeros()});
    check(places.size() == size_of(outputs() * nonzeros()), function, "places", places.size(),
          outputs() * nonzeros());
    for (Index o = 0; o < outputs(); ++o) {
      Index before = -1;
      for (Index k = 0; k < nonzeros(); ++k) {
        const auto place = static_cast<Index>(places[size_of(o * nonzeros() + k)]);
        if (place <= before || place >= atoms())
          check(false, function, "places", place_text(o, k, place), "ascending places of atoms");
        set(o, k, before = place, values(o, k));
      }
    }
    for (Index a = 0; a < dictionary.rows(); ++a)
      for (Index i = 0; i < inputs(); ++i) own_dictionary()(a, i) = dictionary(a, i);
  }

  DenseSparse copy() const { return rounded<S>(); }

  /// The same with dictionary and values rounded to another storage scalar, nearest, ties to even.
  template <StorageScalar To>
  DenseSparse<To> rounded() const {
    const auto round = [](S value) {
      return static_cast<To>(static_cast<compute_t<To>>(static_cast<compute>(value)));
    };
    if (outputs() == 0) return {};
    DenseSparse<To> to(shape_);
    for (Index a = 0; a < dictionary().rows(); ++a)
      for (Index i = 0; i < inputs(); ++i) to.own_dictionary()(a, i) = round(dictionary()(a, i));
    for (Index o = 0; o < outputs(); ++o)
      for (Index k = 0; k < nonzeros(); ++k) to.set(o, k, place(o, k), round(value(o, k)));
    return to;
  }

  const DenseSparseShape& shape() const { return shape_; }
  Index outputs() const { return shape_.outputs; }
  Index inputs() const { return shape_.inputs; }
  Index block() const { return shape_.block; }
  Index blocks() const { return shape_.block == 0 ? 0 : shape_.outputs / shape_.block; }
  Index atoms() const { return shape_.atoms; }
  Index nonzeros() const { return shape_.nonzeros; }

  /// [blocks * atoms x inputs], rows contiguous.
  TensorView<const S, 2> dictionary() const {
    return {dictionary_.data(), {blocks() * atoms(), inputs()}, {inputs(), 1}};
  }
  TensorView<S, 2> own_dictionary() {
    return {dictionary_.data(), {blocks() * atoms(), inputs()}, {inputs(), 1}};
  }

  /// The k-th entry of output o, which are not checked.
  S value(Index o, Index k) const { return values_.data()[at(o, k)]; }
  /// Its atom, from 0 on in each block.
  Index place(Index o, Index k) const {
    return places_are_small() ? Index{small_.data()[at(o, k)]} : Index{wide_.data()[at(o, k)]};
  }
  /// Writes an entry. The caller keeps the places of an output ascending and below `atoms`.
  void set(Index o, Index k, Index place, S value) {
    values_.data()[at(o, k)] = value;
    if (places_are_small())
      small_.data()[at(o, k)] = static_cast<std::uint8_t>(place);
    else
      wide_.data()[at(o, k)] = static_cast<std::uint16_t>(place);
  }

  /// Whether places have 8 bits.
  bool places_are_small() const { return atoms() <= small_place_atoms; }

  /// Calls visit(values, places) with those of a block, [groups x nonzeros x 16].
  template <class Visit>
  void visit_block(Index b, const Visit& visit) const {
    const Index first = b * block_entries();
    if (places_are_small())
      visit(values_.data() + first, static_cast<const std::uint8_t*>(small_.data()) + first);
    else
      visit(values_.data() + first, static_cast<const std::uint16_t*>(wide_.data()) + first);
  }

  /// The extents in a row, as a file has them: outputs, inputs, block, atoms, nonzeros.
  TensorView<const Index, 1> extents() const { return {extents_.data(), {5}, {1}}; }
  /// All values as they lie, [blocks, groups of 16 outputs, nonzeros, 16].
  TensorView<const S, 4> stored_values() const { return as_stored(values_); }
  /// Their places, where those are small, and where not; the other has no memory.
  TensorView<const std::uint8_t, 4> small_places() const { return as_stored(small_); }
  TensorView<const std::uint16_t, 4> wide_places() const { return as_stored(wide_); }

  /// Stored bytes: dictionary, values and places.
  Index bytes() const {
    const Index entries = blocks() * block_entries();
    return (blocks() * atoms() * inputs() + entries) * Index{sizeof(S)} +
           entries * (places_are_small() ? 1 : 2);
  }

  /// W as a matrix [outputs x inputs], summed in double.
  RowMatrix<compute> dense() const {
    RowMatrix<compute> w(outputs(), inputs());
    Eigen::RowVectorXd sum(inputs());
    for (Index o = 0; o < outputs(); ++o) {
      sum.setZero();
      for (Index k = 0; k < nonzeros(); ++k) {
        const auto v = static_cast<double>(static_cast<compute>(value(o, k)));
        const Index atom = o / block() * atoms() + place(o, k);
        for (Index i = 0; i < inputs(); ++i)
          sum(i) += v * static_cast<double>(static_cast<compute>(dictionary()(atom, i)));
      }
      for (Index i = 0; i < inputs(); ++i) w(o, i) = static_cast<compute>(sum(i));
    }
    return w;
  }

 private:
  static constexpr DenseSparseShape none{0, 0, 0, 0, 0};

  static std::size_t size_of(Index n) { return static_cast<std::size_t>(n); }
  template <class X>
  static void fill(AlignedBuffer<X>& buffer, std::size_t size) {
    std::fill_n(buffer.resize(size), size, X{});
  }
  static std::string place_text(Index o, Index k, Index place) {
    return std::to_string(place) + " as entry " + std::to_string(k) + " of output " +
           std::to_string(o);
  }

  template <class X>
  TensorView<const X, 4> as_stored(const AlignedBuffer<X>& buffer) const {
    const Index groups = ceil_div(block(), group), line = nonzeros() * group;
    return {buffer.data(), {blocks(), groups, nonzeros(), group}, {groups * line, line, group, 1}};
  }

  Index block_entries() const { return ceil_div(block(), group) * nonzeros() * group; }
  Index at(Index o, Index k) const {
    const Index in_block = o % block();
    return o / block() * block_entries() + (in_block / group * nonzeros() + k) * group +
           in_block % group;
  }

  DenseSparseShape shape_ = none;
  std::array<Index, 5> extents_{};  ///< those of shape_
  AlignedBuffer<S> dictionary_, values_;
  AlignedBuffer<std::uint8_t> small_;
  AlignedBuffer<std::uint16_t> wide_;
};

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
