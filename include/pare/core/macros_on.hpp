// SPDX-License-Identifier: Apache-2.0
// No include guard: the other half of <pare/core/macros_off.hpp>.

/// \file
/// Gives back what macros_off.hpp set aside.

#pragma pop_macro("slots")
#pragma pop_macro("signals")
#pragma pop_macro("emit")
#pragma pop_macro("foreach")
#pragma pop_macro("forever")
#pragma pop_macro("check")
#pragma pop_macro("require")
#pragma pop_macro("verify")
#pragma pop_macro("I")
#pragma pop_macro("complex")
#pragma pop_macro("imaginary")
#pragma pop_macro("min")
#pragma pop_macro("max")
#pragma pop_macro("small")
#pragma pop_macro("near")
#pragma pop_macro("far")
#pragma pop_macro("Bool")
#pragma pop_macro("None")
#pragma pop_macro("Status")
#pragma pop_macro("Success")
#pragma pop_macro("True")
#pragma pop_macro("False")
