#include "hadal/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/checkpoint.h"
#include "hadal/error.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Values of a golden tensor; T is what its element type is in C++.
template <class T>
std::vector<T> values_of(const StoredTensor& tensor) {
  constexpr ElementType kType = std::is_same_v<T, float> ? ElementType::kF32 : ElementType::kI64;
  EXPECT_EQ(tensor.type, kType) << tensor.name;
  std::vector<T> values(static_cast<size_t>(tensor.num_values()));
  if (values.size() * sizeof(T) != tensor.bytes.size())
    throw std::runtime_error(tensor.name + " has another type");
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

SamplingParams params_of(const Json& config) {
  SamplingParams params;
  for (const auto& [key, value] : config.items()) {
    if (key == "temperature")
      params.temperature = value;
    else if (key == "top_k")
      params.top_k = value;
    else if (key == "top_p")
      params.top_p = value;
    else if (key == "min_p")
      params.min_p = value;
    else if (key == "repetition_penalty")
      params.repetition_penalty = value;
    else
      throw std::runtime_error("the golden file uses an unknown setting " + key);
  }
  return params;
}

// max |got - want| <= atol + rtol * max |want|, as the golden README defines it.
void expect_within(const Json& tolerance, const std::vector<float>& got, const float* want,
                   const std::string& what) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference = std::max(difference, std::abs(double{got[i]} - want[i]));
    largest = std::max(largest, std::abs(double{want[i]}));
    EXPECT_EQ(got[i] == 0, want[i] == 0) << what << ": token " << i << " dropped by one, not by the other";
  }
  EXPECT_LE(difference, tolerance.at("atol").get<double>() + tolerance.at("rtol").get<double>() * largest)
      << what;
}

TEST(Sampler, ProbabilitiesEqualTheReferenceForEveryGoldenConfig) {
  const auto json_path = golden_file("sampling", "expected.json");
  const Json expected = parse_json(read_file(json_path), json_path.string());
  const Checkpoint file = open_checkpoint(golden_file("sampling", "expected.safetensors"));
  const auto logits = values_of<float>(file.at("logits"));
  const auto ids = values_of<int64_t>(file.at("input_ids"));
  const size_t B = file.at("logits").shape[0], W = file.at("logits").shape[1],
               T = file.at("input_ids").shape[1];
  ASSERT_GT(expected.at("configs").size(), 0u);
  for (size_t i = 0; i < expected.at("configs").size(); ++i) {
    const SamplingParams params = params_of(expected.at("configs")[i]);
    const auto want = values_of<float>(file.at("probs." + std::to_string(i)));
    for (size_t b = 0; b < B; ++b) {
      const std::vector<int32_t> prompt(ids.begin() + b * T, ids.begin() + (b + 1) * T);
      const auto got = probabilities(params, {.logits_W = {logits.data() + b * W, W}, .prompt = prompt});
      expect_within(expected.at("tolerance"), got, want.data() + b * W,
                    dump_json(expected.at("configs")[i]) + " row " + std::to_string(b));
    }
  }
}

TEST(Sampler, TopKKeepsEveryTokenEqualToTheKth) {
  const Checkpoint file = open_checkpoint(golden_file("sampling", "expected.safetensors"));
  const auto logits = values_of<float>(file.at("tie.logits"));
  int cases = 0;
  for (const StoredTensor* tensor : file.tensors()) {
    if (tensor->name.rfind("tie.top_k", 0) != 0) continue;
    const auto want = values_of<float>(*tensor);
    const auto got = probabilities({.top_k = std::stoll(tensor->name.substr(9))}, {.logits_W = logits});
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6) << tensor->name << " " << i;
    ++cases;
  }
  EXPECT_GT(cases, 0);
}

TEST(Sampler, ZeroTemperatureTakesTheLowestIdOfTheLargest) {
  const std::vector<float> logits = {1, 7, 3, 7, 7};
  for (uint64_t position = 0; position < 20; ++position)
    EXPECT_EQ(sample({.temperature = 0, .top_p = 0.1, .seed = position}, {.logits_W = logits}, 1, position),
              1);
  EXPECT_EQ(probabilities({.temperature = 0}, {.logits_W = logits}), (std::vector<float>{0, 1, 0, 0, 0}));
}

TEST(Sampler, PaddedRowsAreNeverChosenHoweverLargeOrBroken) {
  const std::vector<float> logits = {0, 1, 2, 100, std::nanf("")};
  const auto probs = probabilities({.top_k = 2}, {.logits_W = logits, .num_tokens = 3});
  EXPECT_EQ(probs[3], 0);
  EXPECT_EQ(probs[4], 0);
  EXPECT_NEAR(probs[1] + probs[2], 1, 1e-6);
  EXPECT_EQ(sample({.temperature = 0}, {.logits_W = logits, .num_tokens = 3}, 0, 0), 2);
}

TEST(Sampler, PresenceAndFrequencyCountGeneratedTokensOnly) {
  const std::vector<float> logits = {0, 0, 0, 0};
  const std::vector<int32_t> prompt = {0, 0, 1}, generated = {1, 2, 2};
  const auto p = probabilities({.presence_penalty = 0.5, .frequency_penalty = 0.25},
                               {.logits_W = logits, .prompt = prompt, .generated = generated});
  EXPECT_NEAR(p[0] / p[3], 1, 1e-6);                // in the prompt only
  EXPECT_NEAR(std::log(p[1] / p[3]), -0.75, 1e-6);  // once
  EXPECT_NEAR(std::log(p[2] / p[3]), -1.0, 1e-6);   // twice
}

TEST(Sampler, RepetitionPenaltyHitsATokenOnceWhereverItWasSeen) {
  const std::vector<float> logits = {2, 2, -2, 2};
  const std::vector<int32_t> prompt = {0, 0, 2}, generated = {0, 1};
  const auto p = probabilities({.repetition_penalty = 2},
                               {.logits_W = logits, .prompt = prompt, .generated = generated});
  EXPECT_NEAR(std::log(p[0] / p[3]), -1, 1e-6);
  EXPECT_NEAR(std::log(p[1] / p[3]), -1, 1e-6);
  EXPECT_NEAR(std::log(p[2] / p[3]), -6, 1e-5);
}

TEST(Sampler, TopPOfZeroLeavesTheLikeliest) {
  const std::vector<float> logits = {1, 3, 3, 2};
  EXPECT_EQ(probabilities({.top_p = 0}, {.logits_W = logits}), (std::vector<float>{0, 1, 0, 0}));
}

TEST(Sampler, TopPOfAFlatDistributionKeepsItsShareByLowestId) {
  const std::vector<float> logits(1000, 0.0f);  // more than the first sorted stretch
  const auto p = probabilities({.top_p = 0.4995}, {.logits_W = logits});
  EXPECT_EQ(std::count(p.begin(), p.end(), 0.0f), 500);
  EXPECT_GT(p[499], 0);
  EXPECT_EQ(p[500], 0);
}

TEST(Sampler, TopPReachesIntoALongTail) {
  std::vector<float> logits(1001, std::log(0.001f));  // half of the mass, a thousandth of the largest each
  logits[7] = 0;
  const auto p = probabilities({.top_p = 0.6}, {.logits_W = logits});
  EXPECT_NEAR(static_cast<double>(1001 - std::count(p.begin(), p.end(), 0.0f)), 201,
              1);  // 0.6 = 0.5 + 200 * 0.0005
}

// Against the definition: by rank, keep while the mass of the likelier ones is below top_p.
TEST(Sampler, TopPKeepsWhatASortWouldKeep) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<float> logits(1 + philox(seed, 0, 0)[0] % 700);
    // Rounded, so that ties are common.
    for (size_t i = 0; i < logits.size(); ++i)
      logits[i] = static_cast<float>(std::round(4 * normal(seed, 1, i)) / 2);
    const double top_p = uniform(seed, 2, 0);
    std::vector<int32_t> ranked(logits.size());
    std::iota(ranked.begin(), ranked.end(), 0);
    std::stable_sort(ranked.begin(), ranked.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    const auto all = probabilities({}, {.logits_W = logits});
    const auto got = probabilities({.top_p = top_p}, {.logits_W = logits});
    double before = 0;
    for (size_t rank = 0; rank < ranked.size(); ++rank) {
      const bool certain = std::abs(before - top_p) > 1e-6;  // all[] is rounded to float
      const bool want = rank == 0 || before<top_p, is = got[ranked[rank]]> 0;
      ASSERT_TRUE(is == want || !certain) << "seed " << seed << " rank " << rank;
      before += all[ranked[rank]];
    }
  }
}

TEST(Sampler, DrawDependsOnSeedStreamAndPositionAlone) {
  const std::vector<float> logits(64, 0.0f);
  const auto draw = [&](uint64_t seed, uint64_t stream, uint64_t position) {
    return sample({.seed = seed}, {.logits_W = logits}, stream, position);
  };
  std::vector<int32_t> base, again, seed, stream;
  for (uint64_t i = 0; i < 32; ++i) {
    base.push_back(draw(1, 2, i));
    seed.push_back(draw(2, 2, i));
    stream.push_back(draw(1, 3, i));
  }
  for (uint64_t i = 32; i-- > 0;) again.insert(again.begin(), draw(1, 2, i));  // the other way round
  EXPECT_EQ(base, again);
  EXPECT_NE(base, seed);
  EXPECT_NE(base, stream);
}

// Pearson's chi-square over 11 tokens (10 degrees of freedom): a correct sampler exceeds 46.9 with
// probability 1e-6 over seeds. The seed is fixed, so the test itself does not flicker.
TEST(Sampler, FrequenciesFollowTheProbabilities) {
  constexpr int kDraws = 40'000;
  constexpr double kLimit = 46.863;
  std::vector<float> logits(11);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 0.3f * static_cast<float>((i * 7) % 11);
  for (const SamplingParams& params :
       {SamplingParams{.seed = 11}, SamplingParams{.temperature = 1.7, .seed = 12}}) {
    const auto probs = probabilities(params, {.logits_W = logits});
    std::vector<int> counts(logits.size(), 0);
    for (int i = 0; i < kDraws; ++i) ++counts[sample(params, {.logits_W = logits}, 5, i)];
    double chi_square = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      const double want = kDraws * double{probs[i]};
      chi_square += (counts[i] - want) * (counts[i] - want) / want;
    }
    EXPECT_LT(chi_square, kLimit) << "seed " << params.seed;
  }
}

TEST(Sampler, DroppedTokensAreNeverDrawn) {
  std::vector<float> logits(50);
  std::iota(logits.begin(), logits.end(), 0.0f);
  std::reverse(logits.begin(), logits.end());
  for (float& x : logits) x *= 0.1f;
  logits[0] = -kInf;
  const SamplingParams params{.temperature = 1.3, .top_k = 20, .top_p = 0.8, .min_p = 0.2, .seed = 3};
  const auto probs = probabilities(params, {.logits_W = logits});
  EXPECT_EQ(probs[0], 0);
  EXPECT_NEAR(std::accumulate(probs.begin(), probs.end(), 0.0), 1, 1e-5);
  for (int i = 0; i < 5000; ++i) ASSERT_GT(probs[sample(params, {.logits_W = logits}, 0, i)], 0);
}

std::string problem(const std::function<void()>& action, ErrorCode code) {
  try {
    action();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  return "no error";
}

TEST(Sampler, DamagedLogitsAreAnErrorThatNamesTheToken) {
  const auto with = [](std::vector<float> logits) {
    return problem([&] { sample({}, {.logits_W = logits}, 0, 0); }, ErrorCode::kInternal);
  };
  EXPECT_NE(with({0, std::nanf(""), 1}).find("logit of token 1 is"), std::string::npos);
  EXPECT_NE(with({0, 1, kInf}).find("logit of token 2 is inf"), std::string::npos);
  EXPECT_NE(with({-kInf, -kInf}).find("none can be chosen"), std::string::npos);
}

TEST(Sampler, BadSettingsAreNamedWithTheirRange) {
  const auto with = [](const SamplingParams& params) {
    return problem([&] { check(params); }, ErrorCode::kInvalidArgument);
  };
  EXPECT_NE(with({.temperature = -1}).find("temperature: got -1, need 0"), std::string::npos);
  EXPECT_NE(with({.temperature = std::nan("")}).find("temperature: got nan"), std::string::npos);
  EXPECT_NE(with({.top_k = -3}).find("top_k: got -3"), std::string::npos);
  EXPECT_NE(with({.top_p = 1.5}).find("top_p: got 1.5, need 0 to 1"), std::string::npos);
  EXPECT_NE(with({.min_p = -0.1}).find("min_p: got -0.1"), std::string::npos);
  EXPECT_NE(with({.repetition_penalty = 0}).find("repetition_penalty: got 0"), std::string::npos);
  EXPECT_NE(with({.frequency_penalty = 1e9}).find("frequency_penalty: got 1e+09"), std::string::npos);
}

TEST(Sampler, ForeignTokenIdsAndTokenizersAreRefused) {
  const std::vector<float> logits(4, 0.0f);
  const std::vector<int32_t> bad = {1, 4};
  EXPECT_NE(problem([&] { sample({.presence_penalty = 1}, {.logits_W = logits, .generated = bad}, 0, 0); },
                    ErrorCode::kInvalidArgument)
                .find("token id 4: need 0..3"),
            std::string::npos);
  EXPECT_NE(
      problem([&] { sample({}, {.logits_W = logits, .num_tokens = 5}, 0, 0); }, ErrorCode::kInvalidArgument)
          .find("not this model's"),
      std::string::npos);
}

TEST(Sampler, BiasAndMaskDecideWhoMayBeChosen) {
  const std::vector<float> logits = {1, 2, 3, 0};
  SamplingParams greedy{.temperature = 0};
  EXPECT_EQ(sample(greedy, {.logits_W = logits}, 0, 0), 2);
  greedy.logit_bias = {{0, 5.0f}, {2, -100.0f}};
  EXPECT_EQ(sample(greedy, {.logits_W = logits}, 0, 0), 0);
  const std::vector<uint64_t> mask = {0b1010};
  EXPECT_EQ(sample(greedy, {.logits_W = logits, .allowed = mask}, 0, 0), 1);
  const std::vector<uint64_t> none = {0};
  EXPECT_THROW(sample(greedy, {.logits_W = logits, .allowed = none}, 0, 0), Error);
  greedy.logit_bias = {{4, 1.0f}};
  EXPECT_THROW(sample(greedy, {.logits_W = logits}, 0, 0), Error);
}

TEST(Sampler, PlainGreedyTakesTheFirstOfEqualsAndSkipsPadding) {
  const std::vector<float> logits = {1, 7, 7, 9};
  EXPECT_EQ(sample({.temperature = 0}, {.logits_W = logits, .num_tokens = 3}, 0, 0), 1);
  const std::vector<float> broken = {1, NAN, 7};
  EXPECT_THROW(sample({.temperature = 0}, {.logits_W = broken}, 0, 0), Error);
}

TEST(Sampler, LogprobsAreTheModelsOwnWithTheChosenTokenFirst) {
  const std::vector<float> logits = {0, 1, 2, 1};
  const std::vector<TokenLogprob> got = logprobs(logits, 0, 3);
  ASSERT_EQ(got.size(), 4u);
  const double norm = std::log(1 + 2 * std::exp(1.0) + std::exp(2.0));
  EXPECT_EQ(got[0].id, 0);
  EXPECT_NEAR(got[0].logprob, -norm, 1e-6);
  EXPECT_EQ(got[1].id, 2);
  EXPECT_NEAR(got[1].logprob, 2 - norm, 1e-6);
  EXPECT_EQ(got[2].id, 1);  // of equals the lower id
  EXPECT_EQ(got[3].id, 3);
}

}  // namespace
}  // namespace hadal
