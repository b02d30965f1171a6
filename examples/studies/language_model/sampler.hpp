// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Draws the next token from logits.
///
/// ```cpp
/// Sampler sampler({.temperature = 0.8, .top_k = 40, .seed = 7});
/// const Token next = sampler.sample(logits, position);
/// ```
///
/// In this order: (1) probabilities are e^(x / temperature), normalised; (2) top-k keeps the k most
/// likely tokens; (3) top-p of these as few of the most likely as have p of their sum (Holtzman et
/// al., ICLR 2020); (4) min-p those that are at least min_p times as likely as the most likely one
/// (Nguyen et al., ICLR 2025); (5) one is drawn with the probabilities of what is left. Of equal
/// logits that of the lower number counts as more likely; top-k and top-p may part them. The order
/// is that of Hugging Face's transformers; llama.cpp applies the temperature last.
///
/// The noise is keyed: the draw is the token of the least E / probability, where E is exponential
/// noise that is a function of (seed, position, token) alone. The same seed and position give the
/// same token, whatever was drawn before; and a filter that keeps the token changes nothing. That
/// of pare::draft::keyed_sample is another function: with it, seeds would mean other texts.

#include "language_model/byte_pairs.hpp"

#include <pare/core/check.hpp>
#include <pare/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace language_model {

/// How a token is drawn.
struct SamplerOptions {
  double temperature = 1;                 ///< at least 0; 0: always the most likely token
  std::optional<pare::Index> top_k = {};  ///< at least 1
  double top_p = 1;                       ///< in (0, 1]; 1 keeps all
  double min_p = 0;                       ///< in [0, 1]; 0 keeps all
  std::uint64_t seed = 0;
};

/// A token that may be drawn, and how likely.
struct Candidate {
  Token id;
  float logit;
  double probability;
};

class Sampler {
 public:
  /// \throws std::invalid_argument if an option is not in its range
  explicit Sampler(const SamplerOptions& options) : options_(options) {
    const char* const function = "language_model::Sampler";
    pare::check(options.temperature >= 0 && std::isfinite(options.temperature), function,
                "temperature", options.temperature, "a number of at least 0");
    pare::check(options.top_k.value_or(1) >= 1, function, "top_k", options.top_k.value_or(1),
                "at least 1");
    pare::check(options.top_p > 0 && options.top_p <= 1, function, "top_p", options.top_p,
                "above 0, at most 1");
    pare::check(options.min_p >= 0 && options.min_p <= 1, function, "min_p", options.min_p,
                "from 0 to 1");
  }

  /// The token drawn for a position.
  ///
  /// \param logits   [vocabulary], by token; -infinity for one that is never drawn
  /// \param position which draw of the seed it is, such as the place in the text
  ///
  /// Cost: one to two passes of exponentials, with top-k over the k only; with top-p O(kept
  /// log(vocabulary)) more. 0.3 to 2 ms for 49152 tokens. Memory: 16 bytes per token, taken
  /// by the first call.
  /// \throws std::invalid_argument if there are no logits, one is NaN or +infinity, or none is
  /// finite
  Token sample(std::span<const float> logits, std::uint64_t position) {
    const std::span<const Candidate> kept = candidates(logits);
    const pare::PhiloxKey key(options_.seed);
    const auto low = static_cast<std::uint32_t>(position);
    const auto high = static_cast<std::uint32_t>(position >> 32);
    double least = std::numeric_limits<double>::infinity();
    Token drawn = kept.front().id;
    for (const Candidate& candidate : kept) {
      const pare::PhiloxCounter words =
          pare::philox({low, high, static_cast<std::uint32_t>(candidate.id), purpose}, key);
      const double u = pare::to_unit_double(words[0], words[1]);
      // -log(1 - u) is at least u: few candidates need the logarithm.
      if (u > least * candidate.probability) continue;
      const double time = -std::log1p(-u) / candidate.probability;
      if (time < least || (time == least && candidate.id < drawn)) {
        least = time;
        drawn = candidate.id;
      }
    }
    return drawn;
  }

  /// The tokens that may be drawn, in no order, valid until the next call. All else as `sample`.
  std::span<const Candidate> candidates(std::span<const float> logits) {
    const Token best = most_likely(logits);
    candidates_.clear();
    if (options_.temperature == 0) {
      candidates_.push_back({best, logits[static_cast<std::size_t>(best)], 1});
      return candidates_;
    }
    collect(logits);
    if (options_.top_k && *options_.top_k < std::ssize(candidates_)) keep_top_k(*options_.top_k);
    weigh(logits[static_cast<std::size_t>(best)]);
    if (options_.top_p < 1) keep_top_p();
    std::erase_if(candidates_, [this](const Candidate& candidate) {
      return candidate.probability < options_.min_p;
    });
    const double total = sum();
    for (Candidate& candidate : candidates_) candidate.probability /= total;
    return candidates_;
  }

 private:
  static constexpr std::uint32_t purpose = 0x544f4b4eu;  ///< keeps these draws apart from others

  static Token most_likely(std::span<const float> logits) {
    const char* const function = "language_model::Sampler";
    pare::check(!logits.empty(), function, "logits", "none", "at least one");
    std::size_t best = 0;
    for (std::size_t id = 0; id < logits.size(); ++id) {
      pare::check(logits[id] < std::numeric_limits<float>::infinity(), function, "logits",
                  logits[id], "finite numbers and -infinity");
      if (logits[id] > logits[best]) best = id;
    }
    pare::check(std::isfinite(logits[best]), function, "logits", "-infinity alone",
                "a finite number");
    return static_cast<Token>(best);
  }

  void collect(std::span<const float> logits) {
    for (std::size_t id = 0; id < logits.size(); ++id)
      candidates_.push_back({static_cast<Token>(id), logits[id], 0});
  }

  /// Weights, 1 for the logit `best`; what has none cannot be drawn.
  void weigh(float best) {
    for (Candidate& candidate : candidates_) {
      const double difference = static_cast<double>(candidate.logit) - static_cast<double>(best);
      candidate.probability = std::exp(difference / options_.temperature);
    }
    std::erase_if(candidates_,
                  [](const Candidate& candidate) { return candidate.probability == 0; });
  }

  static bool is_more_likely(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  }
  static bool is_less_likely(const Candidate& a, const Candidate& b) {
    return is_more_likely(b, a);
  }

  double sum() const {
    double total = 0;
    for (const Candidate& candidate : candidates_) total += candidate.probability;
    return total;
  }

  /// They are sorted, so that sums have the same bits everywhere.
  void keep_top_k(pare::Index k) {
    // A heap of k: of a vocabulary little but the first k enters it.
    std::partial_sort(candidates_.begin(), candidates_.begin() + k, candidates_.end(),
                      is_more_likely);
    candidates_.erase(candidates_.begin() + k, candidates_.end());
  }

  void keep_top_p() {
    const double wanted = options_.top_p * sum();
    // The most likely go behind the heap, one by one, until they have the sum.
    auto heap_end = candidates_.end();
    std::make_heap(candidates_.begin(), heap_end, is_less_likely);
    double mass = 0;
    do {
      std::pop_heap(candidates_.begin(), heap_end, is_less_likely);
      mass += (--heap_end)->probability;
    } while (mass < wanted && heap_end != candidates_.begin());
    candidates_.erase(candidates_.begin(), heap_end);
  }

  SamplerOptions options_;
  std::vector<Candidate> candidates_;
};

}  // namespace language_model
