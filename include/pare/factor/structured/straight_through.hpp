// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The Straight-Through Factorizer (DSFormer): a dense times sparse weight that a task's gradients
/// train.
///
/// ```cpp
/// StraightThroughFactorizer<float> f(w, {.factors = {.atoms = 64, .nonzeros = 8}});
/// for (...) {
///   // gradient [outputs, inputs]: of the loss, with f.weight() as the weight
///   f.step(pare::simd, gradient);
/// }
/// DenseSparseLinear<float> layer(f.weight().copy());
/// ```
///
/// A dense latent weight theta is kept. The model runs with project(theta), the gradient that its
/// loss has there moves theta as if there were no projection (straight through), and every so many
/// steps theta is projected anew, from the factors before. Source of the idea: Chand, Prabhu and
/// Kumar, DSFormer, arXiv 2312.13211, who train all layers so for the loss of the task.
/// Reconstructed: the projection (dense_sparse.hpp), Adam as the optimiser, one sweep for each
/// projection, and a projection in each step.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/dense_sparse.hpp>
#include <pare/optim/adam.hpp>

#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

namespace pare::factor {

/// Options of StraightThroughFactorizer.
struct StraightThroughOptions {
  DenseSparseOptions factors{};  ///< of the first projection
  int every = 1;                 ///< steps from one projection to the next, at least 1
  int sweeps = 1;                ///< of each projection but the first, at least 0
  optim::AdamOptions adam{};
};

namespace detail {
PARE_ABI_BEGIN

template <ComputeScalar T, class W>
DenseSparse<T> first_projection(const W& w, const StraightThroughOptions& options) {
  constexpr const char* function = "factor::StraightThroughFactorizer";
  check(options.every >= 1, function, "every", options.every, "at least 1");
  check(options.sweeps >= 0, function, "sweeps", options.sweeps, "at least 0");
  optim::validate(function, options.adam);
  return std::move(dense_sparse(w, options.factors).weight);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// theta [outputs x inputs] of T and its projection.
template <ComputeScalar T>
class StraightThroughFactorizer {
 public:
  /// theta = w, which is projected on pare::simd, on the calling thread.
  /// \throws std::invalid_argument as dense_sparse, or if an option is out of its range
  template <In<2> W>
  requires std::is_same_v<compute_t<scalar_of<W>>, T>
  explicit StraightThroughFactorizer(const W& w, const StraightThroughOptions& options = {})
      : options_(options),
        weight_(detail::first_projection<T>(w, options)),
        latent_(row_matrix<T>(as_const(to_view(w)))),
        adam_(latent_.size(), options.adam) {}

  /// project(theta), for the forward pass and for the gradient.
  const DenseSparse<T>& weight() const { return weight_; }
  /// theta.
  const RowMatrix<T>& latent() const { return latent_; }
  /// Calls of step().
  Index steps() const { return adam_.steps(); }

  /// Adam moves theta by the gradient of the loss at weight(); every `every` steps theta is
  /// projected, from weight().
  ///
  /// \param gradient [outputs x inputs] of any storage scalar, finite
  /// \return         whether theta was projected
  /// \throws std::invalid_argument if the extents differ, or the gradient is not finite in T:
  ///         nothing has changed then; or if theta is no longer finite
  ///
  /// Cost: 4 reads and 3 writes of theta's size, and where theta is projected, that of
  /// dense_sparse.
  template <Backend B, In<2> G>
  bool step(const B& backend, const G& gradient) {
    constexpr const char* function = "factor::StraightThroughFactorizer::step";
    const auto view = as_const(to_view(gradient));
    check_view(function, "gradient", view);
    check_extents<2>(function, "gradient", view.extent, {latent_.rows(), latent_.cols()});
    const RowMatrix<T> rows = row_matrix<T>(view);
    detail::check_finite(function, "gradient", const_view(rows));
    const auto size = static_cast<std::size_t>(rows.size());
    adam_.step(std::span<T>(latent_.data(), size), std::span<const T>(rows.data(), size));
    if (adam_.steps() % options_.every != 0) return false;
    DenseSparseOptions again = options_.factors;
    again.sweeps = options_.sweeps;
    weight_ = std::move(dense_sparse(backend, latent_, weight_, again).weight);
    return true;
  }

 private:
  StraightThroughOptions options_;
  DenseSparse<T> weight_;
  RowMatrix<T> latent_;
  optim::Adam<T> adam_;
};

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
