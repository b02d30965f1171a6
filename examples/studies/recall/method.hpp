// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a method of the study is: a call with one setting.

#include "recall/scores.hpp"
#include "recall_text/heads.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/backend.hpp>

#include <functional>
#include <string>
#include <vector>

namespace recall {

using Backend = decltype(pare::simd.threads(1));

/// One call: what goes in, and where the result goes.
struct Call {
  const Backend& backend;
  const Heads& heads;
  Tensor& out;
  RowTensor& lse;
};

/// A method with one setting that trades work for error.
struct Method {
  std::string key;    ///< its name on the command line
  std::string title;  ///< its name in the table
  std::string setting_name;
  double setting;             ///< in the table
  std::vector<double> sweep;  ///< in the plot
  std::function<pare::attention::AttendStats(const Call&, double setting)> run;
};

/// Exact attention, or that of a policy.
template <class... Policy>
pare::attention::AttendStats attend(const Call& call, const Policy&... policy) {
  const pare::attention::AttendOptions options{.causal = true, .lse = call.lse};
  const Heads& h = call.heads;
  return attend(call.backend, h.q, h.k, h.v, call.out, policy..., options);
}

}  // namespace recall
