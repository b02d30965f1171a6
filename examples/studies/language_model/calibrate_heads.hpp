// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the heads of a model keep of the prompts of a text.

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/head_budget.hpp"
#include "language_model/open_model.hpp"
#include "language_model/text_parts.hpp"

#include <pare/attention/budget/head_groups.hpp>
#include <pare/attention/budget/keep_options.hpp>
#include <pare/attention/budget/retention.hpp>
#include <pare/core/check.hpp>

#include <functional>
#include <span>
#include <vector>

namespace language_model {

/// What heads keep of prompts of half a window, across layers, each by itself.
template <class B>
pare::attention::RetentionProfile calibrated(const Arguments& arguments, const OpenModel& model,
                                             const B& backend,
                                             const pare::attention::KeepOptions& options) {
  const KvShape shape = model.llama.config().kv_shape();
  const auto each = pare::attention::HeadGroups::natural(shape.layers, shape.kv_heads, 1);
  const Index half = arguments.window / 2;
  const std::vector<Token> tokens =
      tokens_of(model, arguments.sample, arguments.svd.most_sample_tokens());
  pare::check(static_cast<Index>(tokens.size()) >= half, "language_model", "--sample",
              tokens.size(), pare::Worded{"at least ", half, " tokens, half of a window"});
  command_line::Progress progress("calibrating heads");
  pare::attention::RetentionProfile profile(shape.layers, shape.kv_heads);
  KvCache cache(shape, half);
  HeadBudget budget(shape, arguments.budget.scores(), each, options);
  for (auto rest = std::span(tokens); static_cast<Index>(rest.size()) >= half;
       rest = rest.subspan(static_cast<std::size_t>(half))) {
    cache.reset();
    model.llama.forward(
        backend, rest.first(static_cast<std::size_t>(half)), cache, [](Index, auto) {},
        std::ref(budget));
    profile.add(budget.kept());
    progress(1 - static_cast<double>(rest.size()) / static_cast<double>(tokens.size()));
  }
  return profile;
}

}  // namespace language_model
