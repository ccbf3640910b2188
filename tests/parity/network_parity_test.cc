// The engine's network against transformers' numbers, for every case folder that has prefill logits; and its
// independence of batch, chunks and threads, bit for bit.
#include <cmath>

#include "hadal/engine/open_network.h"
#include "tests/support/fed_sequences.h"
#include "tests/support/golden_cases.h"

namespace hadal {
namespace {

class NetworkParity : public testing::TestWithParam<std::filesystem::path> {
 protected:
  GoldenArrays golden{GetParam()};
  WorkerPool pool{2};
  Network network{open_network(GetParam()), pool};
  std::vector<Ids> prompts = rows_of(golden.ints("input_ids"), golden.shape("input_ids"));
  int64_t W = network.config().vocab_size;
};

TEST_P(NetworkParity, PrefillGivesTheReferencesNumbers) {
  Sequences sequences(network, static_cast<int64_t>(prompts.size()), 128);
  const std::vector<float> hidden = sequences.feed(all_of(prompts), prompts);
  if (golden.has("hidden.final"))
    expect_close(hidden, golden.floats("hidden.final"), golden.tolerance("hidden"), "hidden.final");
  expect_close(sequences.logits(hidden), golden.floats("logits"), golden.tolerance("logits"), "logits");
  for (int64_t layer = 0; layer < network.config().num_layers; ++layer) {
    const std::string i = std::to_string(layer);
    if (golden.has("router." + i + ".experts")) {
      const std::span<const int32_t> experts = network.chosen_experts(layer);
      EXPECT_EQ(Ids(experts.begin(), experts.end()), golden.ints("router." + i + ".experts"))
          << "layer " << i;
      expect_close(network.expert_weights(layer), golden.floats("router." + i + ".weights"),
                   golden.tolerance("router"), "weights of layer " + i);
    }
    if (!golden.has("cache." + i + ".latent")) continue;
    for (const bool key : {false, true}) {
      std::vector<float> got;
      for (size_t s = 0; s < prompts.size(); ++s) {
        const std::vector<float> part = sequences.cached(s, layer, key);
        got.insert(got.end(), part.begin(), part.end());
      }
      expect_close(got, golden.floats("cache." + i + (key ? ".k_rope" : ".latent")),
                   golden.tolerance("cache"), "cache of layer " + i);
    }
  }
}

TEST_P(NetworkParity, GreedyDecodeGivesTheReferencesTokensAndLogits) {
  if (!golden.has("greedy_tokens")) GTEST_SKIP() << "no decoding in this case";
  const std::vector<Ids> want = rows_of(golden.ints("greedy_tokens"), golden.shape("greedy_tokens"));
  const std::vector<float> want_logits = golden.floats("decode_logits");
  const size_t N = want[0].size();
  for (size_t s = 0; s < prompts.size(); ++s) {
    Sequences one(network, 1, static_cast<int64_t>(prompts[s].size() + N));
    std::vector<float> logits = one.logits(one.feed({0}, {prompts[s]}));
    for (size_t j = 0; j < N; ++j) {
      EXPECT_EQ(argmax(std::span(logits).last(static_cast<size_t>(W))), want[s][j]) << "token " << j;
      logits = one.logits(one.feed({0}, {{want[s][j]}}));
      expect_close(
          logits,
          std::span(want_logits).subspan((s * N + j) * static_cast<size_t>(W), static_cast<size_t>(W)),
          golden.tolerance("logits"), "step " + std::to_string(j));
    }
  }
}

TEST_P(NetworkParity, NoBitDependsOnChunksBatchOrThreadsInAnyFormatOfTheCache) {
  // Over several splits of the keys and an odd number of them, where the model's context is long enough.
  const auto T = static_cast<size_t>(std::min<int64_t>(network.config().max_positions, 601));
  for (Ids& prompt : prompts)
    for (size_t i = 0; prompt.size() < T; ++i) prompt.push_back(prompt[i]);
  WorkerPool single(1);
  Network alone(open_network(GetParam()), single);
  for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kInt8}) {
    Sequences whole(network, static_cast<int64_t>(prompts.size()), static_cast<int64_t>(prompts[0].size()),
                    format);
    const std::vector<float> together = whole.feed(all_of(prompts), prompts);
    for (const size_t chunk : {size_t{1}, size_t{7}, prompts[0].size()}) {
      std::vector<float> got;
      for (const Ids& prompt : prompts) {
        Sequences one(alone, 1, static_cast<int64_t>(prompt.size()), format);
        for (size_t at = 0; at < prompt.size(); at += chunk) {
          const Ids piece(prompt.begin() + static_cast<int64_t>(at),
                          prompt.begin() + static_cast<int64_t>(std::min(prompt.size(), at + chunk)));
          const std::vector<float> hidden = one.feed({0}, {piece});
          got.insert(got.end(), hidden.begin(), hidden.end());
        }
      }
      EXPECT_TRUE(got == together) << "chunk " << chunk << ", " << name(format);
    }
  }
}

TEST_P(NetworkParity, ABf16CacheChangesHiddenStatesByItsRounding) {
  Sequences exact(network, static_cast<int64_t>(prompts.size()), 128),
      rounded(network, static_cast<int64_t>(prompts.size()), 128, CacheFormat::kBF16);
  const std::vector<float> want = exact.feed(all_of(prompts), prompts),
                           got = rounded.feed(all_of(prompts), prompts);
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i)
    error += (got[i] - want[i]) * (got[i] - want[i]), size += want[i] * want[i];
  // Latents, and where it attends on bf16 queries and probabilities, to 2^-9; another expert for a few
  // tokens.
  EXPECT_LE(std::sqrt(error / size), 0.15);
  EXPECT_GT(error, 0);
}

INSTANTIATE_TEST_SUITE_P(Golden, NetworkParity, testing::ValuesIn(golden_cases("input_ids", true)),
                         case_name);

class NetworkMtp : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(NetworkMtp, ModuleGivesTheReferencesNumbers) {
  const GoldenArrays golden(GetParam());
  WorkerPool pool(2);
  Network network(open_network(GetParam()), pool);
  const std::vector<Ids> rows = rows_of(golden.ints("tokens"), golden.shape("tokens"));
  std::vector<float> normed, logits;
  for (const Ids& row : rows) {
    Sequences one(network, 1, static_cast<int64_t>(row.size()));
    const std::vector<float> hidden = one.feed({0}, {Ids(row.begin(), row.end() - 2)});
    const std::vector<float> part = one.mtp(hidden, Ids(row.begin() + 1, row.end() - 1));
    const std::vector<float> part_logits = one.logits(part);
    normed.insert(normed.end(), part.begin(), part.end());
    logits.insert(logits.end(), part_logits.begin(), part_logits.end());
  }
  expect_close(normed, golden.floats("mtp.normed"), golden.tolerance("hidden"), "mtp.normed");
  expect_close(logits, golden.floats("mtp_logits"), golden.tolerance("logits"), "mtp_logits");
}

INSTANTIATE_TEST_SUITE_P(Golden, NetworkMtp, testing::ValuesIn(golden_cases("mtp_logits", true)), case_name);

}  // namespace
}  // namespace hadal
