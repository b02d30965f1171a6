// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Reads the noun synsets of WordNet from its data.noun, whose format is in wndb(5WN).
///
/// ```cpp
/// const std::vector<Synset> synsets = read_synsets("/usr/share/wordnet/data.noun");
/// synsets[0].words;       // {"entity"}
/// synsets[0].definition;  // "that which is perceived or known or inferred to have ..."
/// ```

#include <pare/core/tensor_view.hpp>

#include <charconv>
#include <cstddef>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace search {

using pare::Index;

/// A meaning, and the words that have it.
struct Synset {
  std::vector<std::string> words{};  ///< with spaces, where the file has underscores
  std::string definition{};          ///< the gloss up to its first example
  std::string examples{};            ///< the rest, in their quotes; often empty
  std::vector<Index> kinds{};        ///< hypernyms: first the numbers of bytes, then of synsets
};

namespace detail {

/// Takes fields off the front of a line.
class Fields {
 public:
  explicit Fields(std::string_view line) : rest_(line) {}

  std::string_view next() {
    const std::size_t end = rest_.find(' ');
    if (rest_.empty() || end == std::string_view::npos)
      throw std::runtime_error("a synset ends too early");
    const std::string_view field = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return field;
  }
  Index number(int base) {
    const std::string_view field = next();
    Index value = 0;
    const auto [stop, error] =
        std::from_chars(field.data(), field.data() + field.size(), value, base);
    if (error != std::errc() || stop != field.data() + field.size() || value < 0)
      throw std::runtime_error("'" + std::string(field) + "' stands where a number should");
    return value;
  }

 private:
  std::string_view rest_;
};

inline std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" ;\t\r");
  const std::size_t end = text.find_last_not_of(" ;\t\r");
  return begin == std::string_view::npos ? "" : std::string(text.substr(begin, end - begin + 1));
}

/// A word with spaces for underscores.
inline std::string spaced(std::string_view word) {
  std::string text(word);
  for (char& c : text)
    if (c == '_') c = ' ';
  return text;
}

}  // namespace detail

/// The synset of a line and the number that others point to it by.
/// \throws std::runtime_error if the line is of another form
inline std::pair<Index, Synset> parse_synset(std::string_view line) {
  const std::size_t bar = line.find(" | ");
  if (bar == std::string_view::npos) throw std::runtime_error("a synset has no gloss");
  detail::Fields fields(line.substr(0, bar + 1));
  Synset synset;
  const Index number = fields.number(10);
  fields.next();
  fields.next();
  for (Index left = fields.number(16); left > 0; --left) {
    synset.words.push_back(detail::spaced(fields.next()));
    fields.next();
  }
  for (Index left = fields.number(10); left > 0; --left) {
    const std::string_view symbol = fields.next();
    const Index target = fields.number(10);
    const std::string_view part_of_speech = fields.next();
    fields.next();
    if ((symbol == "@" || symbol == "@i") && part_of_speech == "n") synset.kinds.push_back(target);
  }
  const std::string_view gloss = line.substr(bar + 3);
  const std::size_t quote = gloss.find('"');
  synset.definition = detail::trimmed(gloss.substr(0, quote));
  if (quote != std::string_view::npos) synset.examples = detail::trimmed(gloss.substr(quote));
  return {number, std::move(synset)};
}

/// All synsets of a data.noun in its order.
/// \throws std::runtime_error if it cannot be read or is of another form
inline std::vector<Synset> read_synsets(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw std::runtime_error(path + ": cannot be read; it is in Debian's package wordnet-base, " +
                             "which `cmake/bootstrap.sh deps wordnet-base` installs");
  std::vector<Synset> synsets;
  std::unordered_map<Index, Index> place;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line.starts_with("  ")) continue;  // the licence
    auto [number, synset] = parse_synset(line);
    place.emplace(number, static_cast<Index>(synsets.size()));
    synsets.push_back(std::move(synset));
  }
  if (synsets.empty()) throw std::runtime_error(path + ": there is no synset in it");
  for (Synset& synset : synsets)
    for (Index& kind : synset.kinds) {
      const auto found = place.find(kind);
      if (found == place.end()) throw std::runtime_error(path + ": a synset points to none");
      kind = found->second;
    }
  return synsets;
}

}  // namespace search
