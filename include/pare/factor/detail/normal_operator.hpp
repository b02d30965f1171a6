// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// G = M M^T as something that multiplies: the operators whose leading eigenvectors are sought.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/gaussian.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/orthonormalize.hpp>
#include <pare/projection/project.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
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

/// M, as G = M M^T asks for it, so that what iterates is compiled once for all scalars of W.
template <class T>
class Multiplier {
 public:
  virtual Index rows() const = 0;
  virtual Index cols() const = 0;
  /// y = M x.
  virtual void multiply(const RowMatrix<T>& x, RowMatrix<T>& y) const = 0;
  /// y = M^T x.
  virtual void multiply_transposed(const RowMatrix<T>& x, RowMatrix<T>& y) const = 0;
  /// y = M Omega for a random Omega [cols x columns of y].
  virtual void sketch(const SvdOptions& options, RowMatrix<T>& y) = 0;

 protected:
  ~Multiplier() = default;
};

/// The same for an M whose G can be formed.
template <class T>
class StoredMultiplier : public Multiplier<T> {
 public:
  /// g = M M^T, [rows x rows].
  virtual void form_gram(RowMatrix<T>& g) const = 0;

 protected:
  ~StoredMultiplier() = default;
};

/// M = diag(row) W diag(column), never stored. An empty scale is all ones.
template <class B, class S, class T>
struct ScaledMatrix final : StoredMultiplier<T> {
  const B& backend;
  TensorView<const S, 2> w;
  std::vector<T> row;
  std::vector<T> column;

  ScaledMatrix(const B& on, TensorView<const S, 2> weight, std::vector<T> rows,
               std::vector<T> columns)
      : backend(on), w(weight), row(std::move(rows)), column(std::move(columns)) {}

  Index rows() const override { return w.rows(); }
  Index cols() const override { return w.cols(); }

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

  void multiply(const RowMatrix<T>& x, RowMatrix<T>& y) const override {
    y.resize(w.rows(), x.cols());
    linalg::multiply(backend, w, const_view(x), to_view(y),
                     {.row_scale = scale_of(row), .depth_scale = scale_of(column)});
  }

  void multiply_transposed(const RowMatrix<T>& x, RowMatrix<T>& y) const override {
    y.resize(w.cols(), x.cols());
    linalg::multiply(backend, transpose(w), const_view(x), to_view(y),
                     {.row_scale = scale_of(column), .depth_scale = scale_of(row)});
  }

  void form_gram(RowMatrix<T>& g) const override {
    const std::vector<T> weights = squares_of(column);
    g.resize(w.rows(), w.rows());
    linalg::multiply(backend, w, transpose(w), to_view(g),
                     {.half = linalg::Half::Lower,
                      .row_scale = scale_of(row),
                      .column_scale = scale_of(row),
                      .depth_scale = scale_of(weights)});
    linalg::mirror_lower(backend, to_view(g));
  }

  void sketch(const SvdOptions& options, RowMatrix<T>& y) override {
    // The sparse operator is applied to W as it is stored, so it cannot see a scale of its columns.
    if constexpr (std::is_same_v<compute_t<S>, T>) {
      if (options.sketch == Sketch::Sparse && column.empty()) {
        sparse_sketch(backend, w, options.seed, y);
        for (Index i = 0; i < y.rows() && !row.empty(); ++i)
          for (Index j = 0; j < y.cols(); ++j) y(i, j) *= row[static_cast<std::size_t>(i)];
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
template <class B, class T>
class NormalOperator final : public SymmetricOperator<T> {
 public:
  NormalOperator(const B& backend, Multiplier<T>& m) : backend_(backend), m_(m) {}

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
  Multiplier<T>& m_;
  RowMatrix<T> half_, scratch_;
};

/// G = M M^T, stored.
template <class B, class T>
class GramOperator final : public SymmetricOperator<T> {
 public:
  GramOperator(const B& backend, const StoredMultiplier<T>& m) : backend_(backend) {
    m.form_gram(gram_);
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
template <class B, class T, class C>
class CovarianceOperator final : public SymmetricOperator<T> {
 public:
  CovarianceOperator(const B& backend, const Multiplier<T>& m, const CovarianceView<C>& covariance)
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
    const auto ridge = static_cast<T>(covariance_.ridge);
    y.resize(x.rows(), x.cols());
    for (Index i = 0; i < x.size(); ++i) y.data()[i] = ridge * x.data()[i];
    linalg::multiply(backend_, covariance_.matrix, const_view(x), to_view(y), {.accumulate = true});
  }

 private:
  const B& backend_;
  const Multiplier<T>& m_;
  CovarianceView<C> covariance_;
  RowMatrix<T> half_, weighed_;
};

PARE_ABI_END
}  // namespace pare::factor::detail
