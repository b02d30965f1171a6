// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Covariance-aware factorization: the two factors that change a layer's outputs least over the
/// inputs that it sees (SVD-LLM, DRONE, CARE).
///
/// ```cpp
/// Covariance covariance(in);
/// for (...) covariance.add(activations);                     // [tokens x in], also bf16
/// auto lowrank = covariance_svd(w, covariance, {.rank = 128});
/// ```
///
/// The factors minimise tr((W - A B) C (W - A B)^T) = ||(W - A B) X^T||_F^2. They are A = U and B =
/// U^T W, with U the first eigenvectors of W C W^T, the covariance of the outputs. SVD-LLM reaches
/// the same product by whitening with a root of C and its inverse; neither is computed here, so C
/// may be singular; nor is it asked whether C is semi-definite, as `factorize` asks of a covariance
/// of the caller's, for a sum of x x^T is. Sources: Wang et al., SVD-LLM, arXiv 2403.07378; CARE,
/// arXiv 2603.17946; the form without a root is also Swift-SVD's (arXiv 2604.01609). Everything is
/// computed in double.

#include <pare/core/macros_off.hpp>

#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/svd.hpp>

namespace pare::factor {
namespace detail {
PARE_ABI_BEGIN

/// The metric of accumulated inputs. A sum of x x^T is semi-definite but for the rounding of its
/// elements, so that its eigenvalues are not asked for.
struct MomentOfInputs : InputCovariance<double> {
  using InputCovariance<double>::InputCovariance;

  PARE_ALWAYS_INLINE CovarianceView<double> input_covariance() const {
    CovarianceView<double> moment = InputCovariance<double>::input_covariance();
    moment.is_moment = true;
    return moment;
  }
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// min over A [out x k], B [k x in] of tr((W - A B) (C + damping mean(diag C) I) (W - A B)^T).
///
/// \param backend    left out: pare::simd
/// \param w          [out x in], any dense Eigen matrix of float, double, bf16 or f16
/// \param covariance C [in x in] of the inputs; at least one token was added
/// \param options    as of factorize (svd.hpp)
/// \param damping    this share of the mean variance is added to each variance; at least 0. None is
///                   needed; the sources use 0.01, for their inverse
/// \return           as factorize: a LowRank, whose energies are in the metric
/// \throws std::invalid_argument as factorize, if no token was added, or if damping is negative or
///         not finite
///
/// Cost, memory and determinism: those of factorize with a covariance, and a copy of C.
template <Backend B, In<2> W>
auto covariance_svd(const B& backend, const W& w, const Covariance& covariance,
                    const SvdOptions& options, double damping = 0) {
  const auto c = covariance.matrix(backend);
  return detail::factorize_views("factor::covariance_svd", backend, as_const(to_view(w)),
                                 detail::MomentOfInputs(c, damping), options);
}

/// \overload
template <In<2> W>
auto covariance_svd(const W& w, const Covariance& covariance, const SvdOptions& options,
                    double damping = 0) {
  return covariance_svd(simd, w, covariance, options, damping);
}

PARE_REFUSE_CALLS(covariance_svd, "factor::covariance_svd",
                  "after w: wanted a Covariance, SvdOptions such as {.rank = 16}, members spelt "
                  "and ordered as declared, and damping",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
