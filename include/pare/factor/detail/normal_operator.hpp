// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// G = M M^T as something that multiplies: the operators whose leading eigenvectors are sought.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/gaussian.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/orthonormalize.hpp>
#include <pare/projection/project.hpp>

#include <algorithm>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// The scale that a vector of factors stands for; none if it is empty.
template <class T>
const T* scale_of(const std::vector<T>& factors) {
  return factors.empty() ? nullptr : factors.data();
}

template <class T>
std::vector<T> squares_of(std::vector<T> factors) {
  for (T& factor : factors) factor *= factor;
  return factors;
}

/// y = W Omega for a random sparse Omega with 8 signs a column.
template <class B, class S, class T>
void sparse_sketch(const B& backend, TensorView<const S, 2> w, std::uint64_t seed,
                   RowMatrix<T>& y) {
  const projection::SparseSignProjection omega{.input_dim = w.cols(),
                                               .output_dim = y.cols(),
                                               .nonzeros = std::min<Index>(8, y.cols()),
                                               .seed = seed};
  projection::project(backend, w, omega, y);
}

/// y = a b.
template <class B, class T>
void multiply_plain(const B& backend, const RowMatrix<T>& a, const RowMatrix<T>& b,
                    RowMatrix<T>& y) {
  y.resize(a.rows(), b.cols());
  linalg::multiply(backend, const_view(a), const_view(b), to_view(y));
}

/// M = diag(row) W diag(column), never stored. An empty scale is all ones.
template <class B, class S, class T>
struct ScaledMatrix {
  using scalar = T;

  const B& backend;
  TensorView<const S, 2> w;
  std::vector<T> row;
  std::vector<T> column;

  Index rows() const { return w.rows(); }
  Index cols() const { return w.cols(); }
  ScaledMatrix transposed() const { return {backend, transpose(w), column, row}; }

  /// M itself.
  RowMatrix<T> dense() const {
    RowMatrix<T> m(rows(), cols());
    for (Index i = 0; i < rows(); ++i)
      for (Index j = 0; j < cols(); ++j) {
        T x = static_cast<T>(static_cast<compute_t<S>>(w(i, j)));
        if (!row.empty()) x *= row[static_cast<std::size_t>(i)];
        m(i, j) = column.empty() ? x : x * column[static_cast<std::size_t>(j)];
      }
    return m;
  }

  /// y = M x.
  void multiply(const RowMatrix<T>& x, RowMatrix<T>& y) const {
    y.resize(rows(), x.cols());
    linalg::multiply(backend, w, const_view(x), to_view(y),
                     {.row_scale = scale_of(row), .depth_scale = scale_of(column)});
  }

  /// y = M^T x.
  void multiply_transposed(const RowMatrix<T>& x, RowMatrix<T>& y) const {
    transposed().multiply(x, y);
  }

  /// y = M Omega for a random Omega [cols x columns of y].
  void sketch(const SvdOptions& options, RowMatrix<T>& y) const {
    // The sparse operator is applied to W as it is stored, so it cannot see a scale of its columns.
    if constexpr (std::is_same_v<compute_t<S>, T>) {
      if (options.sketch == Sketch::Sparse && column.empty()) {
        sparse_sketch(backend, w, options.seed, y);
        for (Index i = 0; i < y.rows() && !row.empty(); ++i)
          y.row(i) *= row[static_cast<std::size_t>(i)];
        return;
      }
    }
    RowMatrix<T> omega(cols(), y.cols());
    linalg::fill_normal(backend.executor, options.seed, 0, omega);
    multiply(omega, y);
  }
};

/// G, as iteration asks for it: few calls of much work each, so that the iteration is compiled once
/// for all operators.
template <class T>
class SymmetricOperator {
 public:
  virtual Index dimension() const = 0;
  /// A random sample of the range of G, as wide as y.
  virtual void start(const SvdOptions& options, RowMatrix<T>& y) = 0;
  /// y = G q.
  virtual void apply(const RowMatrix<T>& q, RowMatrix<T>& y) = 0;
  /// q^T G q.
  virtual RowMatrix<double> rayleigh(const RowMatrix<T>& q) = 0;
  /// y = G q factor for the q of the last rayleigh.
  virtual void image(const RowMatrix<T>& factor, RowMatrix<T>& y) = 0;

 protected:
  ~SymmetricOperator() = default;
};

/// G = M M^T by two products with M, which may be anything that multiplies.
template <class B, class M>
class NormalOperator final : public SymmetricOperator<typename M::scalar> {
  using T = typename M::scalar;

 public:
  NormalOperator(const B& backend, M& m) : backend_(backend), m_(m) {}

  Index dimension() const override { return m_.rows(); }
  void start(const SvdOptions& options, RowMatrix<T>& y) override { m_.sketch(options, y); }

  /// The columns of M^T Q are made orthonormal in between: G Q itself would lose what lies below
  /// the square root of the unit roundoff.
  void apply(const RowMatrix<T>& q, RowMatrix<T>& y) override {
    m_.multiply_transposed(q, half_);
    linalg::orthonormalize(backend_, half_, 0, scratch_);
    m_.multiply(half_, y);
  }

  RowMatrix<double> rayleigh(const RowMatrix<T>& q) override {
    m_.multiply_transposed(q, half_);
    return linalg::inner_products(backend_, half_, half_);
  }

  void image(const RowMatrix<T>& factor, RowMatrix<T>& y) override {
    multiply_plain(backend_, half_, factor, scratch_);
    m_.multiply(scratch_, y);
  }

 private:
  const B& backend_;
  M& m_;
  RowMatrix<T> half_, scratch_;
};

/// G = M M^T, stored.
template <class B, class T>
class GramOperator final : public SymmetricOperator<T> {
 public:
  template <class S>
  GramOperator(const B& backend, const ScaledMatrix<B, S, T>& m)
      : backend_(backend), gram_(m.rows(), m.rows()) {
    const std::vector<T> weights = squares_of(m.column);
    linalg::multiply(backend, m.w, transpose(m.w), to_view(gram_),
                     {.half = linalg::Half::Lower,
                      .row_scale = scale_of(m.row),
                      .column_scale = scale_of(m.row),
                      .depth_scale = scale_of(weights)});
    linalg::mirror_lower(backend, to_view(gram_));
  }

  Index dimension() const override { return gram_.rows(); }
  const RowMatrix<T>& matrix() const { return gram_; }

  /// A sample of G is worth half a step more than one of M.
  void start(const SvdOptions& options, RowMatrix<T>& y) override {
    if (options.sketch == Sketch::Sparse)
      return sparse_sketch(backend_, const_view(gram_), options.seed, y);
    RowMatrix<T> omega(dimension(), y.cols());
    linalg::fill_normal(backend_.executor, options.seed, 0, omega);
    apply(omega, y);
  }

  void apply(const RowMatrix<T>& q, RowMatrix<T>& y) override {
    y.resize(dimension(), q.cols());
    linalg::multiply(backend_, const_view(gram_), const_view(q), to_view(y));
  }

  RowMatrix<double> rayleigh(const RowMatrix<T>& q) override {
    apply(q, image_);
    return linalg::inner_products(backend_, q, image_);
  }

  void image(const RowMatrix<T>& factor, RowMatrix<T>& y) override {
    multiply_plain(backend_, image_, factor, y);
  }

 private:
  const B& backend_;
  RowMatrix<T> gram_, image_;
};

/// G = D W C W^T D for a covariance C of the inputs, by products; M is D W.
template <class B, class M, class C>
class CovarianceOperator final : public SymmetricOperator<typename M::scalar> {
  using T = typename M::scalar;

 public:
  CovarianceOperator(const B& backend, const M& m, const CovarianceView<C>& covariance)
      : backend_(backend), m_(m), covariance_(covariance) {}

  Index dimension() const override { return m_.rows(); }

  void start(const SvdOptions& options, RowMatrix<T>& y) override {
    RowMatrix<T> omega(dimension(), y.cols());
    linalg::fill_normal(backend_.executor, options.seed, 0, omega);
    apply(omega, y);
  }

  void apply(const RowMatrix<T>& q, RowMatrix<T>& y) override {
    m_.multiply_transposed(q, half_);
    weigh(half_, weighed_);
    m_.multiply(weighed_, y);
  }

  RowMatrix<double> rayleigh(const RowMatrix<T>& q) override {
    m_.multiply_transposed(q, half_);
    weigh(half_, weighed_);
    return linalg::inner_products(backend_, half_, weighed_);
  }

  void image(const RowMatrix<T>& factor, RowMatrix<T>& y) override {
    multiply_plain(backend_, weighed_, factor, half_);
    m_.multiply(half_, y);
  }

  /// y = C x with the ridge.
  void weigh(const RowMatrix<T>& x, RowMatrix<T>& y) {
    y = static_cast<T>(covariance_.ridge) * x;
    linalg::multiply(backend_, covariance_.matrix, const_view(x), to_view(y), {.accumulate = true});
  }

  /// tr G.
  double energy() {
    constexpr Index block = 512;
    double total = 0;
    for (Index begin = 0; begin < m_.rows(); begin += block) {
      const Index count = std::min(block, m_.rows() - begin);
      RowMatrix<T> unit = RowMatrix<T>::Zero(m_.rows(), count);
      unit.middleRows(begin, count).setIdentity();
      m_.multiply_transposed(unit, half_);
      weigh(half_, weighed_);
      for (Index i = 0; i < half_.rows(); ++i)
        for (Index j = 0; j < count; ++j)
          total += static_cast<double>(half_(i, j)) * static_cast<double>(weighed_(i, j));
    }
    return total;
  }

 private:
  const B& backend_;
  const M& m_;
  CovarianceView<C> covariance_;
  RowMatrix<T> half_, weighed_;
};

PARE_ABI_END
}  // namespace pare::factor::detail
