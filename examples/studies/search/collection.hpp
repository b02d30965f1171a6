// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Documents and queries of a task with all that methods search by.

#include "common/open_encoder.hpp"
#include "common/progress.hpp"
#include "search/arguments.hpp"
#include "search/encode_texts.hpp"
#include "search/keyword_index.hpp"
#include "search/texts.hpp"
#include "search/token_vectors.hpp"
#include "search/vector_cache.hpp"
#include "search/wordnet.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace search {

inline constexpr Index most_tokens = 256;  ///< of a text, as the model was trained

inline std::vector<std::string> document_texts(const std::vector<Synset>& synsets,
                                               const std::vector<std::size_t>& chosen, Task task) {
  std::vector<std::string> texts;
  texts.reserve(chosen.size());
  for (const std::size_t synset : chosen) texts.push_back(document_text(synsets, synset, task));
  return texts;
}

/// The vectors of documents, of the cache if they are there.
inline VectorCache document_vectors(const Arguments& arguments, const encoder::OpenEncoder& model,
                                    const std::filesystem::path& model_folder,
                                    const std::vector<std::string>& texts) {
  const auto folder = arguments.cache ? std::filesystem::path(*arguments.cache)
                                      : std::filesystem::absolute(model_folder).parent_path();
  const std::string name = std::string("search-") +
                           (arguments.task == Task::Reverse ? "reverse" : "gloss") + "-" +
                           std::to_string(texts.size()) + ".safetensors";
  return VectorCache(folder / name, key_of(model.file, texts, most_tokens), [&] {
    command_line::Progress progress("encoding documents");
    pare::Workspace workspace;
    return encode_texts(model, pare::simd.threads(arguments.threads).with(workspace), texts,
                        most_tokens, progress);
  });
}

/// What is searched, and for what.
class Collection {
 public:
  explicit Collection(const Arguments& arguments)
      : Collection(arguments, read_synsets(arguments.wordnet)) {}

  Index documents() const { return vectors().texts(); }
  Index queries() const { return static_cast<Index>(queries_.size()); }
  VectorView vectors() const { return documents_.view(); }
  VectorView query_vectors() const { return query_vectors_.view(); }
  const KeywordIndex& keywords() const { return keywords_; }
  const std::vector<std::int32_t>& terms(Index query) const {
    return terms_[static_cast<std::size_t>(query)];
  }
  /// The document that a query is for.
  Index relevant(Index query) const { return queries_[static_cast<std::size_t>(query)].document; }
  /// A query and its document as texts.
  std::string shown(Index query) const {
    const Query& q = queries_[static_cast<std::size_t>(query)];
    return "\"" + joined(q.words, " ") + "\"\n  for \"" +
           texts_[static_cast<std::size_t>(q.document)] + "\"";
  }

 private:
  Collection(const Arguments& arguments, const std::vector<Synset>& synsets)
      : Collection(arguments, synsets, spread(synsets.size(), arguments.documents),
                   encoder::model_folder(arguments.model)) {}

  Collection(const Arguments& arguments, const std::vector<Synset>& synsets,
             const std::vector<std::size_t>& chosen, const std::filesystem::path& folder)
      : Collection(arguments, synsets, chosen, folder, encoder::OpenEncoder(folder)) {}

  Collection(const Arguments& arguments, const std::vector<Synset>& synsets,
             const std::vector<std::size_t>& chosen, const std::filesystem::path& folder,
             const encoder::OpenEncoder& model)
      : texts_(document_texts(synsets, chosen, arguments.task)),
        queries_(draw_queries(synsets, chosen, arguments.task, arguments.queries, arguments.seed)),
        keywords_(texts_),
        documents_(document_vectors(arguments, model, folder, texts_)) {
    std::vector<std::string> asked;
    for (const Query& query : queries_) {
      terms_.push_back(keywords_.terms(query.words));
      asked.push_back(joined(query.words, " "));
    }
    query_vectors_ = encode_texts(model, pare::simd, asked, most_tokens, [](double) {});
  }

  std::vector<std::string> texts_;
  std::vector<Query> queries_;
  KeywordIndex keywords_;
  VectorCache documents_;
  std::vector<std::vector<std::int32_t>> terms_{};
  TokenVectors query_vectors_{};
};

/// The document that a query is for, as a call.
inline auto relevant_of(const Collection& c) {
  return [&c](Index query) { return c.relevant(query); };
}

}  // namespace search
