#include "hadal/engine/speculation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "hadal/base/random.h"
#include "hadal/engine/sampler.h"
#include "hadal/error.h"

namespace hadal {
namespace {

using Tokens = std::vector<int32_t>;
using Floats = std::vector<float>;

// A model whose logits are a function of the last three tokens; the draft sees them with noise.
struct ToyModel {
  int64_t W = 23;
  double spread = 2;
  double noise = 1;

  static uint64_t context(const Tokens& tokens) {
    uint64_t hash = 7;
    for (size_t i = tokens.size() < 3 ? 0 : tokens.size() - 3; i < tokens.size(); ++i)
      hash = hash * 1'000'003 + static_cast<uint64_t>(tokens[i]) + 1;
    return hash;
  }
  Floats logits(const Tokens& tokens) const {
    Floats out(static_cast<size_t>(W));
    for (int64_t i = 0; i < W; ++i)
      out[static_cast<size_t>(i)] =
          static_cast<float>(spread * normal(1, context(tokens), static_cast<uint64_t>(i)));
    return out;
  }
  Floats draft_logits(const Tokens& tokens) const {
    Floats out = logits(tokens);
    for (int64_t i = 0; i < W; ++i)
      out[static_cast<size_t>(i)] +=
          static_cast<float>(noise * normal(2, context(tokens), static_cast<uint64_t>(i)));
    return out;
  }
};

enum class Draft { kLikeliest, kSameDraw, kRandom };

struct Generated {
  Tokens tokens;  // the answer
  int64_t drafted = 0, accepted = 0, steps = 0;
};

// Up to `length` tokens behind the prompt; an end token ends it. K = 0: without speculation.
Generated generate(const ToyModel& model, const SamplingParams& params, int64_t length, int64_t K, Draft kind,
                   int32_t end_token = -1) {
  const Tokens prompt = {3, 1, 4};
  const uint64_t stream = 5;
  Generated run;
  const auto choose_from = [&](const Floats& logits, const Tokens& answer) {
    return sample(params, {logits, prompt, answer}, stream, answer.size());
  };
  const auto whole = [&](const Tokens& answer) {
    Tokens all = prompt;
    all.insert(all.end(), answer.begin(), answer.end());
    return all;
  };
  bool ended = false;
  while (!ended) {
    Tokens drafts, guessed = run.tokens;
    for (int64_t i = 0; i < std::min(K, length - 1 - std::ssize(run.tokens)); ++i) {
      const Floats logits = model.draft_logits(whole(guessed));
      const int32_t likeliest =
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      const uint64_t chance = philox(params.seed, 99, guessed.size())[0];
      drafts.push_back(kind == Draft::kLikeliest ? likeliest
                       : kind == Draft::kSameDraw
                           ? choose_from(logits, guessed)
                           : static_cast<int32_t>(chance % static_cast<uint64_t>(model.W)));
      guessed.push_back(drafts.back());
    }
    const Tokens before = run.tokens;
    const Tokens tokens = verify(drafts, [&](int64_t row) {
      Tokens fed = before;  // the row's logits come from the drafts, whether they stand or not
      fed.insert(fed.end(), drafts.begin(), drafts.begin() + row);
      EXPECT_EQ(fed, run.tokens) << "row " << row << " is asked for behind a draft that fell";
      const int32_t token = choose_from(model.logits(whole(fed)), run.tokens);
      run.tokens.push_back(token);
      ended = token == end_token || std::ssize(run.tokens) == length;
      return ModelToken{token, ended};
    });
    EXPECT_EQ(std::ssize(run.tokens), std::ssize(before) + std::ssize(tokens));
    run.drafted += std::ssize(drafts);
    run.accepted += std::ssize(tokens) - 1;
    ++run.steps;
  }
  return run;
}

TEST(Speculation, GivesTheSameTokensOnAndOffForManySeedsSettingsAndDrafts) {
  const std::vector<SamplingParams> settings = {{.temperature = 0},
                                                {.temperature = 1},
                                                {.temperature = 0.7, .top_p = 0.9},
                                                {.temperature = 1.3,
                                                 .top_k = 8,
                                                 .repetition_penalty = 1.2,
                                                 .presence_penalty = 0.3,
                                                 .frequency_penalty = 0.2}};
  int64_t accepted = 0, drafted = 0;
  for (SamplingParams params : settings)
    for (uint64_t seed = 0; seed < 40; ++seed) {
      params.seed = seed;
      const ToyModel model;
      const int32_t end_token = seed % 4 == 0 ? static_cast<int32_t>(seed % 23) : -1;
      const Generated off = generate(model, params, 60, 0, Draft::kLikeliest, end_token);
      for (const Draft kind : {Draft::kLikeliest, Draft::kSameDraw, Draft::kRandom})
        for (const int64_t K : {1, 3}) {
          const Generated on = generate(model, params, 60, K, kind, end_token);
          ASSERT_EQ(on.tokens, off.tokens) << "seed " << seed << " K " << K;
          accepted += on.accepted, drafted += on.drafted;
          EXPECT_LE(on.steps, off.steps);
        }
    }
  EXPECT_GT(accepted, drafted / 10);  // not equal for want of drafts that stand
  EXPECT_LT(accepted, drafted);
}

TEST(Speculation, PerfectDraftsDrawnByTheSameDrawAlwaysStand) {
  const ToyModel model{.noise = 0};
  const SamplingParams params{.temperature = 1, .seed = 3};
  const Generated same = generate(model, params, 200, 1, Draft::kSameDraw);
  const Generated likeliest = generate(model, params, 200, 1, Draft::kLikeliest);
  EXPECT_EQ(same.accepted, same.drafted);
  EXPECT_LT(likeliest.accepted, likeliest.drafted);
}

TEST(Speculation, AcceptsADraftWithTheModelsProbabilityOfIt) {
  // Likeliest token as draft: stands with probability p(d). Mean of 4,000 Bernoulli draws around theirs.
  const ToyModel model{.noise = 0};
  double expected = 0, variance = 0, accepted = 0;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    const SamplingParams params{.temperature = 1, .seed = seed};
    const Tokens context = {static_cast<int32_t>(seed % 17), static_cast<int32_t>(seed % 5), 2};
    const Floats logits = model.logits(context);
    const Floats p = probabilities(params, {logits, {}, {}});
    const int32_t draft = static_cast<int32_t>(std::max_element(p.begin(), p.end()) - p.begin());
    const double chance = p[static_cast<size_t>(draft)];
    expected += chance, variance += chance * (1 - chance);
    accepted += verify(Tokens{draft}, [&](int64_t row) {
                  return ModelToken{row == 0 ? sample(params, {logits, {}, {}}, 1, 0) : 0};
                }).size() == 2;
  }
  EXPECT_LT(std::abs(accepted - expected), 4.5 * std::sqrt(variance));  // false alarms: 7e-6
}

TEST(Speculation, StopsAtTheLastTokenOfAnAnswer) {
  int64_t calls = 0;
  const Tokens drafts = {4, 5, 6};
  const Tokens tokens = verify(drafts, [&](int64_t row) {
    ++calls;
    return ModelToken{drafts[static_cast<size_t>(row)], row == 1};
  });
  EXPECT_EQ(tokens, (Tokens{4, 5}));
  EXPECT_EQ(calls, 2);
}

// Chi-square of counts against n * p, cells with an expectation below 5 joined; its normal score
// (Wilson and Hilferty).
double chi_square_score(const std::vector<int64_t>& counts, const Floats& p, int64_t n) {
  double statistic = 0, rest_expected = 0, rest_count = 0;
  int64_t cells = 0;
  const auto add = [&](double count, double expected) {
    statistic += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = static_cast<double>(n) * p[i];
    if (expected < 5) {
      rest_expected += expected, rest_count += static_cast<double>(counts[i]);
    } else {
      add(static_cast<double>(counts[i]), expected);
    }
  }
  if (rest_expected >= 1) add(rest_count, rest_expected);
  const double degrees = static_cast<double>(cells - 1), spread = 2 / (9 * degrees);
  return (std::cbrt(statistic / degrees) - (1 - spread)) / std::sqrt(spread);
}

constexpr double kScoreLimit = 4.5;  // one false alarm in 300,000 tests

struct Distributions {
  Floats p, q;
};

Distributions distributions(uint64_t which, const SamplingParams& params, double noise) {
  const ToyModel model{.W = 12, .noise = noise};
  const Tokens context = {static_cast<int32_t>(which), 1, 2};
  const Floats target = model.logits(context), guess = model.draft_logits(context);
  return {probabilities(params, {target, {}, {}}), probabilities(params, {guess, {}, {}})};
}

TEST(Speculation, DraftsDrawnFromAnotherDistributionLeaveTheModelsOne) {
  constexpr int64_t kDraws = 40'000;
  for (uint64_t which = 0; which < 6; ++which) {
    const auto [p, q] =
        distributions(which, {.temperature = 1, .top_k = which % 2 ? 6 : 0}, which < 4 ? 1.0 : 0.1);
    std::vector<int64_t> counts(p.size(), 0);
    double overlap = 0;
    int64_t accepted = 0;
    for (size_t i = 0; i < p.size(); ++i) overlap += std::min(p[i], q[i]);
    for (int64_t i = 0; i < kDraws; ++i) {
      const DrawKey key{
          .seed = which, .stream = static_cast<uint64_t>(i % 7), .position = static_cast<uint64_t>(i)};
      const int32_t draft = draw_token(q, key, DrawPurpose::kDraft);
      const Verdict verdict = verify_drawn(p, q, draft, key);
      ASSERT_TRUE(!verdict.accepted || verdict.token == draft);
      ++counts[static_cast<size_t>(verdict.token)];
      accepted += verdict.accepted;
    }
    EXPECT_LT(chi_square_score(counts, p, kDraws), kScoreLimit) << "distributions " << which;
    // Accepted with probability sum(min(p, q)).
    const double deviation = std::sqrt(kDraws * overlap * (1 - overlap)) + 1;
    EXPECT_LT(std::abs(static_cast<double>(accepted) - kDraws * overlap), 4.5 * deviation);
    EXPECT_GT(chi_square_score(counts, q, kDraws), kScoreLimit) << "the test could not tell p from q";
  }
}

TEST(Speculation, FixedDraftsLeaveTheModelsDistribution) {
  constexpr int64_t kDraws = 40'000;
  for (int32_t draft = 0; draft < 12; draft += 3) {
    const Floats p = distributions(1, {.temperature = 1}, 1).p;
    std::vector<int64_t> counts(p.size(), 0);
    for (int64_t i = 0; i < kDraws; ++i) {
      const Verdict verdict =
          verify_point_mass(p, draft, {.seed = 9, .stream = 2, .position = static_cast<uint64_t>(i)});
      ASSERT_EQ(verdict.accepted, verdict.token == draft);
      ++counts[static_cast<size_t>(verdict.token)];
    }
    EXPECT_LT(chi_square_score(counts, p, kDraws), kScoreLimit) << "draft " << draft;
  }
}

TEST(Speculation, ImpossibleDraftsAlwaysFallAndCertainOnesAlwaysStand) {
  const Floats p = {0, 0.25f, 0.75f};
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_FALSE(verify_point_mass(p, 0, {.position = i}).accepted);
    EXPECT_NE(verify_point_mass(p, 0, {.position = i}).token, 0);
    EXPECT_TRUE(verify_drawn(p, p, 1, {.position = i}).accepted);
    EXPECT_TRUE(verify_point_mass(Floats{0, 1, 0}, 1, {.position = i}).accepted);
  }
  EXPECT_THROW(verify_point_mass(p, 3, {}), Error);
  EXPECT_THROW(verify_drawn(p, Floats{0, 1, 0}, 2, {}), Error);  // q cannot have drawn it
  EXPECT_THROW(draw_token(Floats{0, 0}, {}, DrawPurpose::kDraft), Error);
}

TEST(Speculation, DrawsOfOnePurposeTellNothingOfAnother) {
  EXPECT_EQ(draw({7, 8, 9}, DrawPurpose::kToken), uniform(7, 8, 9));  // sample()'s own counter
  // Correlation of 10,000 pairs: standard deviation 0.01.
  double sum = 0;
  for (uint64_t i = 0; i < 10'000; ++i)
    sum +=
        (draw({1, 2, i}, DrawPurpose::kDraft) - 0.5) * (draw({1, 2, i}, DrawPurpose::kAcceptance) - 0.5) * 12;
  EXPECT_LT(std::abs(sum / 10'000), 0.045);
}

}  // namespace
}  // namespace hadal
