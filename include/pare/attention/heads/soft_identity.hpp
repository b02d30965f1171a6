// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// SoftPAG: chosen heads blend their attention with a target, per head by a share u in [0, 1].
///
///     A' = (1 - u) A + u T,  so  o_i <- (1 - u) o_i + u o_i^T;  no map is formed
///
/// ```cpp
/// const std::vector<float> u{0, 1, 0.5f, 0};                  // [query heads]
/// attend(q, k, v, out, SoftIdentity{u});                      // T = I: the token's own value
/// attend(q, k, v, out, SoftTarget{targets, u});               // rows of your own
/// const auto keys = most_attended(q, k);                      // [batch x heads x queries]
/// attend(q, k, v, out, SoftOneHot{keys, queries, u}, {.causal = true});
/// ```
///
/// | target T of row i | call |
/// |---|---|
/// | identity (PAG where u = 1, SoftPAG below) | `SoftIdentity{u}` |
/// | uniform over the visible keys (UG) | rows of HeadMode::Uniform (head_modes.hpp) as targets |
/// | softmax of the mean query (SEG's limit) | one row of `attend` for it, [batch, heads, 1, dim] |
/// | one-hot at the largest score (MG) | `SoftOneHot{keys, queries, u}`, keys of `most_attended` |
///
/// The last costs a pass over the scores of its own: the online softmax keeps no place. Query i of
/// n_q stands at the key i + n_k - n_q, or i + query_offset; its own value is that of the key/value
/// head that its head reads. The log-sum-exp stays that of A. A share of 0 leaves the bits of
/// `attend`; one of 1 gives the target exactly, even where a row is NaN.
///
/// Source: arXiv 2506.10978 (HeadHunter and SoftPAG), eq. 7 and appendix C. The paper forms A';
/// the blend of outputs is ours. u is a choice of the caller (they search with 1, and lower it once
/// the heads are fixed): it has no default.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend_finished.hpp>
#include <pare/attention/row_finish.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <span>

namespace pare::attention {

namespace detail {
PARE_ABI_BEGIN

/// A share for each query head; NaN is refused too.
inline void check_shares(const char* function, std::span<const float> shares, Index heads) {
  check(static_cast<Index>(shares.size()) == heads, function, "shares", shares.size(),
        Worded{"one for each of the query heads, ", heads});
  for (const float u : shares) check(u >= 0 && u <= 1, function, "shares", u, "shares from 0 to 1");
}

inline TensorView<const float, 1> shares_view(std::span<const float> shares) {
  return {shares.data(), {static_cast<Index>(shares.size())}, {1}};
}

PARE_ABI_END
}  // namespace detail

/// o_i <- (1 - u) o_i + u v_p(i), where v_p(i) is the value at the query's own position.
///
/// A call is refused if `shares` is not a list of one number in [0, 1] for each query head, or if a
/// query has no key at its position, as with more queries than keys. The caller keeps the list
/// alive.
struct SoftIdentity : KeepRows {
  std::span<const float> shares{};  ///< [query heads]

  SoftIdentity() = default;
  explicit SoftIdentity(std::span<const float> u) : shares(u) {}

  template <class Row>
  void finish(const Row& row) const {
    const float u = shares[static_cast<std::size_t>(row.head())];
    if (u > 0) row.blend(static_cast<double>(u), row.value(row.position()));
  }

  void validate(const char* function, const FinishCall& call) const {
    detail::check_shares(function, shares, call.heads);
    call.check_own_keys(function);
  }

  template <class View>
  void check_apart(const char* function, const char* output, const View& out) const {
    check_no_overlap(function, output, out, "shares", detail::shares_view(shares));
  }
};

/// o_i <- (1 - u) o_i + u t_i for target rows t [batch, heads, queries, value dim], each of the
/// first three extents as the call has it or 1. Rows are contiguous, and their scalar is what the
/// call computes in or stores. Not for packed sequences.
template <StorageScalar S>
struct SoftTarget : KeepRows {
  TensorView<const S, 4> target{};
  std::span<const float> shares{};  ///< [query heads]

  /// `rows` is anything of rank 4 in memory, which the caller keeps alive.
  template <In<4> X>
  SoftTarget(const X& rows, std::span<const float> u)
      : target(as_const(to_view(rows))), shares(u) {}

  template <class Row>
  void finish(const Row& row) const {
    const float u = shares[static_cast<std::size_t>(row.head())];
    if (u > 0)
      row.blend(static_cast<double>(u), target.data + offset(0, row.sequence()) +
                                            offset(1, row.head()) + offset(2, row.query()));
  }

  void validate(const char* function, const FinishCall& call) const {
    detail::check_shares(function, shares, call.heads);
    check(!call.packed, function, "target", "rows of targets", "none with packed sequences");
    const std::array<Index, 3> wanted{call.sequences, call.heads, call.queries};
    for (std::size_t d = 0; d < 3; ++d)
      check(target.extent[d] == 1 || target.extent[d] == wanted[d], function, "target",
            target.extent[d], Worded{"1 or the extent of the call, ", wanted[d]});
    check(target.extent[3] == call.value_dim, function, "target", target.extent,
          Worded{"rows of the value dim, ", call.value_dim});
    check_contiguous_rows(function, "target", target);
    check_view(function, "target", target);
  }

  template <class View>
  void check_apart(const char* function, const char* output, const View& out) const {
    check_no_overlap(function, output, out, "shares", detail::shares_view(shares));
    check_no_overlap(function, output, out, "target", target);
  }

 private:
  Index offset(std::size_t d, Index i) const {
    return target.extent[d] == 1 ? 0 : i * target.stride[d];
  }
};

/// o_i <- (1 - u) o_i + u v_j for one key j of each row, such as that of its largest score.
///
/// A row whose key is -1, which `most_attended` gives for scores of NaN, keeps its attention. A
/// call is refused if `keys` is not of the call's shape, or holds what is not from -1 to below the
/// keys of the shortest sequence. Not for packed sequences. The caller keeps both lists alive.
struct SoftOneHot : KeepRows {
  TensorView<const Index, 3> keys{};  ///< [batch, query heads, queries], contiguous
  std::span<const float> shares{};    ///< [query heads]

  SoftOneHot() = default;
  /// \param list [batch x query heads x queries], as `most_attended` returns it; a call refuses one
  ///             of another size
  SoftOneHot(std::span<const Index> list, Index queries, std::span<const float> u) : shares(u) {
    const auto heads = static_cast<Index>(u.size()), size = static_cast<Index>(list.size());
    const bool whole = heads > 0 && queries > 0 && size % heads == 0 && size / heads % queries == 0;
    if (whole)
      keys = {list.data(), {size / heads / queries, heads, queries}, {heads * queries, queries, 1}};
  }

  template <class Row>
  void finish(const Row& row) const {
    const float u = shares[static_cast<std::size_t>(row.head())];
    const Index key = keys(row.sequence(), row.head(), row.query());
    if (u > 0 && key >= 0) row.blend(static_cast<double>(u), row.value(key));
  }

  void validate(const char* function, const FinishCall& call) const {
    detail::check_shares(function, shares, call.heads);
    check(!call.packed, function, "keys", "a key for each row", "none with packed sequences");
    check_extents<3>(function, "keys", keys.extent, {call.sequences, call.heads, call.queries});
    const Index rows = call.sequences * call.heads * call.queries;
    for (Index i = 0; i < rows; ++i)
      check(keys.data[i] >= -1 && keys.data[i] < call.keys, function, "keys", keys.data[i],
            Worded{"from -1 to below the keys, ", call.keys});
  }

  template <class View>
  void check_apart(const char* function, const char* output, const View& out) const {
    check_no_overlap(function, output, out, "shares", detail::shares_view(shares));
    check_no_overlap(function, output, out, "keys", keys);
  }
};

template <In<4> X>
SoftTarget(const X&, std::span<const float>) -> SoftTarget<scalar_of<X>>;

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
