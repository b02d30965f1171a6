// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>
#include <pare/dispatch.hpp>

namespace core_workspace_test {
namespace {

using pare::Lease;
using pare::Workspace;

/// Counts those of its kind that live.
struct Counted {
  static inline int alive = 0;
  int value = 0;

  Counted() { ++alive; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --alive; }
};
struct Other : Counted {};

/// Aligned past what operator new gives, as scratch of a user's may be.
struct alignas(128) Wide {
  std::array<char, 128> bytes{};
};

TEST(Workspace, ALeaseFindsWhatTheLastOneLeft) {
  Workspace workspace;
  const std::vector<int>* first = nullptr;
  {
    const auto lease = workspace.lease<std::vector<int>>();
    EXPECT_TRUE(lease->empty());
    lease->assign({1, 2, 3});
    first = &*lease;
  }
  const auto again = workspace.lease<std::vector<int>>();
  EXPECT_EQ(&*again, first);
  EXPECT_EQ(*again, (std::vector<int>{1, 2, 3}));
}

TEST(Workspace, EachTypeHasItsOwn) {
  Workspace workspace;
  {
    workspace.lease<Counted>()->value = 1;
  }
  {
    EXPECT_EQ(workspace.lease<Other>()->value, 0);
  }
  {
    EXPECT_EQ(workspace.lease<std::vector<int>>()->size(), 0u);
  }
  EXPECT_EQ(workspace.lease<Counted>()->value, 1);
  EXPECT_EQ(Counted::alive, 2);
}

TEST(Workspace, LeasesAtOnceHaveObjectsOfTheirOwnAndFindThemAgain) {
  Workspace workspace;
  const auto nested = [&] {
    const auto outer = workspace.lease<Counted>();
    const auto inner = workspace.lease<Counted>();
    EXPECT_NE(&*outer, &*inner);
    return std::pair{&*outer, &*inner};
  };
  const auto first = nested();
  EXPECT_EQ(nested(), first) << "each finds what it left";
  EXPECT_EQ(Counted::alive, 2) << "the second time makes none";
}

TEST(Workspace, AnObjectStaysWhereItIsWhileOthersAreMade) {
  Workspace workspace;
  const auto outer = workspace.lease<Counted>();
  outer->value = 7;
  const Counted* const place = &*outer;
  const Lease<Other> a(&workspace), b(&workspace);
  const Lease<Counted> c(&workspace), d(&workspace);
  EXPECT_EQ(&*outer, place);
  EXPECT_EQ(outer->value, 7);
}

TEST(Workspace, AlignsWhatItKeeps) {
  Workspace workspace;
  const auto lease = workspace.lease<Wide>();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&*lease) % alignof(Wide), 0u);
}

TEST(Workspace, FreesAllWhenItEnds) {
  {
    Workspace workspace;
    const auto nested = [&] {
      const Lease<Counted> a(&workspace), b(&workspace);
      const Lease<Other> c(&workspace);
    };
    nested();
    EXPECT_EQ(Counted::alive, 3);
  }
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Workspace, GivesAllBackWhenSetAnew) {
  Workspace workspace;
  {
    workspace.lease<Counted>()->value = 1;
  }
  workspace = {};
  EXPECT_EQ(Counted::alive, 0);
  EXPECT_EQ(workspace.lease<Counted>()->value, 0);
}

TEST(Workspace, MovesWhatItKeepsAndIsEmptyThen) {
  Workspace from;
  {
    from.lease<Counted>()->value = 1;
  }
  Workspace to(std::move(from));
  EXPECT_EQ(to.lease<Counted>()->value, 1);
  EXPECT_EQ(from.lease<Counted>()->value, 0);  // NOLINT(bugprone-use-after-move): promised
  {
    from.lease<Counted>()->value = 2;
  }
  to = std::move(from);
  EXPECT_EQ(Counted::alive, 1);
  EXPECT_EQ(to.lease<Counted>()->value, 2);
  Workspace& self = to;
  to = std::move(self);
  EXPECT_EQ(to.lease<Counted>()->value, 2);
}

TEST(Workspace, AnExceptionEndsTheLease) {
  Workspace workspace;
  const auto fails = [&] {
    const auto lease = workspace.lease<Counted>();
    lease->value = 5;
    throw std::runtime_error("in the middle");
  };
  EXPECT_THROW(fails(), std::runtime_error);
  EXPECT_EQ(workspace.lease<Counted>()->value, 5);
  EXPECT_EQ(Counted::alive, 1);
}

TEST(Workspace, AnObjectThatCannotBeMadeIsNotKept) {
  struct Fails {
    Fails() { throw std::runtime_error("no"); }
  };
  Workspace workspace;
  EXPECT_THROW(workspace.lease<Fails>(), std::runtime_error);
  EXPECT_THROW(workspace.lease<Fails>(), std::runtime_error);
}

TEST(Workspace, WithoutOneALeaseOwnsItsObject) {
  {
    const Lease<Counted> a(nullptr), b(nullptr);
    EXPECT_NE(&*a, &*b);
    EXPECT_EQ(Counted::alive, 2);
  }
  EXPECT_EQ(Counted::alive, 0);
}

template <class B, class W>
concept CarriesA =
    requires(const B& backend, W&& workspace) { backend.with(std::forward<W>(workspace)); };

TEST(Workspace, OnlyOneThatOutlivesTheCallIsCarried) {
  using Simd = std::remove_cvref_t<decltype(pare::simd)>;
  using Dispatched = std::remove_cvref_t<decltype(pare::dispatched)>;
  static_assert(CarriesA<Simd, Workspace&> && CarriesA<Dispatched, Workspace&>);
  static_assert(!CarriesA<Simd, Workspace> && !CarriesA<Dispatched, Workspace>);
  static_assert(!CarriesA<Simd, const Workspace&>);
  static_assert(!CarriesA<pare::Reference, Workspace&>, "the definition keeps nothing");
  static_assert(!std::is_copy_constructible_v<Workspace> && !std::is_copy_assignable_v<Workspace>);
  static_assert(std::is_nothrow_move_constructible_v<Workspace>);
  static_assert(!std::is_copy_constructible_v<Lease<int>>);
}

template <class B>
void expect_kept(const B& backend, Workspace& workspace) {
  EXPECT_EQ(backend.workspace, nullptr);
  static_assert(std::is_same_v<decltype(backend.with(workspace)), B>, "no code of its own");
  EXPECT_EQ(backend.with(workspace).workspace, &workspace);
  EXPECT_EQ(backend.with(workspace).threads(2).workspace, &workspace);
  EXPECT_EQ(backend.with(workspace).on(pare::SerialExecutor{}).workspace, &workspace);
  EXPECT_EQ(backend.threads(3).with(workspace).executor.concurrency(), 3);
}

TEST(Workspace, ABackendKeepsItOnAnyExecutor) {
  Workspace workspace;
  expect_kept(pare::simd, workspace);
  expect_kept(pare::dispatched, workspace);
}

TEST(Workspace, WhatACallLeasesIsOfItsBackend) {
  using pare::keeping, pare::leased;
  Workspace workspace, own;
  {
    leased<Counted>(pare::simd.with(workspace))->value = 1;
  }
  EXPECT_EQ(leased<Counted>(pare::simd.with(workspace))->value, 1);
  EXPECT_EQ(leased<Counted>(pare::simd)->value, 0);
  EXPECT_EQ(leased<Counted>(pare::reference)->value, 0);
  EXPECT_EQ(keeping(pare::simd, own).workspace, &own);
  EXPECT_EQ(keeping(pare::simd.with(workspace), own).workspace, &workspace);
  EXPECT_EQ(for_workers(pare::simd.with(workspace)).workspace, nullptr);
  static_assert(std::is_same_v<decltype(keeping(pare::reference, own)), pare::Reference>);
}

}  // namespace
}  // namespace core_workspace_test
