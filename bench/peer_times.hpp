// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which peers run, and times of slow ones that are kept beside the program for later runs.

#include <optional>
#include <string>

namespace pare::bench {

/// The value of `--peers`: words with commas between them. A peer runs if its name has one of them;
/// `all` are in every name, `none` in no name. With `fresh`, kept times are not used but replaced.
void choose_peers(const std::string& words);

/// Whether a peer of that name, or script, is to run.
bool is_chosen(const std::string& peer);

/// The seconds that an earlier run kept for the same work, on a machine of the same name and
/// processor; nothing if there are none, or with `fresh`.
std::optional<double> kept_seconds(const std::string& work);

/// Keeps them in `<this program>.peers`, a line of text for each work, from the next run on.
void keep_seconds(const std::string& work, double seconds);

/// What to say of times that were not measured in this run; empty if all were.
std::string kept_times_used();

}  // namespace pare::bench
