// SPDX-License-Identifier: Apache-2.0
// Items without ids: six films known by genre and decade, one of which nobody has seen. A few steps
// of gradient teach that sessions of comedies go on with one; the film that training never saw is
// then scored as its twin is. Prints the place of the unseen comedy for a session of comedies: 1.

#include <pare/core/matrix.hpp>
#include <pare/retrieval/items/embedding_bag.hpp>
#include <pare/retrieval/items/metadata_heads.hpp>
#include <pare/retrieval/items/session_encoder.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <cstdio>
#include <cstdlib>
#include <vector>

using Matrix = pare::RowMatrix<float>;
using pare::const_view;
using pare::Index;
using pare::to_view;
using namespace pare::retrieval;

int main() {
  std::srand(1);
  ItemFields fields(6);                                         // films 0 to 5
  fields.add(3, {0, 0, 1, 1, 2, 0, 2}, {0, 1, 2, 3, 4, 5, 7});  // 0 comedy, 1 drama, 2 crime
  fields.add(2, {0, 1, 0, 1, 0, 1});                            // decades
  std::vector<Matrix> tables{Matrix::Random(3, 6), Matrix::Random(2, 2)};
  Matrix map = Matrix::Random(8, 8), rows(6, 8);

  // Without blocks the encoder is the mean; see session_encoder.hpp for those with attention.
  using Layer = pare::transformer::DenseLinear<float>;
  const SessionEncoder<EncoderBlock<Layer>> encoder(8);
  const std::vector<Index> films{0, 1, 0, 2, 3, 4}, offsets{0, 2, 3, 5, 6};  // four sessions
  const std::vector<Index> next{0, 1, 3, 4};
  Matrix session_rows(6, 8), sessions(4, 8), by_sessions(4, 8), by_map(8, 8), by_rows(6, 8);
  std::vector<Matrix> by_tables{Matrix(3, 6), Matrix(2, 2)};

  for (int step = 0; step < 200; ++step) {
    embedding_bag(fields, tables, rows);
    for (Index t = 0; t < 6; ++t)
      session_rows.row(t) = rows.row(films[static_cast<std::size_t>(t)]);
    encoder.encode(session_rows, offsets, sessions);
    const std::vector<ClassHead<float>> heads{
        {.classes = const_view(rows), .map = const_view(map), .targets = next}};
    const std::vector<ClassGradient<float>> by{
        {.by_classes = to_view(by_rows), .by_map = to_view(by_map)}};
    multi_task_gradient(sessions, heads, by_sessions, by);
    for (std::size_t s = 0; s < 4; ++s)  // through the mean
      for (Index t = offsets[s]; t < offsets[s + 1]; ++t)
        by_rows.row(films[static_cast<std::size_t>(t)]) +=
            by_sessions.row(static_cast<Index>(s)) /
            static_cast<float>(offsets[s + 1] - offsets[s]);
    embedding_bag_gradient(fields, by_rows, by_tables);
    map -= .1f * by_map;
    for (std::size_t f = 0; f < 2; ++f) tables[f] -= .1f * by_tables[f];
  }

  // A seventh film comes: a comedy of decade 1, as film 1 is.
  ItemFields later(7);
  later.add(3, {0, 0, 1, 1, 2, 0, 2, 0}, {0, 1, 2, 3, 4, 5, 7, 8});
  later.add(2, {0, 1, 0, 1, 0, 1, 1});
  Matrix seven(7, 8), scores(4, 7);
  embedding_bag(later, tables, seven);
  score_items(sessions, map, seven, scores);
  if (scores(1, 6) != scores(1, 1)) return 1;  // the bits of its twin
  int place = 1;
  for (Index film = 0; film < 7; ++film) place += scores(1, film) > scores(1, 6) ? 1 : 0;
  std::printf("%d\n", place);
  return place == 1 ? 0 : 1;
}
