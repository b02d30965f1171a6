// SPDX-License-Identifier: Apache-2.0
// DPO on log-probabilities of two answers: some steps along the gradient make the better one
// likelier than the reference has it, and the loss falls from ln 2. Prints 0.693 and the loss
// after.

#include <pare/retrieval/objectives/pairwise.hpp>

#include <cstdio>
#include <vector>

int main() {
  using namespace pare::retrieval;
  const std::vector<double> reference_winner{-12.0, -9.0}, reference_loser{-11.0, -9.5};
  std::vector<double> winner = reference_winner, loser = reference_loser;
  std::vector<double> by_winner(2), by_loser(2);

  double first = 0, last = 0;
  for (int step = 0; step < 100; ++step) {
    last =
        dpo({winner, loser, reference_winner, reference_loser}, {.beta = 0.1}, by_winner, by_loser);
    if (step == 0) first = last;
    for (std::size_t i = 0; i < 2; ++i) {
      winner[i] -= 10 * by_winner[i];
      loser[i] -= 10 * by_loser[i];
    }
  }
  std::printf("loss %.3f -> %.3f; BPR of these scores %.3f\n", first, last, bpr(winner, loser));
  return first > 0.693 && first < 0.694 && last < 0.2 ? 0 : 1;
}
