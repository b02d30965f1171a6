// SPDX-License-Identifier: Apache-2.0
#include "peer_times.hpp"

#include "child_process.hpp"
#include "limits.hpp"
#include "timing.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include <unistd.h>

namespace pare::bench {
namespace {

struct Kept {
  double seconds = 0;
  std::string date;
};

struct Choice {
  std::vector<std::string> words{"all"};
  bool fresh = false;
};

Choice& choice() {
  static Choice chosen;
  return chosen;
}

std::string today() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::array<char, 16> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d", std::localtime(&now));
  return text.data();
}

/// Times belong to a machine: the folder of a build may be shared.
std::string on_this_machine(const std::string& work) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::string key = std::string(host.data()) + "|" + cpu_model() + "|" +
                    std::to_string(all_threads()) + "|" + work;
  std::replace_if(key.begin(), key.end(), [](char c) { return c == '\t' || c == '\n'; }, ' ');
  return key;
}

/// Lines of seconds, date and work, the later of two for the same work counts.
class PeerTimes {
 public:
  PeerTimes() : path_(own_path() + ".peers") {
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      std::istringstream fields(line);
      Kept kept;
      std::string work;
      if (fields >> kept.seconds >> kept.date && fields.get() == '\t' &&
          std::getline(fields, work) && std::isfinite(kept.seconds) && kept.seconds > 0)
        times_[work] = kept;
    }
  }

  std::optional<Kept> find(const std::string& key) const {
    const auto entry = times_.find(key);
    return entry == times_.end() ? std::nullopt : std::optional(entry->second);
  }

  void add(const std::string& key, double seconds) {
    std::ofstream file(path_, std::ios::app);
    file.precision(9);
    file << seconds << ' ' << today() << '\t' << key << '\n';
  }

  const std::string& path() const { return path_; }
  std::set<std::string> dates_used;

 private:
  std::string path_;
  std::map<std::string, Kept> times_;
};

PeerTimes& peer_times() {
  static PeerTimes times;
  return times;
}

}  // namespace

void choose_peers(const std::string& words) {
  choice().words.clear();
  std::istringstream list(words);
  for (std::string word; std::getline(list, word, ',');) {
    if (word == "fresh")
      choice().fresh = true;
    else if (!word.empty())
      choice().words.push_back(word);
  }
  if (choice().words.empty()) choice().words.emplace_back("all");
}

bool is_chosen(const std::string& peer) {
  const auto& words = choice().words;
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) {
    return word == "all" || (word != "none" && peer.find(word) != std::string::npos);
  });
}

std::optional<double> kept_seconds(const std::string& work) {
  if (choice().fresh) return std::nullopt;
  const std::optional<Kept> kept = peer_times().find(on_this_machine(work));
  if (!kept) return std::nullopt;
  peer_times().dates_used.insert(kept->date);
  std::fprintf(stderr, "peer %s: %.4g s, kept since %s\n", work.c_str(), kept->seconds,
               kept->date.c_str());
  return kept->seconds;
}

void keep_seconds(const std::string& work, double seconds) {
  peer_times().add(on_this_machine(work), seconds);
}

std::string kept_times_used() {
  const auto& dates = peer_times().dates_used;
  if (dates.empty()) return {};
  const std::string last = *dates.rbegin();
  return "times of some peers are kept ones, of " + *dates.begin() +
         (last == *dates.begin() ? "" : " to " + last) + " (" + peer_times().path() +
         "); --peers=fresh measures them in this run";
}

}  // namespace pare::bench
