#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hadal/base/number_formats.h"
#include "hadal/base/random.h"
#include "hadal/error.h"
#include "hadal/network/indexer.h"
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

// V3.2's sizes: 128 values more a token.
TEST(LatentPages, SizesCountTheIndexKeys) {
  MlaConfig v32{.num_heads = 128, .kv_latent = 512, .nope_dim = 128, .rope_dim = 64, .value_dim = 128};
  v32.indexer = IndexerConfig{.num_heads = 64, .head_dim = 128, .top_k = 2048};
  EXPECT_EQ(cache_row_bytes(v32, CacheFormat::kBF16), 1152 + 256);
  EXPECT_EQ(cache_row_bytes(v32, CacheFormat::kFp8), 656 + 256);
  EXPECT_EQ(cache_row_bytes(v32, CacheFormat::kF32), 2304 + 512);
  EXPECT_EQ(page_bytes(v32, CacheFormat::kBF16, 61), 64 * 61 * 1408);
}

MlaConfig with_indexer() {
  MlaConfig mla = kMla;
  mla.indexer = IndexerConfig{.num_heads = 3, .head_dim = 10, .top_k = 5};
  return mla;
}

std::vector<float> index_keys(const LatentPages& pages, int32_t page, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count * 10));
  infer_kernels().decode_rows(pages.index_keys(0, page, count), 0, count, out.data(), 10);
  return out;
}

TEST(LatentPages, IndexKeysAndLatentsLieBesideEachOther) {
  for (const CacheFormat format :
       {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kInt8, CacheFormat::kFp8}) {
    LatentPages pages(with_indexer(), 1, 3, format), plain(kMla, 1, 3, format);
    for (const int32_t page : {2, 0, 1})
      for (int64_t t = 0; t < kPageTokens; ++t) {
        const std::vector<float> row = noise(static_cast<uint64_t>(page * 64 + t), 98);
        pages.write_index_key(0, page, t, row.data() + 88);
        pages.write(0, page, t, row.data(), row.data() + 80);
        plain.write(0, page, t, row.data(), row.data() + 80);
      }
    std::vector<float> got(64 * 88), want(64 * 88);
    for (const int32_t page : {0, 1, 2}) {
      const float* a = pages.read(0, page, kPageTokens, got.data());
      const float* b = plain.read(0, page, kPageTokens, want.data());
      EXPECT_TRUE(std::equal(a, a + 64 * 88, b)) << name(format) << " page " << page;
      const std::vector<float> keys = index_keys(pages, page, kPageTokens);
      for (int64_t t = 0; t < kPageTokens; ++t)
        for (int64_t i = 0; i < 10; ++i)
          EXPECT_NEAR(keys[static_cast<size_t>(t * 10 + i)],
                      noise(static_cast<uint64_t>(page * 64 + t), 98)[static_cast<size_t>(88 + i)],
                      format == CacheFormat::kF32 ? 0 : 0.002)
              << name(format);
    }
  }
}

TEST(LatentPages, GatheredRowsAreTheRowsThatReadGives) {
  for (const CacheFormat format :
       {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kInt8, CacheFormat::kFp8}) {
    LatentPages pages(with_indexer(), 2, 3, format);
    for (const int32_t page : {0, 1, 2})
      for (int64_t t = 0; t < kPageTokens; ++t) {
        const std::vector<float> row = noise(static_cast<uint64_t>(page * 64 + t), 88);
        pages.write(1, page, t, row.data(), row.data() + 80);
      }
    const std::vector<int32_t> order = {2, 0, 1}, positions = {0, 63, 64, 100, 191};
    std::vector<float> got(5 * 88), all(64 * 88), scratch(64 * 88);
    std::vector<uint16_t> got_bf16(5 * 88), all_bf16(64 * 88);
    pages.gather(1, order, positions, got.data());
    pages.gather_bf16(1, order, positions, scratch.data(), got_bf16.data());
    for (size_t i = 0; i < positions.size(); ++i) {
      const int32_t page = order[static_cast<size_t>(positions[i] / 64)];
      const int64_t at = positions[i] % 64 * 88, to = static_cast<int64_t>(i) * 88;
      const float* want = pages.read(1, page, kPageTokens, all.data()) + at;
      EXPECT_TRUE(std::equal(want, want + 88, got.begin() + to)) << name(format) << positions[i];
      const uint16_t* bf16 = pages.read_bf16(1, page, kPageTokens, scratch.data(), all_bf16.data()) + at;
      EXPECT_TRUE(std::equal(bf16, bf16 + 88, got_bf16.begin() + to)) << name(format) << positions[i];
    }
  }
}

TEST(LatentPages, AMovedIndexKeyIsTurnedInHalvesAndTheRestOfItStays) {
  LatentPages pages(with_indexer(), 1, 2, CacheFormat::kF32);
  const std::vector<float> row = noise(3, 98), cos = {0.6f, 0.0f, 1.0f, 0.8f},
                           sin = {0.8f, 1.0f, 0.0f, -0.6f};
  pages.write(0, 0, 0, row.data(), row.data() + 80);
  pages.write_index_key(0, 0, 0, row.data() + 88);
  pages.move(0, {0, 1}, 1, cos.data(), sin.data());
  const std::vector<float> key = index_keys(pages, 1, 1);
  const float* before = row.data() + 88;
  for (size_t i = 0; i < 4; ++i) {  // R is 8
    EXPECT_FLOAT_EQ(key[i], before[i] * cos[i] - before[i + 4] * sin[i]);
    EXPECT_FLOAT_EQ(key[i + 4], before[i] * sin[i] + before[i + 4] * cos[i]);
  }
  EXPECT_EQ(key[8], before[8]);
  EXPECT_EQ(key[9], before[9]);
}

TEST(ChooseKeys, TheLargestInAscendingOrderAndOfEqualOnesTheFirst) {
  std::vector<float> order(200);
  std::vector<int32_t> chosen(200), want;
  for (uint64_t key = 0; key < 50; ++key) {
    const int64_t n = 2 + static_cast<int64_t>(key * 4 % 190),
                  k = 1 + static_cast<int64_t>(key * 7) % (n - 1);
    std::vector<float> score = noise(key, n);
    for (float& x : score) x = std::round(x * 6) / 6;  // many are equal
    want.resize(static_cast<size_t>(n));
    std::iota(want.begin(), want.end(), 0);
    std::stable_sort(want.begin(), want.end(), [&](int32_t a, int32_t b) {
      return score[static_cast<size_t>(a)] > score[static_cast<size_t>(b)];
    });
    want.resize(static_cast<size_t>(k));
    std::sort(want.begin(), want.end());
    choose_keys(score.data(), n, k, order.data(), chosen.data());
    EXPECT_TRUE(std::equal(want.begin(), want.end(), chosen.begin())) << n << " " << k;
  }
}

TEST(ChooseKeys, NanIsChosenLast) {
  const std::vector<float> score = {NAN, -3, NAN, 1, NAN};
  std::vector<float> order(5);
  std::vector<int32_t> chosen(3);
  choose_keys(score.data(), 5, 3, order.data(), chosen.data());
  EXPECT_EQ(chosen, (std::vector<int32_t>{0, 1, 3}));
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
