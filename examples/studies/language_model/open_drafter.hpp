// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Drafters that the command line asks for, and what they are made of.
///
/// ```cpp
/// DrafterMaker make(arguments, model, backend);    // reads the sample if one is needed
/// const Drafter drafter = make({"linear", 3}, {"rank", 72});
/// ```

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/drafters.hpp"
#include "language_model/linear_drafter.hpp"
#include "language_model/open_model.hpp"
#include "language_model/pass_cost.hpp"
#include "language_model/text_parts.hpp"

#include <pare/core/check.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace language_model {

class DrafterMaker {
 public:
  /// \param model must outlive the maker and its drafters
  DrafterMaker(const Arguments& arguments, const OpenModel& model, const ModelBackend& on)
      : draft_(arguments.draft), llama_(model.llama), on_(on) {
    bool any_head = false;
    for (const DraftName& drafter : draft_.drafters) any_head |= drafter.name != "prompt";
    if (any_head) weight_ = weight_of(on_, llama_.head());
    if (!any_head || arguments.sample.empty()) return;
    text_ = tokens_of(model, arguments.sample, Index{1} << 20);
    std::vector<Token> part = text_;
    part.resize(
        std::min(part.size(), static_cast<std::size_t>(arguments.svd.most_sample_tokens())));
    command_line::Progress progress("states of the sample");
    sample_ = state_sample(llama_, on_, std::move(part), arguments.window, progress);
  }

  /// \throws std::invalid_argument if there are not so many blocks or so high a rank
  Drafter operator()(const DraftName& drafter, const DraftName& head) {
    const Index branch = is_chain() ? 1 : draft_.branch;
    if (drafter.name == "prompt") return prompt_drafter(branch);
    if (drafter.name == "linear")
      return linear_drafter(llama_, maps(drafter.number), head_of(head), branch);
    pare::check(drafter.number <= llama_.config().blocks, "language_model", "--draft early",
                drafter.number, pare::Worded{"at most the blocks, ", llama_.config().blocks});
    if (is_chain()) return early_exit(llama_, drafter.number, head_of(head, drafter.number));
    return EarlyExitTree(llama_, drafter.number, head_of(head, drafter.number), branch);
  }

  /// A budget that is chosen round by round.
  /// \param past tokens of a text, about
  AdaptiveBudget adaptive(const DraftName& drafter, KvScalar kv, Index past) const {
    const bool is_early = drafter.name == "early";
    const Index first = is_early && is_chain() ? drafter.number : 0;
    return {pass_cost(llama_, on_, kv, past, most_budget, first),
            pass_cost(llama_, on_, kv, past, 1)(1),
            {.most = most_budget, .costs_per_node = is_early}};
  }

 private:
  bool is_chain() const { return draft_.chain || draft_.branch == 1; }

  /// \param blocks those of an early exit, whose states a head of low rank is to fit
  DraftHead head_of(const DraftName& head, std::optional<Index> blocks = {}) const {
    if (head.name == "rank") {
      if (!blocks) return low_rank_head(on_, weight_, sample_.states, head.number);
      command_line::Progress progress("states of the first blocks");
      const StateSample early =
          state_sample(llama_, on_, sample_.tokens, sample_.window, progress, blocks);
      return low_rank_head(on_, weight_, early.states, head.number);
    }
    if (head.name == "tokens") return subset_head(weight_, text_, head.number);
    return dense_head(weight_);
  }

  /// Those of fewer heads are the first of more.
  std::vector<AnyLinear> maps(Index count) {
    if (static_cast<Index>(maps_.size()) < count) {
      command_line::Progress progress("fitting linear heads");
      maps_ = fit_linear_heads(llama_, sample_, count, progress);
    }
    return {maps_.begin(), maps_.begin() + count};
  }

  DraftArguments draft_;
  const Llama& llama_;
  ModelBackend on_;
  pare::RowMatrix<float> weight_;
  std::vector<Token> text_;
  StateSample sample_;
  std::vector<AnyLinear> maps_;
};

}  // namespace language_model
