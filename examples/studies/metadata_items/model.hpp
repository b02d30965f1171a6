// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A model of sessions: the mean of a session's rows, and heads for the next film, its main genre
/// and its decade. All gradients are the library's.

#include "metadata_items/arguments.hpp"
#include "metadata_items/film_fields.hpp"
#include "metadata_items/sessions.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/optim/adam.hpp>
#include <pare/retrieval/items/embedding_bag.hpp>
#include <pare/retrieval/items/metadata_heads.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

namespace metadata_items {

using Matrix = pare::RowMatrix<float>;

/// A matrix that learns.
struct Weight {
  Matrix value, gradient;
  pare::optim::Adam<float> adam;

  Weight(Index rows, Index cols, float spread, double rate, std::mt19937_64& random)
      : value(rows, cols),
        gradient(Matrix::Zero(rows, cols)),
        adam(rows * cols, {.learning_rate = rate}) {
    for (Index i = 0; i < value.size(); ++i)
      value.data()[i] = spread * (static_cast<float>(random() >> 40) * 0x1p-23f - 1.f);
  }
  void step() {
    const auto size = static_cast<std::size_t>(value.size());
    adam.step(std::span<float>(value.data(), size), std::span<const float>(gradient.data(), size));
  }
};

/// Sessions of a batch as items of one field, whose values are films: their mean is an embedding
/// bag of the films' rows, and so is its gradient.
inline ItemFields bags_of(const Sessions& sessions, std::span<const Step> steps, Index longest) {
  detail::Bags bags;
  for (const Step& step : steps) {
    const auto history = sessions.history(step, longest);
    bags.ids.insert(bags.ids.end(), history.begin(), history.end());
    bags.close();
  }
  ItemFields fields(static_cast<Index>(steps.size()));
  fields.add(static_cast<Index>(sessions.seen.size()), std::move(bags.ids),
             std::move(bags.offsets));
  return fields;
}

class Model {
 public:
  Model(const movie_lens::Data& data, FilmFields films, const Arguments& arguments,
        std::uint64_t seed)
      : films_(std::move(films)), arguments_(arguments), random_(seed) {
    const Index width = arguments.width;
    const float spread = 1 / std::sqrt(static_cast<float>(width));
    for (std::size_t j = 0; j < films_.widths.size(); ++j)
      tables_.emplace_back(films_.fields.values(static_cast<Index>(j)), films_.widths[j], spread,
                           arguments.rate, random_);
    heads_.emplace_back(width, width, spread, arguments.rate, random_);
    heads_.emplace_back(static_cast<Index>(data.genres.size()) + 1, width, spread, arguments.rate,
                        random_);
    heads_.emplace_back(decades, width, spread, arguments.rate, random_);
    for (const movie_lens::Movie& movie : data.movies) {
      genre_.push_back(main_genre(data, movie));
      decade_.push_back(decade_of(movie));
    }
    rows_.resize(films_.fields.items(), width);
    by_rows_.resize(rows_.rows(), width);
    by_bags_.resize(rows_.rows(), width);
  }

  /// Passes over the steps in random order. Returns the mean loss of the last.
  template <class B>
  double train(const B& backend, const Sessions& sessions) {
    std::vector<Step> steps = sessions.train;
    double loss = 0;
    for (int epoch = 0; epoch < arguments_.epochs; ++epoch) {
      std::shuffle(steps.begin(), steps.end(), random_);
      loss = 0;
      for (std::size_t begin = 0; begin < steps.size(); begin += batch) {
        const auto some =
            std::span<const Step>(steps).subspan(begin, std::min(batch, steps.size() - begin));
        loss += learn(backend, sessions, some) * static_cast<double>(some.size());
      }
      loss /= static_cast<double>(steps.size());
    }
    make_rows(backend);
    return loss;
  }

  /// Scores of all films, [steps, films].
  template <class B>
  void score(const B& backend, const Sessions& sessions, std::span<const Step> steps,
             Matrix& scores) {
    const ItemFields bags = bags_of(sessions, steps, arguments_.session);
    Matrix vectors(bags.items(), arguments_.width);
    pare::retrieval::embedding_bag(backend, bags, std::span<const Matrix>(&rows_, 1), vectors);
    scores.resize(bags.items(), rows_.rows());
    pare::retrieval::score_items(backend, vectors, heads_[0].value, rows_, scores);
  }

  /// Numbers that were learnt.
  Index size() const {
    Index sum = 0;
    for (const Weight& w : tables_) sum += w.value.size();
    for (const Weight& w : heads_) sum += w.value.size();
    return sum;
  }

 private:
  static constexpr std::size_t batch = 256;

  template <class B>
  void make_rows(const B& backend) {
    std::vector<pare::TensorView<const float, 2>> views;
    for (const Weight& w : tables_) views.push_back(pare::const_view(w.value));
    pare::retrieval::embedding_bag(backend, films_.fields, views, rows_);
  }

  /// One step of Adam.
  template <class B>
  double learn(const B& backend, const Sessions& sessions, std::span<const Step> steps) {
    make_rows(backend);
    const ItemFields bags = bags_of(sessions, steps, arguments_.session);
    vectors_.resize(bags.items(), arguments_.width);
    by_vectors_.resize(bags.items(), arguments_.width);
    pare::retrieval::embedding_bag(backend, bags, std::span<const Matrix>(&rows_, 1), vectors_);
    const double loss = heads_gradient(backend, sessions, steps);
    const std::span<Matrix> of_bags(&by_bags_, 1);
    pare::retrieval::embedding_bag_gradient(backend, bags, by_vectors_, of_bags);
    by_rows_ += by_bags_;
    std::vector<pare::TensorView<float, 2>> views;
    for (Weight& w : tables_) views.push_back(pare::to_view(w.gradient));
    pare::retrieval::embedding_bag_gradient(backend, films_.fields, by_rows_, views);
    for (Weight& w : tables_) w.step();
    for (Weight& w : heads_) w.step();
    return loss;
  }

  /// Writes gradients by vectors, rows and heads.
  template <class B>
  double heads_gradient(const B& backend, const Sessions& sessions, std::span<const Step> steps) {
    std::vector<Index> next, genre, decade;
    for (const Step& step : steps) {
      next.push_back(sessions.target(step));
      genre.push_back(genre_[static_cast<std::size_t>(next.back())]);
      decade.push_back(decade_[static_cast<std::size_t>(next.back())]);
    }
    using pare::const_view, pare::to_view;
    const std::vector<pare::retrieval::ClassHead<float>> heads{
        {.classes = const_view(rows_), .map = const_view(heads_[0].value), .targets = next},
        {.classes = const_view(heads_[1].value), .targets = genre},
        {.classes = const_view(heads_[2].value), .targets = decade}};
    const std::vector<pare::retrieval::ClassGradient<float>> by{
        {.by_classes = to_view(by_rows_), .by_map = to_view(heads_[0].gradient)},
        {.by_classes = to_view(heads_[1].gradient)},
        {.by_classes = to_view(heads_[2].gradient)}};
    std::vector<double> losses(3);
    pare::retrieval::multi_task_gradient(backend, vectors_, heads, by_vectors_, by, losses);
    return losses[0];
  }

  FilmFields films_;
  Arguments arguments_;
  std::mt19937_64 random_;
  std::vector<Weight> tables_, heads_;  ///< heads: the map, genres, decades
  std::vector<Index> genre_, decade_;   ///< [films]
  Matrix rows_, by_rows_, by_bags_, vectors_, by_vectors_;
};

}  // namespace metadata_items
