// SPDX-License-Identifier: Apache-2.0
// BM25 over five sentences, words as term ids. Prints the best document for "old harbour": 3, which
// is short and has both words.

#include <pare/retrieval/bm25.hpp>

#include <cstdint>
#include <cstdio>
#include <map>
#include <sstream>
#include <string>
#include <vector>

int main() {
  using namespace pare::retrieval;
  const std::vector<std::string> documents{
      "a boat leaves the harbour at dawn", "the old man sees the boat and the sea",
      "old stones by the road to the north", "the old harbour", "nobody sees the road"};
  std::map<std::string, std::int32_t> ids;
  const auto terms_of = [&](const std::string& text) {
    std::vector<std::int32_t> terms;
    std::istringstream words(text);
    for (std::string word; words >> word;)
      terms.push_back(ids.try_emplace(word, static_cast<std::int32_t>(ids.size())).first->second);
    return terms;
  };

  std::vector<std::int32_t> tokens;
  std::vector<pare::Index> offsets{0};
  for (const std::string& document : documents) {
    const auto terms = terms_of(document);
    tokens.insert(tokens.end(), terms.begin(), terms.end());
    offsets.push_back(static_cast<pare::Index>(tokens.size()));
  }
  const Bm25Index index(tokens, offsets, {.k1 = 1.2, .b = 0.75});
  const std::vector<Hit> hits = index.search(terms_of("old harbour"), 3);
  for (const Hit& hit : hits) std::printf("%d %.3f\n", static_cast<int>(hit.id), hit.score);
  return hits.size() == 3 && hits[0].id == 3 ? 0 : 1;
}
