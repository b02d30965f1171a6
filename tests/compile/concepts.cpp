// SPDX-License-Identifier: Apache-2.0
// Core on its own: this file includes no Eigen header, which core must not need, and has no test to
// run. That it compiles is the test; what must not compile is under refused/.

#include <array>
#include <complex>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <pare/core/arch.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/cpu_features.hpp>
#include <pare/core/permutation.hpp>
#include <pare/core/random.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/version.hpp>

#if defined(EIGEN_WORLD_VERSION)
#error "a header of core includes Eigen"
#endif

using pare::In;
using pare::Out;
using pare::TensorView;

static_assert(PARE_VERSION ==
              PARE_VERSION_MAJOR * 10000 + PARE_VERSION_MINOR * 100 + PARE_VERSION_PATCH);

static_assert(pare::ceil_div(0, 3) == 0 && pare::ceil_div(6, 3) == 2 && pare::ceil_div(7, 3) == 3);
static_assert(pare::ceil_div(INT64_MAX, INT64_MAX) == 1 &&
              pare::ceil_div<std::int8_t>(127, 2) == 64);

// Ranges and views need no Eigen.
static_assert(In<std::vector<float>, 1> && Out<std::vector<float>&, 1>);
static_assert(!Out<std::vector<float>, 1> && Out<std::span<float>, 1>);
static_assert(In<std::array<double, 4>, 1> && In<std::span<const pare::bf16>, 1>);
static_assert(In<TensorView<const pare::f16, 4>, 4> && !Out<TensorView<const pare::f16, 4>, 4>);
static_assert(!In<std::vector<int>, 1> && !In<std::vector<std::complex<float>>, 1>);
static_assert(!In<std::string, 1> && !In<int, 1> && !In<void*, 1> && !In<float[4], 1>);

// What matters is the members: a library other than Eigen may have them too.
struct OtherMatrix {
  static constexpr bool IsRowMajor = true;
  static constexpr int Flags = 0x41;
  float* data();
  const float* data() const;
  std::int32_t rows() const;
  std::int32_t cols() const;
  std::int32_t outerStride() const;
  std::int32_t innerStride() const;
};
static_assert(In<OtherMatrix, 2> && Out<OtherMatrix, 2> && !Out<const OtherMatrix, 2>);
static_assert(!pare::SparseIn<OtherMatrix> && !pare::SparseIn<std::vector<float>>);

// Permutations move what they can view, and only to where they may write.
template <class X, class Y>
concept Gathers = requires(const pare::Permutation& p, const X& x, Y& y) { p.gather(x, y); };
template <class X, class Y>
concept GathersRows =
    requires(const pare::Permutation& p, const X& x, Y& y) { p.gather_rows(x, y); };
static_assert(Gathers<std::vector<float>, std::vector<float>>);
static_assert(!Gathers<std::vector<float>, const std::vector<float>>);
static_assert(!Gathers<std::vector<int>, std::vector<int>>);
static_assert(!Gathers<OtherMatrix, OtherMatrix> && GathersRows<OtherMatrix, OtherMatrix>);
static_assert(!GathersRows<OtherMatrix, const OtherMatrix>);
static_assert(!GathersRows<std::vector<float>, std::vector<float>>);
static_assert(!std::is_convertible_v<std::vector<std::uint32_t>, pare::Permutation>);

// A seed does not turn into a key, nor a float into a 16-bit scalar, without being told.
static_assert(!std::is_convertible_v<std::uint64_t, pare::PhiloxKey>);
static_assert(!std::is_convertible_v<float, pare::bf16> &&
              !std::is_convertible_v<pare::bf16, float>);
static_assert(!std::is_convertible_v<pare::bf16, pare::f16>);

// Backends are told apart by type.
static_assert(pare::Backend<pare::Reference> && !pare::KernelBackend<pare::Reference>);
static_assert(!pare::Backend<pare::arch::avx2> && !pare::Executor<pare::Reference>);
