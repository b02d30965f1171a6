// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of paged latent caches: random calls on a cache and on a model whose pages are
/// shared pointers. A call is refused if and only if the model finds it wrong, and then changes
/// nothing; after each call every token has its row, and as many pages are free. Built with
/// libFuzzer (clang -fsanitize=fuzzer) it is an entry point; built with PARE_FUZZ_STANDALONE it has
/// a main that runs seeded mutations of valid calls: `latent_cache_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/latent/cache.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::KeysRead;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using pare::latent::LatentCache;
using pare::latent::RopeState;

constexpr Index most = (Index{1} << 30) - 1;

/// A page is free when no sequence points to it.
struct Page {
  static inline Index live = 0;
  std::vector<float> rows;

  explicit Page(Index size) : rows(static_cast<std::size_t>(size)) { ++live; }
  Page(const Page& other) : rows(other.rows) { ++live; }
  Page& operator=(const Page&) = delete;
  ~Page() { --live; }
};

/// Sequences of tokens, each of which is one number.
class Model {
 public:
  Model(Index pages, Index size) : pages_(pages), size_(size) {}

  struct Sequence {
    std::vector<std::shared_ptr<Page>> pages{};  ///< null: evicted
    Index length = 0;
    bool used = false;
  };
  std::vector<Sequence> sequences{};

  bool add() {
    free_number() = Sequence{{}, 0, true};
    return true;
  }
  bool fork(Index s, std::optional<Index> tokens) {
    if (!has(s)) return false;
    const Index n = tokens.value_or(at(s).length);
    if (!can_end(at(s), n)) return false;
    Sequence copy = at(s);
    cut(copy, n);
    free_number() = copy;
    return true;
  }
  bool release(Index s) {
    if (!has(s)) return false;
    at(s) = {};
    while (!sequences.empty() && !sequences.back().used) sequences.pop_back();
    return true;
  }
  bool truncate(Index s, Index n) {
    if (!has(s) || !can_end(at(s), n)) return false;
    cut(at(s), n);
    return true;
  }
  bool append(Index s, Index tokens, float first) {
    if (!has(s) || tokens < 0 || tokens > most - at(s).length) return false;
    Sequence& x = at(s);
    const bool copies = tokens > 0 && x.length % size_ != 0 && x.pages.back().use_count() > 1;
    const Index taken = (x.length + tokens + size_ - 1) / size_ -
                        static_cast<Index>(x.pages.size()) + (copies ? 1 : 0);
    if (taken > free()) return false;
    if (copies) x.pages.back() = std::make_shared<Page>(*x.pages.back());
    for (Index t = 0; t < tokens; ++t, ++x.length) {
      if (x.length % size_ == 0) x.pages.push_back(std::make_shared<Page>(size_));
      row(x, x.length) = first + static_cast<float>(t);
    }
    return true;
  }
  bool evict(Index s, Index window, Index sinks) {
    if (!has(s) || window < 0 || sinks < 0) return false;
    Sequence& x = at(s);
    for (std::size_t i = 0; i < x.pages.size(); ++i) {
      bool kept = (static_cast<Index>(i) + 1) * size_ > x.length;
      for (Index t = static_cast<Index>(i) * size_;
           !kept && t < (static_cast<Index>(i) + 1) * size_; ++t)
        kept = t < sinks || x.length - t <= window;
      if (!kept) x.pages[i] = nullptr;
    }
    return true;
  }
  bool discard(Index s, Index first, Index tokens) {
    if (!has(s) || first < 0 || first > at(s).length) return false;
    Sequence& x = at(s);
    if (tokens < 0 || tokens > x.length - first) return false;
    if (tokens == 0) return true;
    Index shared = 0;
    for (auto i = static_cast<std::size_t>(first / size_); i < x.pages.size(); ++i) {
      if (x.pages[i] == nullptr) return false;
      shared += x.pages[i].use_count() > 1 ? 1 : 0;
    }
    if (shared > free()) return false;
    for (auto i = static_cast<std::size_t>(first / size_); i < x.pages.size(); ++i)
      if (x.pages[i].use_count() > 1) x.pages[i] = std::make_shared<Page>(*x.pages[i]);
    for (Index t = first; t + tokens < x.length; ++t) row(x, t) = row(x, t + tokens);
    cut(x, x.length - tokens);
    return true;
  }
  bool reads(KeysRead read) {
    for (Sequence& x : sequences)
      for (Index t = 0; t < x.length; ++t)
        if ((t < read.sinks || t >= read.first) && !held(x, t)) return false;
    return true;
  }

  Index free() const { return pages_ - Page::live; }
  bool held(const Sequence& x, Index t) const {
    return x.pages[static_cast<std::size_t>(t / size_)] != nullptr;
  }
  float& row(Sequence& x, Index t) {
    return x.pages[static_cast<std::size_t>(t / size_)]->rows[static_cast<std::size_t>(t % size_)];
  }

 private:
  Sequence& at(Index s) { return sequences[static_cast<std::size_t>(s)]; }
  bool has(Index s) { return s >= 0 && s < static_cast<Index>(sequences.size()) && at(s).used; }
  bool can_end(const Sequence& x, Index n) const {
    return n >= 0 && n <= x.length && (n % size_ == 0 || held(x, n));
  }
  void cut(Sequence& x, Index n) const {
    x.pages.resize(static_cast<std::size_t>((n + size_ - 1) / size_));
    x.length = n;
  }
  Sequence& free_number() {
    for (Sequence& x : sequences)
      if (!x.used) return x;
    return sequences.emplace_back();
  }

  Index pages_, size_;
};

using Cache = LatentCache<float>;

void require_same(Model& model, const Cache& cache) {
  require(cache.table().free_pages() == model.free(), "as many pages are free");
  require(cache.sequences() == static_cast<Index>(model.sequences.size()), "sequences are those");
  for (Index s = 0; s < cache.sequences(); ++s) {
    auto& x = model.sequences[static_cast<std::size_t>(s)];
    require(cache.table().has(s) == x.used && cache.length(s) == x.length, "lengths are those");
    for (Index t = 0; t < x.length; ++t) {
      require(cache.table().holds(s, t) == model.held(x, t), "tokens are held or evicted");
      if (model.held(x, t))
        require(*cache.key(s, 0, t) == model.row(x, t), "each token has its row");
    }
  }
}

/// Whether a call is taken.
template <class Call>
bool taken(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return false;
  }
  return true;
}

/// One call on both; true if it was taken.
bool step(Bytes& bytes, Model& model, Cache& cache, float& next) {
  const auto code = static_cast<std::uint8_t>(bytes.number<int>()) % 8;
  const Index s = bytes.number<Index>(), a = bytes.number<Index>(), b = bytes.number<Index>();
  bool sound = false, got = false;
  if (code == 0) {
    sound = model.add();
    got = taken([&] { cache.add(); });
  } else if (code == 1) {
    const std::optional<Index> tokens = b % 2 == 0 ? std::optional(a) : std::nullopt;
    sound = model.fork(s, tokens);
    got = taken([&] { cache.fork(s, tokens); });
  } else if (code == 2) {
    sound = model.release(s);
    got = taken([&] { cache.release(s); });
  } else if (code == 3) {
    sound = model.truncate(s, a);
    got = taken([&] { cache.truncate(s, a); });
  } else if (code == 4) {
    sound = model.append(s, a, next);
    std::vector<float> rows(static_cast<std::size_t>(std::clamp<Index>(a, 1, 200)));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = next + static_cast<float>(i);
    got = taken([&] { cache.append(s, TensorView<const float, 2>{rows.data(), {a, 1}, {1, 1}}); });
    next += static_cast<float>(rows.size());
  } else if (code == 5) {
    sound = model.evict(s, a, b);
    got = taken([&] { cache.evict(s, {.window = a, .sinks = b}); });
  } else if (code == 6) {
    sound = model.discard(s, a, b);
    got = taken([&] { cache.discard(s, a, b); });
  } else {
    sound = model.reads({a, b});
    got = taken([&] { cache.validate("read", [&](Index) { return KeysRead{a, b}; }); });
  }
  require(got == sound, "calls are taken if and only if they are sound");
  return got;
}

/// True if all calls were taken.
bool try_bytes(std::span<const std::uint8_t> data) {
  Bytes bytes(data);
  const auto small = [&](unsigned n) {
    return static_cast<Index>(static_cast<std::uint8_t>(bytes.number<int>()) % n);
  };
  const Index size = 1 + small(7), pages = 1 + small(40);
  Model model(pages, size);
  Cache cache({.latent = 1,
               .rope = 0,
               .pages = pages,
               .page_size = size,
               .sequences = 1,
               .rope_state = RopeState::Unrotated});
  model.add();
  float next = 1;
  bool all = true;
  for (std::size_t left = std::min<std::size_t>(data.size() / 4, 60); left > 0; --left) {
    all = step(bytes, model, cache, next) && all;
    require_same(model, cache);
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// Calls on sequence 0, and forks of it: at most 3 pages for each append, of 40.
Data valid_calls(unsigned long long, std::mt19937_64& random) {
  const auto below = [&](unsigned n) { return static_cast<std::uint8_t>(random() % n); };
  Data bytes{below(7), 39};
  for (int call = 0; call < 12; ++call) {
    const std::uint8_t kind = below(6);
    if (kind < 3)
      bytes.insert(bytes.end(), {4, 0, below(3), 0});
    else if (kind == 3)
      bytes.insert(bytes.end(), {1, 0, 0, 1});
    else if (kind == 4)
      bytes.insert(bytes.end(), {5, 0, below(6), below(4)});
    else
      bytes.insert(bytes.end(), {0, 0, 0, 0});
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("latent_cache_fuzz", argc, argv, valid_calls, try_bytes);
}
#endif
