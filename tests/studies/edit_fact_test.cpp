// SPDX-License-Identifier: Apache-2.0

#include "language_model/edit_fact.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/core/backend.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <vector>

namespace studies_edit_fact_test {
namespace {

using namespace language_model;
using pare::testing::TinyLlama;

std::vector<Token> some_tokens(std::size_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
  return tokens;
}

// Of one prompt each the mean is the state itself: what the edit promises is then exact.
TEST(EditFact, TheStreamBecomesTheDonors) {
  TinyLlama tiny{21};
  pare::testing::OpenedLlama opened{tiny};
  Llama& model = opened.model;
  const ModelBackend on = pare::on_any_executor(pare::simd);
  const Index layer = 1;
  const std::vector<Token> text = some_tokens(300, 1);
  const InputProducts inputs = input_products(model, pare::simd, text, 64, [](double) {});
  const std::vector<std::vector<Token>> prompts{some_tokens(5, 2)};
  const SubjectStates subject = subject_states(model, on, layer, prompts);
  const SubjectStates donor = subject_states(model, on, layer, {some_tokens(7, 3)});
  ASSERT_GT((donor.stream - subject.stream).norm(), 0.1 * subject.stream.norm());
  model.blocks()[1].down = edited_down(opened.file, on, layer, inputs[1].back(), subject, donor);
  const SubjectStates after = subject_states(model, on, layer, prompts);
  EXPECT_LE((after.key - subject.key).norm(), 1e-5 * subject.key.norm());
  EXPECT_LE((after.stream - donor.stream).norm(), 1e-4 * donor.stream.norm());
}

}  // namespace
}  // namespace studies_edit_fact_test
