// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Whether an argument of a call is a head, for calls that the compiler refuses.

#include <pare/core/macros_off.hpp>

#include <pare/draft/head.hpp>

#include <type_traits>

namespace pare::draft::detail {

template <class X>
using IsHead = std::bool_constant<DraftHead<std::remove_cvref_t<X>>>;

}  // namespace pare::draft::detail

#include <pare/core/macros_on.hpp>
