// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a rank-one edit changes: the fact itself, the same fact in other words, neighbours, texts.

#include "language_model/edit_fact.hpp"
#include "language_model/sampled_products.hpp"
#include "language_model/text_parts.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// Probabilities of what comes behind a prompt, [vocabulary].
inline std::vector<double> next_token(const OpenModel& model, const ModelBackend& on,
                                      const std::string& prompt) {
  const std::vector<Token> tokens = model.tokenizer.encode(prompt);
  KvCache cache(model.llama.config().kv_shape(), static_cast<Index>(tokens.size()));
  std::vector<float> logits(static_cast<std::size_t>(model.llama.config().vocabulary));
  model.llama.forward(on, tokens, cache, logits);
  const auto most = static_cast<double>(*std::ranges::max_element(logits));
  std::vector<double> p(logits.size());
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i)
    sum += p[i] = std::exp(static_cast<double>(logits[i]) - most);
  for (double& value : p) value /= sum;
  return p;
}

inline Token best_of(const std::vector<double>& p) {
  return static_cast<Token>(std::ranges::max_element(p) - p.begin());
}

/// A subject behind some beginnings of a sentence.
inline std::vector<std::vector<Token>> prompts_of(const OpenModel& model,
                                                  const std::string& subject) {
  std::vector<std::vector<Token>> prompts;
  for (const char* beginning :
       {"", "It is well known that ", "In the news: ", "My friend wrote to me about it. "})
    prompts.push_back(model.tokenizer.encode(beginning + subject));
  return prompts;
}

/// A prompt, and what the whole model says behind it.
struct Probe {
  std::string prompt;
  std::vector<double> before;
};

/// The fact, the same in other words, the donor's and the neighbours'.
inline std::vector<Probe> probes_of(const EditArguments& edit, const OpenModel& model,
                                    const ModelBackend& on) {
  std::vector<std::string> prompts{edit.subject + edit.relation};
  for (const std::string& other : edit.others) prompts.push_back(edit.subject + other);
  prompts.push_back(edit.donor + edit.relation);
  for (const std::string& neighbour : edit.neighbours) prompts.push_back(neighbour + edit.relation);
  std::vector<Probe> probes;
  probes.reserve(prompts.size());
  for (const std::string& prompt : prompts)
    probes.push_back({prompt, next_token(model, on, prompt)});
  return probes;
}

/// Per prompt: what came before, with its probability before and after; the same of the new answer;
/// what comes now.
inline void print_probes(const std::vector<Probe>& probes, const OpenModel& model,
                         const ModelBackend& on, Token target) {
  for (const Probe& probe : probes) {
    const std::vector<double> after = next_token(model, on, probe.prompt);
    const Token own = best_of(probe.before);
    const auto text = [&](Token token) { return model.tokenizer.decode({&token, 1}); };
    const auto old = static_cast<std::size_t>(own), wanted = static_cast<std::size_t>(target);
    std::printf("  %-52s %-10s %.3f -> %.3f   %-8s %.3f -> %.3f   now %s\n", probe.prompt.c_str(),
                text(own).c_str(), probe.before[old], after[old], text(target).c_str(),
                probe.before[wanted], after[wanted], text(best_of(after)).c_str());
  }
  std::fflush(stdout);
}

template <class B>
void judge_edit(const Arguments& arguments, OpenModel& model, const B& backend, TextParts texts) {
  const ModelBackend on = on_any_executor(backend);
  const EditArguments& edit = arguments.edit;
  for (const Index layer : edit.layers)
    pare::check(layer < model.llama.config().blocks, "language_model::judge_edit", "layers", layer,
                pare::Worded{"numbers below ", model.llama.config().blocks});
  const InputProducts inputs = sampled_products(arguments, model, backend);
  const std::vector<Probe> probes = probes_of(edit, model, on);
  const Token target = best_of(next_token(model, on, edit.donor + edit.relation));
  const auto judge = [&](const std::string& name) {
    texts.judge(model.llama, backend, arguments.window, arguments.kv, exact_attention, name,
                [&](const std::string& text, const Mean& loss, const Mean& change) {
                  std::printf("  %-28s %.3f nats a token, perplexity %.2f, %+.4f +- %.4f nats\n",
                              text.c_str(), loss.value, std::exp(loss.value), change.value,
                              change.error);
                });
  };
  std::printf("%s%s: the answer of %s\n", edit.subject.c_str(), edit.relation.c_str(),
              edit.donor.c_str());
  judge("whole");
  for (const Index layer : edit.layers) {
    const SubjectStates subject =
        subject_states(model.llama, on, layer, prompts_of(model, edit.subject));
    const SubjectStates donor =
        subject_states(model.llama, on, layer, prompts_of(model, edit.donor));
    const auto at = static_cast<std::size_t>(layer);
    for (const double strength : edit.strengths) {
      const BlocksRestored restored(model.llama);
      model.llama.blocks()[at].down =
          edited_down(model.file, on, layer, inputs[at].back(), subject, donor, strength);
      std::printf("block %td, moved %g times %.2f of the stream's norm\n", layer, strength,
                  (donor.stream - subject.stream).norm() / subject.stream.norm());
      print_probes(probes, model, on, target);
      judge("edited");
    }
  }
}

}  // namespace language_model
