#include "hadal/parallel/eplb.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "hadal/base/random.h"
#include "hadal/error.h"

namespace hadal {
namespace {

using Loads = std::vector<std::vector<double>>;

// Skewed as a gate without balancing is: exp of a normal.
Loads random_loads(int64_t layers, int64_t experts, uint64_t seed) {
  Loads loads(static_cast<size_t>(layers));
  uint64_t next = 0;
  for (std::vector<double>& load : loads)
    for (int64_t e = 0; e < experts; ++e) load.push_back(std::floor(100 * std::exp(normal(seed, 1, next++))));
  return loads;
}

double busiest(const std::vector<double>& load, const ExpertPlacement& placement, int64_t devices) {
  const std::vector<double> all = device_loads(load, placement, devices);
  return *std::max_element(all.begin(), all.end());
}

// Training spec 17.5.
TEST(Eplb, PlacesThePublishedExampleAsDeepSeekDoes) {
  const Loads loads = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86},
                       {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};
  const auto placed = place_experts(loads, {.copies = 16, .groups = 4, .nodes = 2, .devices = 8});
  EXPECT_EQ(placed[0].expert_of_copy,
            (std::vector<int64_t>{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}));
  EXPECT_EQ(placed[1].expert_of_copy,
            (std::vector<int64_t>{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}));
  EXPECT_EQ(placed[0].copies_of_expert[10], (std::vector<int64_t>{8, 10}));
}

TEST(Eplb, EveryCopyStandsOnceAndEveryExpertSomewhere) {
  for (const PlacementShape& shape : {PlacementShape{.copies = 24, .groups = 4, .nodes = 2, .devices = 4},
                                      PlacementShape{.copies = 32, .groups = 8, .nodes = 4, .devices = 32},
                                      PlacementShape{.copies = 16, .groups = 1, .nodes = 1, .devices = 8},
                                      PlacementShape{.copies = 18, .groups = 4, .nodes = 3, .devices = 9}})
    for (const auto& placement : place_experts(random_loads(3, 16, 5), shape)) {
      std::set<int64_t> copies;
      for (size_t e = 0; e < 16; ++e) {
        EXPECT_GE(placement.copies_of_expert[e].size(), 1u);
        for (const int64_t copy : placement.copies_of_expert[e]) {
          EXPECT_TRUE(copies.insert(copy).second);
          EXPECT_EQ(placement.expert_of_copy[static_cast<size_t>(copy)], static_cast<int64_t>(e));
        }
      }
      EXPECT_EQ(static_cast<int64_t>(copies.size()), shape.copies);
      EXPECT_EQ(*copies.rbegin(), shape.copies - 1);
    }
}

TEST(Eplb, AGroupStaysOnOneNodeIfTheNodesDivideTheGroups) {
  const PlacementShape shape{.copies = 24, .groups = 4, .nodes = 2, .devices = 4};
  for (const auto& placement : place_experts(random_loads(4, 16, 6), shape))
    for (size_t first = 0; first < 16; first += 4) {
      std::set<int64_t> nodes;
      for (size_t e = first; e < first + 4; ++e)
        for (const int64_t copy : placement.copies_of_expert[e]) nodes.insert(copy / 12);
      EXPECT_EQ(nodes.size(), 1u);
    }
}

TEST(Eplb, OtherwiseNodesAndGroupsDoNotMatter) {
  const Loads loads = random_loads(2, 16, 7);
  const auto nodes = place_experts(loads, {.copies = 24, .groups = 4, .nodes = 3, .devices = 6});
  const auto one = place_experts(loads, {.copies = 24, .groups = 1, .nodes = 1, .devices = 6});
  for (size_t i = 0; i < loads.size(); ++i) EXPECT_EQ(nodes[i].expert_of_copy, one[i].expert_of_copy);
}

TEST(Eplb, MoreCopiesMakeTheLargestShareSmaller) {
  const Loads loads = random_loads(1, 16, 8);
  double before = INFINITY;
  for (const int64_t copies : {16, 20, 24, 32, 64}) {
    const auto placement = place_experts(loads, {.copies = copies})[0];
    double largest = 0;
    for (size_t e = 0; e < 16; ++e)
      largest = std::max(largest, loads[0][e] / static_cast<double>(placement.copies_of_expert[e].size()));
    EXPECT_LT(largest, before);
    before = largest;
  }
}

TEST(Eplb, TheBusiestDeviceHasLessToDoThanWithExpertsInOrder) {
  for (const std::vector<double>& load : random_loads(5, 64, 9)) {
    ExpertPlacement in_order;
    for (int64_t e = 0; e < 64; ++e)
      in_order.expert_of_copy.push_back(e), in_order.copies_of_expert.push_back({e});
    const auto placed = place_experts({load}, {.copies = 72, .groups = 8, .nodes = 2, .devices = 8})[0];
    EXPECT_LT(busiest(load, placed, 8), busiest(load, in_order, 8));
  }
}

TEST(Eplb, EqualLoadsGoInOrder) {
  const auto placed = place_experts({{0, 0, 0, 0}}, {.copies = 6, .devices = 2})[0];
  EXPECT_EQ(placed.expert_of_copy, (std::vector<int64_t>{0, 1, 2, 3, 0, 0}));
}

TEST(Eplb, WhatDoesNotDivideIsRefusedWithTheNumbers) {
  const Loads loads = random_loads(1, 12, 1);
  struct Case {
    Loads loads;
    PlacementShape shape;
    const char* text;
  };
  for (const Case& c : std::vector<Case>{
           {loads, {.copies = 11}, "got 11 copies, need one at least of each of 12 experts"},
           {loads, {.copies = 16, .groups = 5}, "12 experts are not a multiple of 5 groups"},
           {loads, {.copies = 16, .nodes = 3, .devices = 8}, "8 devices are not a multiple of 3 nodes"},
           {loads, {.copies = 15, .devices = 4}, "15 copies are not a multiple of 4 devices"},
           {loads, {.copies = 16, .groups = 0}, "need 1 at least"},
           {{}, {.copies = 16}, "there are no loads"},
           {{{1, 2}, {1}}, {.copies = 2}, "layer 1 has 1 loads, layer 0 has 2"},
           {{{1, -2}}, {.copies = 2}, "layer 0 has the load -2"},
           {{{1, NAN}}, {.copies = 2}, "layer 0 has the load nan"},
           {{{1, INFINITY}}, {.copies = 2}, "layer 0 has the load inf"}}) {
    try {
      place_experts(c.loads, c.shape);
      ADD_FAILURE() << "no error: " << c.text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(c.text), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace hadal
