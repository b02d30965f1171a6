// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The permuted mix of rows of one field: runs of whole rows, in place where they follow each other
/// and their donors too (FieldBlocked with shifts), gathered into L1 otherwise.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/leap/detail/mix_plan.hpp>
#include <pare/feature/leap/detail/mix_problem.hpp>
#include <pare/kernel/column_statistics.hpp>
#include <pare/kernel/mix_fields.hpp>
#include <pare/kernel/move_rows.hpp>

#include <algorithm>
#include <cstdint>

namespace pare::feature::detail {
PARE_ABI_BEGIN

template <class B, class T>
class MixRows {
 public:
  /// Scalars of a run of rows that is gathered: a few of these fit L1.
  static constexpr Index run_size = 1024;

  /// `streaming`: contiguous outputs are written past the caches.
  MixRows(const B& backend, const MixProblem<T>& problem, bool streaming)
      : backend_(backend),
        p_(problem),
        rows_(problem.x.rows),
        backward_(problem.grad_mixed.data != nullptr),
        streaming_(streaming) {}

  /// Rows [begin, end), cut where the donors or sources of a shift begin anew.
  void run(const MixLines<T>& lines, Index j, Index begin, Index end, MixScratch<T>& s,
           PieceSums* sums) const {
    if (!p_.donors->cyclic()) return run_runs(lines, begin, end, 0, 0, s, sums);
    const Index shift = p_.donors->shift(j);
    if (is_packed(lines) && !p_.live && !(p_.norms && lines.width > 1))
      return run_packed(lines, shift, begin, end, sums);
    for (Index b = begin; b < end;) {
      Index stop = b < rows_ - shift ? std::min(end, rows_ - shift) : end;
      if (p_.live && b < shift) stop = std::min(stop, shift);
      const Index donor = b < rows_ - shift ? b + shift : b + shift - rows_;
      const Index source = b < shift ? b + rows_ - shift : b - shift;
      run_runs(lines, b, stop, donor, source, s, sums);
      b = stop;
    }
  }

  /// The rows that belong to [b, b + count): from `first` on, or by index.
  const T* moved(const T* data, Index stride, Index width,
                 const AlignedBuffer<std::uint32_t>& index, Index b, Index first, Index count,
                 AlignedBuffer<T>& scratch) const {
    if (p_.donors->cyclic()) return rows_at(data, stride, width, first, count, scratch);
    launch(backend_, kernel::GatherRows<T>{data, stride, index.data() + b, 0, count, width,
                                           scratch.data(), width});
    return scratch.data();
  }

 private:
  bool writes() const { return p_.out.data != nullptr; }

  /// Whether rows follow each other in all that is read and written.
  bool is_packed(const MixLines<T>& lines) const {
    return lines.x_stride == lines.width && (!backward_ || lines.grad_stride == lines.width) &&
           (!writes() || lines.out_stride == lines.width);
  }

  /// Rows [begin, end) at once, in place.
  void run_packed(const MixLines<T>& lines, Index shift, Index begin, Index end,
                  PieceSums* sums) const {
    const Index width = lines.width, turn = rows_ - shift;
    kernel::DonorRun<T> donor;
    if (begin < turn)
      donor = {lines.x + (begin + shift) * width, lines.x, (turn - begin) * width};
    else
      donor.first = lines.x + (begin - turn) * width;
    T* out = writes() ? lines.out + begin * width : nullptr;
    const T* x = lines.x + begin * width;
    const Index size = (end - begin) * width;
    if (backward_)
      launch(backend_, kernel::MixBackward<T>{x, donor, lines.grad_mixed + begin * width, nullptr,
                                              out, size, lines.gate, lines.rest, streams(lines),
                                              sums->values, ahead(lines)});
    else
      launch(backend_, kernel::MixForward<T>{x, donor, out, size, lines.gate, lines.rest,
                                             streams(lines), ahead(lines)});
  }

  /// Rows [begin, end) whose donors and sources follow each other from the given rows on, or are
  /// those in the scratch; as many at a time as need be.
  void run_runs(const MixLines<T>& lines, Index begin, Index end, Index donor, Index source,
                MixScratch<T>& s, PieceSums* sums) const {
    const bool in_place = p_.donors->cyclic() && is_packed(lines);
    const Index most =
        in_place && !p_.norms ? end - begin : std::max(Index{1}, run_size / lines.width);
    for (Index b = begin; b < end; b += most) {
      const Index count = std::min(most, end - b);
      const T* x = rows_at(lines.x, lines.x_stride, lines.width, b, count, s.x_rows);
      const T* t = moved(lines.x, lines.x_stride, lines.width, s.donors, b, donor + b - begin,
                         count, s.donor_rows);
      T* out = lines.out_stride == lines.width ? lines.out + b * lines.width : s.out_rows.data();
      if (!writes()) out = nullptr;
      if (backward_)
        run_backward(lines, x, t, out, b, source + b - begin, count, s, sums);
      else
        launch(backend_, kernel::MixForward<T>{x,
                                               {.first = t},
                                               out,
                                               count * lines.width,
                                               lines.gate,
                                               lines.rest,
                                               streams(lines),
                                               ahead(lines)});
      if (writes() && lines.out_stride != lines.width)
        launch(backend_, kernel::GatherRows<T>{out, lines.width, nullptr, 0, count, lines.width,
                                               lines.out + b * lines.out_stride, lines.out_stride});
    }
  }

  bool streams(const MixLines<T>& lines) const {
    return streaming_ && !lines.in_tile && lines.out_stride == lines.width;
  }

  /// From a small contiguous block to the next one; large ones are streams by themselves.
  Index ahead(const MixLines<T>& lines) const {
    const Index size = rows_ * lines.width;
    return lines.x_stride == lines.width && size <= (Index{64} << 10) / Index{sizeof(T)} ? size : 0;
  }

  void run_backward(const MixLines<T>& lines, const T* x, const T* t, T* out, Index b, Index source,
                    Index count, MixScratch<T>& s, PieceSums* sums) const {
    const T* g = rows_at(lines.grad_mixed, lines.grad_stride, lines.width, b, count, s.grad_rows);
    const T* from = nullptr;
    if (p_.live && writes())
      from = moved(lines.grad_mixed, lines.grad_stride, lines.width, s.sources, b, source, count,
                   s.source_rows);
    launch(backend_, kernel::MixBackward<T>{x,
                                            {.first = t},
                                            g,
                                            from,
                                            out,
                                            count * lines.width,
                                            lines.gate,
                                            lines.rest,
                                            streams(lines),
                                            sums->values,
                                            ahead(lines)});
    if (p_.norms && lines.width > 1)
      launch(backend_,
             kernel::AddRowDistances<T>{x, t, count, lines.width, &sums->values[PieceSums::norm]});
  }

  /// Rows [b, b + count), where they are if they follow each other.
  const T* rows_at(const T* data, Index stride, Index width, Index b, Index count,
                   AlignedBuffer<T>& scratch) const {
    if (stride == width) return data + b * width;
    launch(backend_,
           kernel::GatherRows<T>{data, stride, nullptr, b, count, width, scratch.data(), width});
    return scratch.data();
  }

  const B& backend_;
  const MixProblem<T>& p_;
  const Index rows_;
  const bool backward_, streaming_;
};

PARE_ABI_END
}  // namespace pare::feature::detail
