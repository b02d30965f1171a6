// SPDX-License-Identifier: Apache-2.0
// A function of Pare outside the ABI's namespace, whose code depends on the instruction set.
namespace pare {
[[gnu::noinline]] inline double planted(double x) { return x * x + 1; }
}  // namespace pare

double call_planted(double x) { return pare::planted(x); }
