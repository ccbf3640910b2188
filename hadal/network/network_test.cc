#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "hadal/base/number_formats.h"
#include "hadal/base/random.h"
#include "hadal/error.h"
#include "hadal/network/latent_pages.h"
#include "hadal/network/routing.h"
#include "hadal/network/worker_pool.h"

namespace hadal {
namespace {

std::vector<float> noise(uint64_t key, int64_t n, float scale = 1) {
  std::vector<float> out;
  for (int64_t i = 0; i < n; ++i)
    out.push_back(scale *
                  (2.0f * static_cast<float>((key + 1) * static_cast<uint64_t>(i + 1) * 2654435761u % 10007) /
                       10007.0f -
                   1));
  return out;
}

TEST(WorkerPool, WhatAWorkerWroteBeforeABarrierIsSeenAfterIt) {
  for (const int threads : {1, 2, 5}) {
    WorkerPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    std::vector<int> value(static_cast<size_t>(threads), 0);
    std::vector<int> wrong(static_cast<size_t>(threads), 0);
    for (int run = 0; run < 50; ++run)
      pool.run([&](int worker) {
        for (int phase = 0; phase < 20; ++phase) {
          value[static_cast<size_t>(worker)] = run * 100 + phase;
          pool.barrier();
          for (const int seen : value) wrong[static_cast<size_t>(worker)] += seen != run * 100 + phase;
          pool.barrier();
        }
      });
    EXPECT_EQ(std::accumulate(wrong.begin(), wrong.end(), 0), 0) << threads << " threads";
  }
}

TEST(WorkerPool, SharesCoverEveryOutputOnceInWholeUnits) {
  for (const int64_t n : {0, 1, 15, 16, 17, 100, 4096})
    for (const int size : {1, 2, 3, 7}) {
      int64_t next = 0;
      for (int worker = 0; worker < size; ++worker) {
        const WorkRange range = split_work(n, 16, worker, size);
        EXPECT_EQ(range.first, next);
        EXPECT_TRUE(range.first % 16 == 0 || range.first == n);
        next = range.last;
      }
      EXPECT_EQ(next, n);
    }
}

const MlaConfig kMla{.num_heads = 2, .kv_latent = 80, .nope_dim = 8, .rope_dim = 8, .value_dim = 8};

TEST(LatentPages, RowsComeBackWithinTheFormatsPrecision) {
  struct Case {
    CacheFormat format;
    float latent, key;  // largest error for values up to 1
  };
  // bf16: half of 2^-8; int8: half of 1/127; e4m3 of amax 1: half a step of 2^-3 relative below 1.
  for (const Case& c :
       {Case{CacheFormat::kF32, 0, 0}, Case{CacheFormat::kBF16, 0.002f, 0.002f},
        Case{CacheFormat::kInt8, 0.00395f, 0.002f}, Case{CacheFormat::kFp8, 0.0625f, 0.002f}}) {
    LatentPages pages(kMla, 2, 3, c.format);
    const std::vector<float> first = noise(1, 88), second = noise(2, 88);
    pages.write(1, 2, 0, first.data(), first.data() + 80);
    pages.write(1, 2, 63, second.data(), second.data() + 80);
    std::vector<float> scratch(static_cast<size_t>(kPageTokens * pages.row_stride()));
    const float* rows = pages.read(1, 2, kPageTokens, scratch.data());
    for (int64_t i = 0; i < 88; ++i) {
      const float limit = i < 80 ? c.latent : c.key;
      EXPECT_NEAR(rows[i], first[static_cast<size_t>(i)], limit) << name(c.format) << " " << i;
      EXPECT_NEAR(rows[63 * 88 + i], second[static_cast<size_t>(i)], limit) << name(c.format) << " " << i;
    }
  }
}

TEST(LatentPages, ReadingFewerRowsGivesTheSameBits) {
  for (const CacheFormat format :
       {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kInt8, CacheFormat::kFp8}) {
    LatentPages pages(kMla, 1, 1, format);
    for (int64_t t = 0; t < kPageTokens; ++t) {
      const std::vector<float> row = noise(static_cast<uint64_t>(t), 88, static_cast<float>(t));
      pages.write(0, 0, t, row.data(), row.data() + 80);
    }
    std::vector<float> all(static_cast<size_t>(kPageTokens * 88)), few(all.size());
    const float* a = pages.read(0, 0, kPageTokens, all.data());
    const float* b = pages.read(0, 0, 5, few.data());
    EXPECT_TRUE(std::equal(a, a + 5 * 88, b)) << name(format);
  }
}

TEST(LatentPages, SizesAreWhatTheFormatNeeds) {
  const MlaConfig v3{.num_heads = 128, .kv_latent = 512, .nope_dim = 128, .rope_dim = 64, .value_dim = 128};
  EXPECT_EQ(cache_row_bytes(v3, CacheFormat::kBF16), 1152);
  EXPECT_EQ(cache_row_bytes(v3, CacheFormat::kFp8), 656);  // as FlashMLA's: 512 + 4 scales + 64 keys
  EXPECT_EQ(page_bytes(v3, CacheFormat::kBF16, 61), 64 * 70272);
  EXPECT_THROW(cache_format("fp16"), Error);
}

MoeConfig v3_gate() {
  return {.num_experts = 8,
          .top_k = 3,
          .expert_dim = 4,
          .num_groups = 4,
          .num_groups_kept = 2,
          .scoring = Scoring::kSigmoid,
          .choice = Choice::kGroupTopTwo,
          .normalize = true,
          .scale = 2.5};
}

struct Chosen {
  std::vector<int32_t> expert;
  std::vector<float> weight;
};
Chosen route(const MoeConfig& moe, const std::vector<float>& logit, const std::vector<float>& bias) {
  std::vector<float> scratch(2 * logit.size());
  Chosen out{std::vector<int32_t>(static_cast<size_t>(moe.top_k)),
             std::vector<float>(static_cast<size_t>(moe.top_k))};
  route_token(moe, logit.data(), bias.empty() ? nullptr : bias.data(), scratch.data(),
              scratch.data() + logit.size(), out.expert.data(), out.weight.data());
  return out;
}

TEST(RouteToken, BiasMovesTheChoiceAndNotTheWeight) {
  const std::vector<float> logit = {2, 1, 0.5f, 0, 0, 0, 0, -1};
  const Chosen plain = route(v3_gate(), logit, std::vector<float>(8, 0.0f));
  EXPECT_EQ(plain.expert, (std::vector<int32_t>{0, 1, 2}));
  std::vector<float> bias(8, 0.0f);
  bias[7] = 5;
  const Chosen moved = route(v3_gate(), logit, bias);
  EXPECT_EQ(moved.expert, (std::vector<int32_t>{0, 1, 7}));
  const auto s = [](float z) { return 1 / (1 + std::exp(-z)); };
  EXPECT_NEAR(moved.weight[2], 2.5f * s(-1) / (s(2) + s(1) + s(-1)), 1e-6);
}

TEST(RouteToken, AGroupScoresItsTwoBestAndClosedGroupsStayClosedBelowZero) {
  // Group 0 has the best expert, groups 1 and 2 the better pairs; all biased scores are negative.
  const std::vector<float> logit = {3, -9, 2, 2, 1.9f, 1.9f, -9, -9};
  const Chosen chosen = route(v3_gate(), logit, std::vector<float>(8, -2.0f));
  EXPECT_EQ(chosen.expert, (std::vector<int32_t>{2, 3, 4}));
}

TEST(RouteToken, TiesGoToTheLowerIndexAndV2NeitherSortsNorScalesTwice) {
  MoeConfig moe = v3_gate();
  moe.num_groups = 1, moe.choice = Choice::kGreedy, moe.scoring = Scoring::kSoftmax;
  const Chosen chosen = route(moe, std::vector<float>(8, 1.0f), {});
  EXPECT_EQ(chosen.expert, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_NEAR(chosen.weight[0], 1.0f / 3, 1e-6);  // normalised, so not scaled (spec 7.1)
  moe.normalize = false;
  EXPECT_NEAR(route(moe, std::vector<float>(8, 1.0f), {}).weight[0], 2.5f / 8, 1e-6);
}

}  // namespace
}  // namespace hadal
