// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the gradient of an objective is written to.

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <concepts>

namespace pare::retrieval {

/// An output of the scalar that X is computed in: float for float, bf16 and f16, double for double.
template <class G, class X>
concept GradientOf = Out<G, 2> && std::same_as<scalar_of<G>, compute_t<scalar_of<X>>>;

}  // namespace pare::retrieval
