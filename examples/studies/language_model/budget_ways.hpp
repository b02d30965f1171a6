// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The ways in which heads get budgets, in groups that are found on a text that is not judged.

#include "language_model/arguments.hpp"
#include "language_model/calibrate_heads.hpp"
#include "language_model/open_model.hpp"

#include <pare/attention/budget/head_groups.hpp>
#include <pare/attention/budget/keep_options.hpp>
#include <pare/attention/budget/retention.hpp>

#include <cstdio>
#include <vector>

namespace language_model {

struct BudgetWay {
  const char* name;
  pare::attention::HeadGroups groups;
  pare::attention::KeepOptions options;
};

template <class B>
std::vector<BudgetWay> budget_ways(const Arguments& arguments, const OpenModel& model,
                                   const B& backend, double ratio) {
  using namespace pare::attention;
  const KvShape shape = model.llama.config().kv_shape();
  const auto options = [&](BudgetScope scope, BudgetCount count) {
    return KeepOptions{.ratio = ratio, .scope = scope, .count = count};
  };
  const KeepOptions across = options(BudgetScope::CrossLayer, BudgetCount::Head);
  RetentionProfile profile = calibrated(arguments, model, backend, across);
  const HeadGroups each = HeadGroups::natural(shape.layers, shape.kv_heads, 1);
  const HeadGroups beside = HeadGroups::natural(shape.layers, shape.kv_heads, shape.kv_heads);
  const HeadGroups alike =
      HeadGroups::by_retention(profile.mean(), shape.kv_heads, BudgetScope::CrossLayer);
  std::printf("ratio %.2f, %td samples: unused in groups of neighbours %.1f %%, of alike %.1f %%\n",
              ratio, profile.samples(), 100 * over_allocation(profile.mean(), beside).unused(),
              100 * over_allocation(profile.mean(), alike).unused());
  return {{"uniform", each, options(BudgetScope::PerLayer, BudgetCount::Uniform)},
          {"layer", each, options(BudgetScope::PerLayer, BudgetCount::Head)},
          {"model", each, across},
          {"model, beside", beside, across},
          {"model, alike", alike, across},
          {"model, exact", alike, options(BudgetScope::CrossLayer, BudgetCount::Group)}};
}

}  // namespace language_model
