#include "hadal/config/weight_share.h"

#include <gtest/gtest.h>

#include <map>

#include "hadal/error.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

// Of every element of a weight, how many of the ranks hold it.
std::vector<int64_t> holders(const WeightSpec& spec, int64_t expert_ranks, int64_t tensor_ranks) {
  std::vector<int64_t> count(static_cast<size_t>(spec.num_values()));
  for (int64_t e = 0; e < expert_ranks; ++e)
    for (int64_t t = 0; t < tensor_ranks; ++t) {
      const WeightPart part = part_of(spec, {e, expert_ranks, t, tensor_ranks});
      int64_t inner = 1;
      for (size_t d = static_cast<size_t>(part.dim) + 1; d < spec.shape.size(); ++d) inner *= spec.shape[d];
      for (int64_t i = 0; i < spec.num_values(); ++i) {
        const int64_t at = i / inner % spec.shape[static_cast<size_t>(part.dim)];
        count[static_cast<size_t>(i)] += at >= part.begin && at < part.begin + part.size;
      }
    }
  return count;
}

TEST(WeightShare, SharesOfExpertsAndMatricesAreDisjointAndComplete) {
  for (const WeightSpec& spec : weight_specs(small_model())) {
    const bool split = spec.split != WeightSplit::kNone, experts = spec.split == WeightSplit::kExperts;
    const int64_t want = !split ? 8 : experts ? 2 : 4;  // 4 x 2 ranks
    for (const int64_t count : holders(spec, 4, 2)) ASSERT_EQ(count, want) << spec.name;
  }
}

TEST(WeightShare, HeadsStayTogetherAndWhatReadsThemIsCutAlike) {
  const ModelConfig c = small_model();  // 2 heads
  const std::map<std::string, std::vector<int64_t>> halves = {{"layers.1.mla.q_up", {c.mla.key_dim(), 16}},
                                                              {"layers.1.mla.kv_up", {16, 16}},
                                                              {"layers.1.mla.out", {32, 8}},
                                                              {"layers.0.mlp.down", {32, 32}},
                                                              {"layers.1.moe.shared.up", {8, 32}},
                                                              {"layers.1.mla.kv_down", {24, 32}}};
  size_t found = 0;
  for (const WeightSpec& spec : weight_specs(c)) {
    const auto half = halves.find(spec.name);
    if (half == halves.end()) continue;
    EXPECT_EQ(shape_of(spec, {0, 1, 1, 2}), half->second) << spec.name;
    ++found;
  }
  EXPECT_EQ(found, halves.size());
}

TEST(WeightShare, WhatDoesNotDivideIsRefusedByItsName) {
  const auto problem = [](const ModelConfig& c, const WeightShare& share) -> std::string {
    try {
      check_share(c, share);
      return "no error";
    } catch (const Error& e) {
      return e.what();
    }
  };
  ModelConfig c = small_model();
  EXPECT_EQ(problem(c, {0, 8, 0, 2}), "no error");
  EXPECT_NE(problem(c, {0, 3, 0, 1})
                .find("layers.1.moe.experts.gate cannot be shared out evenly: got 3 ranks, need "
                      "a divisor of 8. Change parallel.experts."),
            std::string::npos);
  EXPECT_NE(problem(c, {0, 1, 0, 4})
                .find("the heads cannot be shared out evenly: got 4 ranks, need a divisor of 2"),
            std::string::npos);
  c.dense_dim = 65;
  EXPECT_NE(problem(c, {0, 1, 0, 2}).find("layers.0.mlp.gate cannot"), std::string::npos);
}

}  // namespace
}  // namespace hadal
