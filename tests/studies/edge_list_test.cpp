// SPDX-License-Identifier: Apache-2.0

#include "graph/edge_list.hpp"

#include "graph/labels.hpp"
#include "graph/statistics.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace studies_edge_list_test {
namespace {

using graph::Graph;
using graph::InputError;
using graph::Labels;

/// A file that exists as long as this object, named after the running test.
class TextFile {
 public:
  explicit TextFile(const std::string& text, const std::string& suffix = ".txt")
      : path_(testing::TempDir() + "pare_" +
              testing::UnitTest::GetInstance()->current_test_info()->name() + suffix) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~TextFile() { std::remove(path_.c_str()); }
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Graph read(const std::string& text) {
  const TextFile file(text);
  return graph::read_edge_list(file.path());
}

/// What reading the text is refused with, without the name of the folder.
std::string refusal(const std::string& text) {
  const TextFile file(text);
  try {
    graph::read_edge_list(file.path());
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.substr(0, file.path().size()), file.path());
    return message.substr(file.path().size());
  }
  return "not refused";
}

std::vector<std::string> names(const Graph& graph) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i)
    result.push_back(graph.nodes.name(static_cast<int>(i)));
  return result;
}

TEST(EdgeList, EveryEdgeStandsInBothDirections) {
  const Graph graph = read("0 1\n1 2\n");
  ASSERT_EQ(graph.adjacency.rows(), 3);
  ASSERT_EQ(graph.adjacency.cols(), 3);
  EXPECT_EQ(graph.adjacency.nonZeros(), 4);
  EXPECT_EQ(graph.edges, 2u);
  EXPECT_FALSE(graph.weighted);
  EXPECT_EQ(graph.adjacency.coeff(0, 1), 1.0f);
  EXPECT_EQ(graph.adjacency.coeff(1, 0), 1.0f);
  EXPECT_EQ(graph.adjacency.coeff(1, 2), 1.0f);
  EXPECT_EQ(graph.adjacency.coeff(2, 1), 1.0f);
}

TEST(EdgeList, ColumnsMayBeSplitBySpacesTabsOrAComma) {
  for (const char* text : {"a b 2\nb c 3\n", "a\tb\t2\nb\tc\t3\n", "a,b,2\nb,c,3\n",
                           "  a , b ,\t2  \n b,c 3", "a b 2\r\nb c 3\r\n",
                           "\xef\xbb\xbf"
                           "a b 2\nb c 3"}) {
    const Graph graph = read(text);
    EXPECT_EQ(names(graph), (std::vector<std::string>{"a", "b", "c"})) << text;
    EXPECT_EQ(graph.adjacency.coeff(0, 1), 2.0f) << text;
    EXPECT_EQ(graph.adjacency.coeff(2, 1), 3.0f) << text;
    EXPECT_TRUE(graph.weighted) << text;
  }
}

TEST(EdgeList, CommentsAndBlankLinesAreSkipped) {
  const Graph graph = read("# a header, with commas\n% another one\n\n   \n  # indented\n0 1\n\n");
  EXPECT_EQ(graph.nodes.size(), 2u);
  EXPECT_EQ(graph.edges, 1u);
}

TEST(EdgeList, WholeNumbersAreOrderedByValue) {
  EXPECT_EQ(names(read("10 9\n9 200\n")), (std::vector<std::string>{"9", "10", "200"}));
  EXPECT_EQ(names(read("10 x\nx 9\n")), (std::vector<std::string>{"10", "x", "9"}));
  EXPECT_EQ(names(read("10 -1\n")), (std::vector<std::string>{"10", "-1"}));
}

TEST(EdgeList, OrderOfTheLinesDoesNotMatterForWholeNumbers) {
  const Graph a = read("5 7 0.5\n7 11 2\n5 5 3\n");
  const Graph b = read("5 5 3\n11 7 2\n7 5 0.5\n");
  EXPECT_EQ(names(a), names(b));
  EXPECT_TRUE(a.adjacency.toDense() == b.adjacency.toDense());
  EXPECT_EQ(a.adjacency.coeff(1, 2), 2.0f);
}

TEST(EdgeList, AnEdgeNamedAgainCountsOnce) {
  const Graph graph = read("0 1\n1 0\n0 1\n1 2\n");
  EXPECT_EQ(graph.edges, 2u);
  EXPECT_EQ(graph.repeats, 2u);
  EXPECT_EQ(graph.adjacency.coeff(0, 1), 1.0f);
  EXPECT_EQ(graph.adjacency.coeff(1, 0), 1.0f);
}

TEST(EdgeList, WeightsOfAnEdgeNamedAgainAddUp) {
  const Graph graph = read("0 1 0.5\n1 0 2\n1 2 1e-3\n");
  EXPECT_EQ(graph.edges, 2u);
  EXPECT_EQ(graph.repeats, 1u);
  EXPECT_EQ(graph.adjacency.coeff(0, 1), 2.5f);
  EXPECT_EQ(graph.adjacency.coeff(1, 0), 2.5f);
  EXPECT_EQ(graph.adjacency.coeff(2, 1), 1e-3f);
}

TEST(EdgeList, ASelfLoopStandsOnceOnTheDiagonal) {
  const Graph graph = read("0 0 4\n0 1 1\n0 0 1\n");
  EXPECT_EQ(graph.edges, 2u);
  EXPECT_EQ(graph.self_loops, 1u);
  EXPECT_EQ(graph.repeats, 1u);
  EXPECT_EQ(graph.adjacency.coeff(0, 0), 5.0f);
  EXPECT_EQ(graph.adjacency.nonZeros(), 3);
}

TEST(EdgeList, BadLinesAreNamed) {
  EXPECT_EQ(refusal("0 1\n# c\n2\n"), ":3: one column, wanted: node node [weight]");
  EXPECT_EQ(refusal("0 1\n1 2 1 x\n"), ":2: 4 columns, wanted: node node [weight]");
  EXPECT_EQ(refusal("\n0 1 x\n"), ":2: weight 'x' is not a number");
  EXPECT_EQ(refusal("0 1 1\n1 2 3x\n"), ":2: weight '3x' is not a number");
  EXPECT_EQ(refusal("0,1,1;\n"), ":1: weight '1;' is not a number");
  for (const char* weight : {"nan", "-1", "inf", "-inf", "1e39", "-1e-9"})
    EXPECT_EQ(refusal("0 1 " + std::string(weight) + "\n"),
              ":1: weight '" + std::string(weight) + "' is not a finite number of at least 0");
  EXPECT_EQ(refusal("0,,1\n"), ":1: column 2 is empty");
  EXPECT_EQ(refusal(",0\n"), ":1: column 1 is empty");
  EXPECT_EQ(refusal("0 1,\n"), ":1: column 3 is empty");
}

TEST(EdgeList, WeightsAreGivenForAllEdgesOrForNone) {
  EXPECT_EQ(refusal("0 1\n1 2 1\n"), ":2: a weight, and the edges before have none");
  EXPECT_EQ(refusal("0 1 1\n1 2\n"), ":2: no weight, and the edges before have one");
}

TEST(EdgeList, FilesOfAnotherKindAreRefused) {
  EXPECT_EQ(refusal(""), ": no edge in the file");
  EXPECT_EQ(refusal("# nothing here\n"), ": no edge in the file");
  EXPECT_EQ(refusal("\x1f\x8b\x08"), ":1: the file is compressed with gzip: unpack it first");
  EXPECT_EQ(refusal(std::string("0 1\n\0\1\n", 7)), ":2: a zero byte: this is not a text file");
  EXPECT_EQ(refusal("%%MatrixMarket matrix\n2 2 1\n1 2\n").substr(0, 25),
            ":1: a MatrixMarket file: ");
}

TEST(EdgeList, WhatIsNoFileIsRefused) {
  for (const std::string& path : {testing::TempDir() + "pare_no_such_file", testing::TempDir()}) {
    try {
      graph::read_edge_list(path);
      ADD_FAILURE() << path << " was not refused";
    } catch (const InputError& error) {
      EXPECT_EQ(error.what(), path + ": cannot be opened for reading");
    }
  }
}

TEST(Labels, OneLabelANodeIsKept) {
  const Graph graph = read("a b\nb c\nc d\n");
  const TextFile file("# node label\na red\nb blue\nc red\nc blue\na red\nelsewhere green\n",
                      "_labels.txt");
  const Labels labels = graph::read_labels(file.path(), graph.nodes);
  EXPECT_EQ(labels.of_node, (std::vector<int>{0, 1, Labels::several, Labels::none}));
  EXPECT_EQ(labels.labelled_nodes(), (std::vector<int>{0, 1}));
  EXPECT_EQ(labels.nodes_unknown, 1u);
  EXPECT_EQ(labels.classes.size(), 2u);
  EXPECT_EQ(labels.classes.name(1), "blue");
}

TEST(Labels, BelongToTheNodeOfThatNameAfterSorting) {
  const Graph graph = read("30 10\n10 20\n");
  const TextFile file("30 c\n20 b\n10 a\n", "_labels.txt");
  const Labels labels = graph::read_labels(file.path(), graph.nodes);
  EXPECT_EQ(names(graph), (std::vector<std::string>{"10", "20", "30"}));
  EXPECT_EQ(labels.of_node, (std::vector<int>{2, 1, 0}));
}

TEST(Labels, ANodeWithSeveralLabelsStaysSo) {
  const Graph graph = read("a b\n");
  const TextFile file("a x\na y\na x\nb x\n", "_labels.txt");
  EXPECT_EQ(graph::read_labels(file.path(), graph.nodes).of_node,
            (std::vector<int>{Labels::several, 0}));
}

TEST(Labels, BadFilesAreRefused) {
  const Graph graph = read("a b\n");
  for (const char* text : {"a\n", "a red wine\n", "", "z red\n", "a x\na y\n"}) {
    const TextFile file(text, "_labels.txt");
    EXPECT_THROW(graph::read_labels(file.path(), graph.nodes), InputError) << text;
  }
}

TEST(Statistics, CountsComponentsDegreesAndAgreement) {
  const Graph graph = read("0 1\n1 2\n3 4\n4 4\n");
  EXPECT_EQ(graph::count_components(graph.adjacency), 2u);
  EXPECT_EQ(graph::degrees(graph.adjacency), (std::vector<int>{1, 2, 1, 1, 2}));
  EXPECT_DOUBLE_EQ(graph::homophily(graph.adjacency, {0, 0, 1, Labels::none, 0}), 0.5);
}

}  // namespace
}  // namespace studies_edge_list_test
