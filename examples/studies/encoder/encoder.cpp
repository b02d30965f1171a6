// SPDX-License-Identifier: Apache-2.0

/// \file
/// A real sentence encoder on Pare's kernels: compares sentences, judges factored layers, writes
/// vectors.

#include "common/mean.hpp"
#include "common/open_encoder.hpp"
#include "common/progress.hpp"
#include "common/run_program.hpp"
#include "encoder/arguments.hpp"
#include "encoder/factored_layers.hpp"
#include "encoder/judge_pruned.hpp"
#include "encoder/judge_structured.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/workspace.hpp>
#include <pare/io/safetensors.hpp>

#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace {

using namespace encoder;
using Matrix = pare::RowMatrix<float>;
using Sentences = std::vector<std::vector<Token>>;

Sentences sentences_of(const Arguments& arguments, const OpenEncoder& model,
                       const std::string& path) {
  return tokens_of(model.tokenizer, read_sentences(path), arguments.tokens);
}

template <class B>
void run_compare(const Arguments& arguments, const OpenEncoder& model, const B& backend) {
  const Matrix vectors = sentence_vectors(
      model.bert, backend, tokens_of(model.tokenizer, arguments.words, arguments.tokens),
      [](double) {});
  const Matrix cosines = vectors * vectors.transpose();
  for (Index i = 0; i < cosines.rows(); ++i) {
    for (Index j = 0; j < cosines.cols(); ++j)
      std::printf("%6.3f ", static_cast<double>(cosines(i, j)));
    std::printf(" %s\n", arguments.words[static_cast<std::size_t>(i)].c_str());
  }
}

template <class B>
InputProducts products_of(OpenEncoder& model, const B& backend, const Sentences& sample) {
  command_line::Progress progress("looking at inputs");
  return input_products(
      model.bert, [&] { for_each_batch(model.bert, backend, sample, [](auto&&...) {}, progress); });
}

template <class B>
void judge_metric(const Arguments& arguments, OpenEncoder& model, const B& backend,
                  const Sentences& sentences, const Matrix& exact, SvdMetric metric,
                  const InputProducts& inputs) {
  for (const double share : arguments.shares) {
    const BlocksRestored restored(model.bert);
    command_line::Progress progress("factoring");
    const double kept =
        factor_layers(model.bert, backend, model.file, metric, share, inputs, progress);
    const models::Mean mean = models::mean_of(
        cosines_of(sentence_vectors(model.bert, backend, sentences, [](double) {}), exact));
    progress.erase();
    std::printf("%-12s %6.3f %12.4f +- %.4f\n", name_of(metric).data(), kept, mean.value,
                mean.error);
    std::fflush(stdout);
  }
}

template <class B>
void run_judge(const Arguments& arguments, OpenEncoder& model, const B& backend) {
  const Sentences sentences = sentences_of(arguments, model, arguments.words.front());
  if (!arguments.heads.empty())
    return judge_pruned(model, backend, arguments.heads,
                        sentences_of(arguments, model, arguments.sample), sentences);
  InputProducts inputs;
  if (arguments.needs_sample())
    inputs = products_of(model, backend, sentences_of(arguments, model, arguments.sample));
  if (arguments.structured.any())
    return judge_structured(model, backend, arguments.structured, inputs, sentences);
  const Matrix exact = sentence_vectors(model.bert, backend, sentences, [](double) {});
  std::printf("%zu sentences\n%-12s %6s %22s\n", sentences.size(), "metric", "kept", "mean cosine");
  for (const SvdMetric metric : arguments.metrics())
    judge_metric(arguments, model, backend, sentences, exact, metric, inputs);
}

template <class B>
void run_vectors(const Arguments& arguments, const OpenEncoder& model, const B& backend) {
  const Sentences sentences = sentences_of(arguments, model, arguments.words.front());
  std::vector<Index> offsets{0};
  for (const auto& sentence : sentences)
    offsets.push_back(offsets.back() + static_cast<Index>(sentence.size()));
  Matrix means(static_cast<Index>(sentences.size()), model.bert.config().dim);
  Matrix tokens(offsets.back(), means.cols());
  command_line::Progress progress("encoding");
  for_each_batch(
      model.bert, backend, sentences,
      [&](Index first, const Batch& batch, TensorView<const float, 2> vectors) {
        mean_vectors(batch, vectors,
                     {&means(first, 0), {batch.sentences(), means.cols()}, {means.cols(), 1}});
        tokens.middleRows(offsets[static_cast<std::size_t>(first)], vectors.rows()) =
            Eigen::Map<const Matrix>(vectors.data, vectors.rows(), vectors.cols());
      },
      progress);
  progress.erase();
  pare::io::write_safetensors(arguments.out,
                              {{"sentences", means}, {"tokens", tokens}, {"offsets", offsets}});
  std::printf("%zu sentences, %td tokens: see %s\n", sentences.size(), tokens.rows(),
              arguments.out.c_str());
}

void run(const Arguments& arguments) {
  OpenEncoder model(model_folder(arguments.model));
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(arguments.threads).with(workspace);
  switch (arguments.command) {
    case Command::Compare:
      return run_compare(arguments, model, backend);
    case Command::Judge:
      return run_judge(arguments, model, backend);
    case Command::Vectors:
      return run_vectors(arguments, model, backend);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "encoder", .usage = usage_text, .less_memory = "fewer sentences take less"},
      [&] { return parse_arguments(argc, argv); }, run);
}
