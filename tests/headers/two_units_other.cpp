// SPDX-License-Identifier: Apache-2.0
// The other unit, which defines macros of other libraries before anything of Pare and of what Pare
// includes: they must neither break a header nor be lost behind it.

#include <complex.h>
#if !defined(I)
#define I _Complex_I
#endif

#define complex _Complex
#define imaginary _Imaginary
// Qt.
#define slots
#define signals public
#define emit
#define foreach(variable, container) for (variable : container)
#define forever for (;;)
// AssertMacros.h of macOS.
#define check(assertion) ((void)(assertion))
#define require(assertion, label) \
  if (!(assertion)) goto label
#define verify(assertion) ((void)(assertion))
// windows.h.
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define small char
#define near
#define far
// X11.
#define Bool int
#define None 0L
#define Status int
#define Success 0
#define True 1
#define False 0

#include <public_headers.hpp>

#if !defined(I) || !defined(complex) || !defined(imaginary) || !defined(slots) ||                 \
    !defined(signals) || !defined(emit) || !defined(foreach) || !defined(forever) ||              \
    !defined(check) || !defined(require) || !defined(verify) || !defined(min) || !defined(max) || \
    !defined(small) || !defined(near) || !defined(far) || !defined(Bool) || !defined(None) ||     \
    !defined(Status) || !defined(Success) || !defined(True) || !defined(False)
#error "a macro of the user's is lost behind Pare's headers"
#endif

static_assert(min(max(1, 2), 3) == 2, "and they mean what they meant");

int version_seen_by_other_unit();
int version_seen_by_other_unit() { return PARE_VERSION; }
