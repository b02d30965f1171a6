// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Linear layers in structured forms, in bf16, with their bytes and what they lose.
///
/// ```cpp
/// for (const StructuredForm& form : structured_forms(arguments)) {
///   const StructuredLayer made = form.make(backend, weight, inputs);
///   layer = made.layer;
/// }
/// ```

#include "common/any_linear.hpp"
#include "common/factored_linear.hpp"
#include "common/structured_arguments.hpp"

#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/structured/armor.hpp>
#include <pare/factor/structured/block_diagonal.hpp>
#include <pare/factor/structured/dense_sparse.hpp>
#include <pare/factor/structured/normalized_weight.hpp>
#include <pare/factor/structured/second_moments.hpp>
#include <pare/factor/structured/select_two_four.hpp>
#include <pare/factor/structured/sparse_gpt.hpp>
#include <pare/factor/structured/two_four.hpp>
#include <pare/transformer/structured/dense_sparse_linear.hpp>
#include <pare/transformer/structured/two_four_linear.hpp>
#include <pare/transformer/structured/wrapped_linear.hpp>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace models {

using pare::RowMatrix;
using pare::factor::Covariance;

struct StructuredLayer {
  AnyLinear layer;
  Index bytes = 0;
  double loss = 0;  ///< factor::proxy_loss before numbers are rounded to bf16; of 2:4 forms
};

/// A way to make a layer of a weight and of the inputs that it sees.
struct StructuredForm {
  std::string name;
  std::function<StructuredLayer(const ModelBackend&, const RowMatrix<float>&, const Covariance&)>
      make;
};

/// bf16 as it is: what bytes and losses of the others are beside.
inline StructuredForm dense_form() {
  return {"dense", [](const ModelBackend&, const RowMatrix<float>& w, const Covariance&) {
            return StructuredLayer{dense_layer<pare::bf16>(w), 2 * w.size()};
          }};
}

/// Factors by the covariance of the inputs, of a share of the bytes.
inline StructuredForm low_rank_form(double share) {
  return {"low rank",
          [share](const ModelBackend& on, const RowMatrix<float>& w, const Covariance& inputs) {
            const Index rank = rank_of_share(share, w.rows(), w.cols());
            const auto factors = pare::factor::covariance_svd(on, w, inputs, {.rank = rank});
            return StructuredLayer{low_rank_layer<pare::bf16>(factors), 2 * factors.parameters()};
          }};
}

/// Atoms that all outputs share, and a few of them per output: factor::options_of_share.
inline StructuredForm dense_sparse_form(double share) {
  return {"dense x sparse",
          [share](const ModelBackend& on, const RowMatrix<float>& w, const Covariance& inputs) {
            const auto fit = pare::factor::dense_sparse(
                on, w, inputs, pare::factor::options_of_share(w.rows(), w.cols(), share));
            auto stored = fit.weight.template rounded<pare::bf16>();
            const Index bytes = stored.bytes();
            return StructuredLayer{
                pare::transformer::DenseSparseLinear<pare::bf16>(std::move(stored)), bytes};
          }};
}

namespace detail {

inline pare::factor::TwoFour<pare::bf16> rounded(const pare::factor::TwoFour<float>& core,
                                                 RowMatrix<float>& dense) {
  dense.resize(core.outputs(), core.inputs());
  core.to_dense(dense);
  return pare::factor::TwoFour<pare::bf16>::from(dense, core.mask());
}

inline StructuredLayer two_four_layer(const pare::factor::TwoFour<float>& core,
                                      const RowMatrix<float>& w, const Covariance& inputs) {
  RowMatrix<float> dense;
  auto small = rounded(core, dense);
  const Index bytes = small.bytes();
  return {pare::transformer::TwoFourLinear<pare::bf16>(std::move(small)), bytes,
          pare::factor::proxy_loss(w, pare::factor::SecondMoments(inputs), dense)};
}

inline StructuredLayer armor_layer(const ModelBackend& on, const RowMatrix<float>& w,
                                   const Covariance& inputs) {
  using Blocks = pare::factor::BlockDiagonal<pare::bf16>;
  using Core = pare::transformer::TwoFourLinear<pare::bf16>;
  const auto fit =
      pare::factor::armor(on, w, pare::factor::SecondMoments(inputs), {.block = 32, .sweeps = 5});
  RowMatrix<float> dense;
  Blocks left = Blocks::from(fit.left.values()), right = Blocks::from(fit.right.values());
  auto core = rounded(fit.core, dense);
  const Index bytes = left.bytes() + core.bytes() + right.bytes();
  return {pare::transformer::WrappedLinear<Core, pare::bf16>(std::move(left), Core(std::move(core)),
                                                             std::move(right)),
          bytes, fit.loss_history.back()};
}

}  // namespace detail

inline StructuredForm two_four_form(TwoFourWay way) {
  return {std::string(name_of(way)),
          [way](const ModelBackend& on, const RowMatrix<float>& w, const Covariance& inputs) {
            using namespace pare::factor;
            switch (way) {
              case TwoFourWay::Wanda:
                return detail::two_four_layer(two_four(on, w, Wanda(inputs)), w, inputs);
              case TwoFourWay::Nowag:
                return detail::two_four_layer(two_four(on, w, NowagP(inputs)), w, inputs);
              case TwoFourWay::SparseGpt:
                return detail::two_four_layer(sparse_gpt(on, w, inputs), w, inputs);
              case TwoFourWay::Armor:
                return detail::armor_layer(on, w, inputs);
              case TwoFourWay::Magnitude:
                break;
            }
            return detail::two_four_layer(two_four(on, w, Magnitude{}), w, inputs);
          }};
}

inline std::vector<StructuredForm> structured_forms(const StructuredArguments& arguments) {
  std::vector<StructuredForm> forms;
  for (const TwoFourWay way : arguments.two_four) forms.push_back(two_four_form(way));
  for (const double share : arguments.dense_sparse) forms.push_back(dense_sparse_form(share));
  return forms;
}

}  // namespace models
