// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Memory that stays between calls: a backend carries the workspace, and each call finds there the
/// memory that an earlier call left.
///
/// ```cpp
/// pare::Workspace workspace;
/// const auto backend = pare::simd.threads(4).with(workspace);
/// for (const Eigen::MatrixXf& x : batches) project(backend, x, omega, y);  // allocates once
/// ```
///
/// A call leases objects by their type, so one workspace serves calls of every kind. Without a
/// workspace, each call allocates its memory and frees it. The results have the same bits either
/// way.
///
/// A method of your own keeps its memory in the same place:
///
/// ```cpp
/// const auto scratch = leased<std::vector<float>>(backend);  // as last left, or empty
/// scratch->resize(n);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>

#include <concepts>
#include <optional>
#include <utility>

namespace pare {

namespace detail {

/// What a workspace knows of an object that it keeps.
struct KeptObject {
  const void* type = nullptr;
  void (*destroy)(KeptObject*) = nullptr;
  KeptObject* next = nullptr;
  bool leased = false;
};

PARE_ABI_BEGIN

/// Its address stands for a type. Not const: a linker may give equal constants one address.
template <class T>
inline char type_mark = 0;

template <class T>
struct Kept : KeptObject {
  T object{};

  static void destroy_this(KeptObject* kept) { delete static_cast<Kept*>(kept); }
};

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN
template <std::default_initializable T>
class Lease;
PARE_ABI_END

/// Owns the memory that stays between calls. It can be moved, not copied. It grows to what the
/// largest calls need; `workspace = {}` frees all of it.
///
/// One workspace serves one call at a time: calls that run at the same time on different threads
/// need one each. A call inside another one on the same thread may use the same workspace; it
/// leases objects of its own. A workspace must outlive the calls of the backends that carry it.
class Workspace {
 public:
  /// An empty workspace; allocates nothing.
  constexpr Workspace() = default;
  /// A workspace that was moved from is empty, and may be used.
  PARE_ALWAYS_INLINE Workspace(Workspace&& other) noexcept
      : first_(std::exchange(other.first_, nullptr)) {}
  PARE_ALWAYS_INLINE Workspace& operator=(Workspace&& other) noexcept {
    if (this != &other) {
      destroy();
      first_ = std::exchange(other.first_, nullptr);
    }
    return *this;
  }
  /// No object may be leased when a workspace is destroyed or another one is moved to it.
  PARE_ALWAYS_INLINE ~Workspace() { destroy(); }

  /// Lends an object of type T for the life of the lease: one that an earlier lease returned, with
  /// its content, or a new one. Allocates only if every T that it keeps is lent.
  template <std::default_initializable T>
  Lease<T> lease() {
    return Lease<T>(this);
  }

 private:
  template <std::default_initializable T>
  friend class PARE_ABI_NAMESPACE::Lease;

  PARE_ALWAYS_INLINE void destroy() noexcept {
    while (first_ != nullptr) {
      detail::KeptObject* const kept = std::exchange(first_, first_->next);
      kept->destroy(kept);
    }
  }

  detail::KeptObject* first_ = nullptr;
};

PARE_ABI_BEGIN

/// A T to work in. It belongs to a workspace and returns there when the lease ends, also by an
/// exception; without a workspace, it belongs to the lease.
template <std::default_initializable T>
class Lease {
 public:
  /// \param workspace null: none
  explicit Lease(Workspace* workspace) {
    if (workspace == nullptr)
      object_ = &own_.emplace();
    else
      take(*workspace);
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() {
    if (kept_ != nullptr) kept_->leased = false;
  }

  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }

 private:
  void take(Workspace& workspace) {
    // The oldest first, so that calls which lease several find each where they left it.
    detail::KeptObject** place = &workspace.first_;
    while (*place != nullptr && ((*place)->leased || (*place)->type != &detail::type_mark<T>))
      place = &(*place)->next;
    if (*place == nullptr) {
      *place = new detail::Kept<T>;
      (*place)->type = &detail::type_mark<T>;
      (*place)->destroy = &detail::Kept<T>::destroy_this;
    }
    kept_ = *place;
    kept_->leased = true;
    object_ = &static_cast<detail::Kept<T>*>(kept_)->object;
  }

  std::optional<T> own_;
  detail::KeptObject* kept_ = nullptr;
  T* object_ = nullptr;
};

PARE_ABI_END
}  // namespace pare

#include <pare/core/macros_on.hpp>
