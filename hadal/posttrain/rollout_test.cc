#include "hadal/posttrain/rollout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "hadal/engine/open_network.h"
#include "hadal/error.h"
#include "hadal/posttrain/alarms.h"
#include "hadal/posttrain/answer_groups.h"
#include "hadal/posttrain/scorer.h"
#include "tests/support/golden.h"
#include "tests/support/one_by_one.h"

namespace hadal {
namespace {

std::filesystem::path model_folder() {
  return golden_dir("v3-mtp");
}

Engine engine_of(Speculation speculation = Speculation::kOff, int64_t sequences = 16) {
  return Engine(open_network(model_folder()), std::nullopt,
                {.threads = 1,
                 .cache_tokens = 8192,
                 .cache_dtype = "f32",
                 .max_sequences = sequences,
                 .speculation = speculation});
}

std::vector<SampleRequest> requests(int64_t prompt_tokens, double temperature) {
  std::vector<SampleRequest> out;
  for (int32_t p = 0; p < 3; ++p) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < prompt_tokens + p; ++i)
      ids.push_back(static_cast<int32_t>(5 + (i * 7 + p) % 200));
    const auto prompt = std::make_shared<const std::vector<int32_t>>(ids);
    for (int64_t k = 0; k < 4; ++k)
      out.push_back({prompt, {.temperature = temperature, .seed = sample_seed(1, p, k)}, 6 + k, true});
  }
  return out;
}

std::vector<const Sample*> pointers(const std::vector<Sample>& samples) {
  std::vector<const Sample*> out;
  for (const Sample& sample : samples) out.push_back(&sample);
  return out;
}

TEST(Rollout, LogProbabilitiesComputedAgainAreTheSampledOnesBitForBit) {
  Engine engine = engine_of();
  const std::vector<Sample> samples = sample_all(engine, requests(70, 1.0));
  Scorer scorer(open_network(model_folder()), 1);
  const std::vector<ScoredSample> scored = scorer.score(pointers(samples), 1.0);
  for (size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(samples[i].logp, scored[i].logp) << i;
    for (size_t t = 0; t < samples[i].ids.size(); ++t)
      EXPECT_EQ(scored[i].at_temperature[t], static_cast<double>(scored[i].logp[t]));
  }
}

TEST(Rollout, ExpertsComputedAgainAreThoseOfSampling) {
  Engine engine = engine_of();
  const std::vector<Sample> samples = sample_all(engine, requests(9, 1.0));
  Scorer scorer(open_network(model_folder()), 1);
  const std::vector<ScoredSample> scored = scorer.score(pointers(samples), 1.0);
  const auto A = static_cast<size_t>(engine.model().moe.top_k), layers = scored[0].experts.size();
  ASSERT_GT(layers, 0u);
  for (size_t i = 0; i < samples.size(); ++i) {
    const size_t before = samples[i].prompt->size() - 1;  // a token's row is the one before it
    for (size_t t = 0; t < samples[i].ids.size(); ++t)
      for (size_t l = 0; l < layers; ++l)
        for (size_t a = 0; a < A; ++a)
          EXPECT_EQ(samples[i].experts[(t * layers + l) * A + a], scored[i].experts[l][(before + t) * A + a]);
  }
}

TEST(Rollout, WhatTheEngineNotedIsWhatAPassWouldGive) {
  Engine engine = engine_of();
  const std::vector<Sample> samples = sample_all(engine, requests(9, 1.0));
  Scorer scorer(open_network(model_folder()), 1);
  const std::vector<ScoredSample> scored = scorer.score(pointers(samples), 1.0);
  int64_t siblings = 0;
  for (size_t i = 1; i < samples.size(); ++i) {
    if (*samples[i].prompt != *samples[i - 1].prompt) continue;
    const ScoredSample noted = as_sampled(samples[i], scored[i - 1]);
    EXPECT_EQ(noted.logp, scored[i].logp);
    EXPECT_EQ(noted.at_temperature, scored[i].at_temperature);
    EXPECT_EQ(noted.experts, scored[i].experts);
    ++siblings;
  }
  EXPECT_GT(siblings, 2);
}

TEST(Rollout, SamplesDoNotDependOnTheBatchSharedPrefillOrDrafts) {
  Engine wide = engine_of(), narrow = engine_of(Speculation::kOff, 1), drafting = engine_of(Speculation::kOn);
  const auto asked = requests(70, 0.8);
  const std::vector<Sample> a = sample_all(wide, asked), b = sample_all(narrow, asked),
                            c = sample_all(drafting, asked);
  EXPECT_GT(wide.stats().reused_tokens, 0);
  EXPECT_GT(drafting.stats().drafted_tokens, 0);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].ids, b[i].ids);
    EXPECT_EQ(a[i].ids, c[i].ids);
    EXPECT_EQ(a[i].logp, c[i].logp);
  }
}

TEST(Rollout, AtAnotherTemperatureTheProbabilitiesAreOfWhatWasSampledFrom) {
  Engine engine = engine_of();
  std::vector<SampleRequest> asked = requests(8, 0.5);
  const std::vector<Sample> samples = sample_all(engine, asked);
  Scorer scorer(open_network(model_folder()), 1);
  // Of the first token over all 256: the probabilities at the temperature add up to 1.
  double total = 0;
  std::vector<Sample> every;
  for (int32_t id = 0; id < 256; ++id) every.push_back({.prompt = samples[0].prompt, .ids = {id}});
  for (const ScoredSample& s : scorer.score(pointers(every), 0.5)) total += std::exp(s.at_temperature[0]);
  EXPECT_NEAR(total, 1, 1e-9);
}

TEST(Rollout, TheEndTokenIsAmongTheSampledTokens) {
  Engine engine = engine_of();
  // Nothing but the end token can be sampled.
  SamplingParams sampling{.temperature = 1, .seed = 3};
  sampling.logit_bias = {{static_cast<int32_t>(engine.model().eos_ids.at(0)), 1e5f}};
  const std::vector<SampleRequest> asked = {
      {std::make_shared<const std::vector<int32_t>>(std::vector<int32_t>{5, 6}), sampling, 4}};
  const Sample sample = sample_all(engine, asked)[0];
  EXPECT_EQ(sample.ids, (std::vector<int32_t>{static_cast<int32_t>(engine.model().eos_ids[0])}));
  EXPECT_EQ(sample.logp.size(), 1u);
  EXPECT_TRUE(sample.stopped());
}

// Sampling in which the end token is likely, so that turns end.
std::vector<SampleRequest> short_turns(const Engine& engine, int64_t max_tokens) {
  std::vector<SampleRequest> out = requests(70, 1.0);
  for (SampleRequest& request : out) {
    request.sampling.logit_bias = {{static_cast<int32_t>(engine.model().eos_ids.at(0)), 4.f}};
    request.max_tokens = max_tokens;
  }
  return out;
}

// Replies 7, 8, 9 to the first two turns; the third is the answer. Turns come without their end token.
Episode two_replies() {
  return [replies = 0](std::span<const int32_t> turn) mutable -> std::optional<Reply> {
    const auto end = static_cast<int32_t>(open_network(model_folder()).config.eos_ids.at(0));
    EXPECT_EQ(std::count(turn.begin(), turn.end(), end), 0);
    if (++replies > 2) return std::nullopt;
    return Reply{.ids = {7, 8, 9}, .text = "789", .calls = 1, .failed_calls = replies == 2};
  };
}

TEST(Rollout, RepliesStandBetweenTheTurnsAndAreNotTheModels) {
  Engine engine = engine_of();
  const int32_t end = static_cast<int32_t>(engine.model().eos_ids.at(0));
  int64_t whole = 0;
  for (const Sample& sample : sample_all(engine, short_turns(engine, 60), two_replies)) {
    if (!sample.stopped()) continue;
    ++whole;
    EXPECT_EQ(sample.turns, 3);
    EXPECT_EQ(sample.calls, 2);
    EXPECT_EQ(sample.failed_calls, 1);
    EXPECT_EQ(sample.num_written(), std::ssize(sample.ids) - 6);
    ASSERT_EQ(sample.written.size(), sample.ids.size());
    std::vector<int32_t> replies;
    for (size_t t = 0; t < sample.ids.size(); ++t) {
      if (sample.is_written(t)) continue;
      replies.push_back(sample.ids[t]);
      if (sample.is_written(t - 1)) {
        EXPECT_EQ(sample.ids[t - 1], end);
      }
    }
    EXPECT_EQ(replies, (std::vector<int32_t>{7, 8, 9, 7, 8, 9}));
    EXPECT_EQ(sample.ids.back(), end);
    EXPECT_EQ(sample.ids[sample.turn_ids - 1], 9);
  }
  EXPECT_GT(whole, 6);
}

TEST(Rollout, TurnsGoOnFromTheVeryTokensWithTheProbabilitiesOfOnePass) {
  Engine engine = engine_of(), narrow = engine_of(Speculation::kOff, 1),
         drafting = engine_of(Speculation::kOn);
  const auto asked = short_turns(engine, 60);
  const std::vector<Sample> samples = sample_all(engine, asked, two_replies),
                            alone = sample_all(narrow, asked, two_replies),
                            drafted = sample_all(drafting, asked, two_replies);
  Scorer scorer(open_network(model_folder()), 1);
  const std::vector<ScoredSample> scored = scorer.score(pointers(samples), 1.0);
  const auto A = static_cast<size_t>(engine.model().moe.top_k), layers = scored[0].experts.size();
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample& sample = samples[i];
    EXPECT_EQ(sample.ids, alone[i].ids);
    EXPECT_EQ(sample.ids, drafted[i].ids);
    const size_t before = sample.prompt->size() - 1;
    for (size_t t = 0; t < sample.ids.size(); ++t) {
      if (!sample.is_written(t)) continue;
      EXPECT_EQ(sample.logp[t], scored[i].logp[t]) << i << " " << t;
      for (size_t k = 0; k < layers * A; ++k)
        EXPECT_EQ(sample.experts[t * layers * A + k], scored[i].experts[k / A][(before + t) * A + k % A]);
    }
  }
}

TEST(Rollout, AReplyWithoutRoomAndOneThatCutsEndTheAnswerAsCut) {
  Engine engine = engine_of();
  for (const Sample& sample : sample_all(engine, short_turns(engine, 3), two_replies)) {
    EXPECT_FALSE(sample.stopped());
    EXPECT_EQ(sample.turns, 1);
    EXPECT_TRUE(sample.written.empty());
  }
  const NewEpisode cuts = [] {
    return [](std::span<const int32_t>) { return std::optional<Reply>({.calls = 5, .is_cut = true}); };
  };
  for (const Sample& sample : sample_all(engine, short_turns(engine, 60), cuts)) {
    EXPECT_FALSE(sample.stopped());
    EXPECT_EQ(sample.calls, sample.ids.back() == static_cast<int32_t>(engine.model().eos_ids.at(0)) ? 5 : 0);
  }
}

TEST(Rollout, SeedsDifferByDrawAndSample) {
  std::set<uint64_t> seen;
  for (int64_t draw = -3; draw < 20; ++draw)
    for (int64_t i = 0; i < 8; ++i) seen.insert(sample_seed(7, draw, i));
  EXPECT_EQ(seen.size(), 23u * 8u);
}

PromptTasks tasks_of(int64_t n, int64_t max_tokens = 100) {
  const Tokenizer tokenizer = Tokenizer::load("tests/support/byte_tokenizer");
  std::vector<Task> tasks;
  for (int64_t i = 0; i < n; ++i) {
    Task task;
    task.id = std::to_string(i), task.prompt = std::string(static_cast<size_t>(i + 1), 'a');
    task.verifier = "exact", task.answer = "x";
    tasks.push_back(task);
  }
  return PromptTasks(std::move(tasks), tokenizer, std::nullopt, max_tokens);
}

GrpoConfig group_config() {
  GrpoConfig c;
  c.rollout.prompts = 4, c.rollout.group_size = 3, c.rollout.max_tokens = 5;
  c.run.threads = 1, c.run.seed = 11;
  return c;
}

RewardResult reward_of(double value) {
  return {.total = value, .parts = {{"test", 1, {value, value == 1 ? "right" : "wrong", ""}}}};
}

TEST(AnswerGroups, EveryEpochDrawsEveryTaskOnce) {
  const PromptTasks tasks = tasks_of(7);
  std::set<int64_t> first, second;
  for (int64_t d = 0; d < 7; ++d) first.insert(tasks.drawn(d, 1)), second.insert(tasks.drawn(7 + d, 1));
  EXPECT_EQ(first.size(), 7u);
  EXPECT_EQ(second.size(), 7u);
}

TEST(AnswerGroups, TasksThatAreTooLongAreCountedAndLeftOut) {
  EXPECT_EQ(tasks_of(7, 5).too_long(), 3);  // BOS and the letters
  EXPECT_EQ(tasks_of(7, 5).size(), 4);
  EXPECT_THROW(tasks_of(7, 1), Error);
}

TEST(AnswerGroups, GroupsOfEqualRewardsAreReplacedWhileThereAreRounds) {
  const PromptTasks tasks = tasks_of(20);
  // Only tasks of an even number get rewards that differ.
  const ScoreAnswers score = one_by_one([](const Task& task, const Completion& c) {
    return reward_of(std::stoll(task.id) % 2 == 0 && !c.ids.empty() ? c.ids[0] : 0);
  });
  GrpoConfig config = group_config();
  Engine engine = engine_of();
  EXPECT_EQ(collect_groups(engine, tasks, config, score, 0).next_draw, 4);
  config.rollout.dynamic_rounds = 10;
  const GroupBatch batch = collect_groups(engine, tasks, config, score, 0);
  ASSERT_EQ(batch.groups.size(), 4u);
  for (const AnswerGroup& group : batch.groups) EXPECT_EQ(group.task % 2, 0);
  EXPECT_EQ(batch.next_draw, 4 + batch.replaced);
  EXPECT_GT(batch.replaced, 0);
}

TEST(AnswerGroups, WithNothingToLearnTheRoundsEndAndTheGroupsStay) {
  GrpoConfig config = group_config();
  config.rollout.dynamic_rounds = 3;
  Engine engine = engine_of();
  const GroupBatch batch =
      collect_groups(engine, tasks_of(20), config,
                     one_by_one([](const Task&, const Completion&) { return reward_of(0); }), 0);
  EXPECT_EQ(batch.groups.size(), 4u);
  EXPECT_EQ(batch.next_draw, 12);
  for (const ScoredAnswer& answer : batch.groups[0].answers) EXPECT_EQ(answer.advantage, 0);
}

TEST(AnswerGroups, ValuesCountWhatHappened) {
  GrpoConfig config = group_config();
  Engine engine = engine_of();
  int64_t calls = 0;
  const ScoreAnswers score = one_by_one([&](const Task&, const Completion&) {
    return reward_of(calls++ < 3 ? 1 : calls == 5 ? NAN : 0);
  });
  const GroupBatch batch = collect_groups(engine, tasks_of(20), config, score, 0);
  ValuesRecord values;
  add_group_values(batch.groups, values);
  EXPECT_DOUBLE_EQ(*values.get("reward"), 3.0 / 11);
  EXPECT_DOUBLE_EQ(*values.get("accuracy_train"), 0.25);
  EXPECT_EQ(*values.get("groups/all_right"), 1);
  EXPECT_EQ(*values.get("groups/all_wrong"), 3);
  EXPECT_EQ(*values.get("frac_reward_zero_std"), 1);
  EXPECT_EQ(*values.get("unscorable"), 1);
  EXPECT_EQ(*values.get("verdict/test/right"), 3);
  EXPECT_EQ(*values.get("completions/clipped_ratio"), 1);
  EXPECT_EQ(*values.get("completions/mean_length"), 5);
}

TEST(AnswerGroups, OfSeveralTurnsTheLastIsJudgedAndCallsAreCounted) {
  Sample sample{.prompt = std::make_shared<const std::vector<int32_t>>(std::vector<int32_t>{5}),
                .ids = {10, 1, 7, 8, 11, 12, 1},
                .text = "call reply answer",
                .reason = FinishReason::kEndToken,
                .written = {1, 1, 0, 0, 1, 1, 1},
                .turn_ids = 4,
                .turn_text = 11,
                .turns = 2,
                .calls = 2,
                .failed_calls = 1};
  Sample direct{.ids = {10, 1}, .text = "answer", .reason = FinishReason::kEndToken, .turns = 1};
  const Task task;
  std::vector<Completion> seen;
  const ScoreAnswers score = one_by_one([&](const Task&, const Completion& c) {
    seen.push_back(c);
    return reward_of(1);
  });
  std::vector<AnswerGroup> groups(1);
  groups[0].answers = score_all({sample, direct}, {&task, &task}, "<think>", score);
  EXPECT_EQ(seen[0].text, "answer");
  EXPECT_EQ(seen[0].prefill, "");
  EXPECT_EQ(seen[0].ids, (std::vector<int32_t>{11, 12}));
  EXPECT_EQ(seen[0].num_tokens, 5);
  EXPECT_EQ(seen[1].prefill, "<think>");
  ValuesRecord values;
  add_group_values(groups, values);
  EXPECT_EQ(*values.get("tools/call_frequency"), 1);
  EXPECT_EQ(*values.get("tools/failure_frequency"), 0.5);
  EXPECT_EQ(*values.get("completions/mean_turns"), 1.5);
  EXPECT_EQ(*values.get("completions/mean_length"), 3.5);
}

ValuesRecord healthy() {
  return {"rl",
          9,
          {{"frac_reward_zero_std", 0.3},
           {"accuracy_train", 0.5},
           {"completions/clipped_ratio", 0.1},
           {"entropy", 1.0},
           {"grad_norm", 0.5},
           {"rewards/format/mean", 0.5},
           {"answers", 64},
           {"unscorable", 0},
           {"kl", 0.01}}};
}

std::string alarm_with(const std::string& name, double value) {
  ValuesRecord step = healthy();
  for (auto& [key, old] : step.values)
    if (key == name) old = value;
  std::string all;
  for (const std::string& alarm : alarms(step, healthy())) all += alarm + "\n";
  return all;
}

TEST(Alarms, EachNamesWhatIsWrongAndWhatToTry) {
  EXPECT_EQ(alarm_with("kl", 0.01), "");
  EXPECT_NE(alarm_with("frac_reward_zero_std", 0.9).find("equal rewards"), std::string::npos);
  EXPECT_NE(alarm_with("completions/clipped_ratio", 0.6).find("raise rollout.max_tokens"), std::string::npos);
  EXPECT_NE(alarm_with("entropy", 0.2).find("entropy fell from 1 to 0.2"), std::string::npos);
  EXPECT_NE(alarm_with("entropy", 4).find("entropy rose"), std::string::npos);
  EXPECT_NE(alarm_with("grad_norm", 0).find("gradient is zero"), std::string::npos);
  EXPECT_NE(alarm_with("grad_norm", NAN).find("no number"), std::string::npos);
  EXPECT_NE(alarm_with("rewards/format/mean", 0.9).find("lower the format's weight"), std::string::npos);
  EXPECT_NE(alarm_with("rewards/format/mean", 0).find("format is never met"), std::string::npos);
  EXPECT_NE(alarm_with("unscorable", 3).find("3 answers could not be scored"), std::string::npos);
  EXPECT_NE(alarm_with("kl", 0.7).find("0.7 nats a token"), std::string::npos);
}

TEST(GrpoConfig, MistakesAreNamed) {
  const auto error_of = [](auto&& change) -> std::string {
    GrpoConfig c;
    c.policy.start = "m", c.tasks.train = "t";
    try {
      change(c);
      check(c, "run.toml");
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error_of([](GrpoConfig&) {}), "");
  EXPECT_NE(error_of([](GrpoConfig& c) { c.rollout.group_size = 1; }).find("rollout.group_size is 1"),
            std::string::npos);
  EXPECT_NE(error_of([](GrpoConfig& c) { c.loss.kind = "ppo"; }).find("loss.kind is \"ppo\", need grpo"),
            std::string::npos);
  EXPECT_NE(error_of([](GrpoConfig& c) { c.rollout.temperature = 0; }).find("rollout.temperature"),
            std::string::npos);
  // The rules of what it shares with training.
  EXPECT_NE(error_of([](GrpoConfig& c) { c.schedule.kind = "linear"; }).find("schedule.kind is \"linear\""),
            std::string::npos);
  EXPECT_NE(
      error_of([](GrpoConfig& c) { c.optimizer.beta2 = 1; }).find("[config.grpo] run.toml: optimizer.beta2"),
      std::string::npos);
  EXPECT_NE(error_of([](GrpoConfig& c) { apply_profile(c, "dapoo"); }).find("did you mean \"dapo\"?"),
            std::string::npos);
}

TEST(GrpoConfig, RewardsOnTheCommandLineMayBeJson) {
  GrpoConfig c;
  const auto set = [&](const std::string& text) {
    set_field(fields_of(c), "tasks.rewards", text, "the command line", kGrpoDialect);
  };
  set(R"(accuracy,{"name":"judge","path":"j","votes":2},format:0.1)");
  EXPECT_EQ(c.tasks.rewards,
            (std::vector<std::string>{"accuracy", R"({"name":"judge","path":"j","votes":2})", "format:0.1"}));
  EXPECT_THROW(set(R"({"name":"judge",)"), Error);
}

TEST(GrpoConfig, TomlGivesTheSameConfigurationBack) {
  GrpoConfig a, b;
  apply_profile(a, "r1");
  a.tasks.rewards = {"accuracy", "format:0.1"};
  read_toml(grpo_config_toml(a), "a", fields_of(b), kGrpoDialect);
  EXPECT_EQ(grpo_config_toml(a), grpo_config_toml(b));
  EXPECT_TRUE(result_changes(a, b).empty());
  b.rollout.prompts = 3;
  EXPECT_EQ(result_changes(a, b), (std::vector<std::string>{"rollout.prompts: 512 before, 3 now"}));
}

}  // namespace
}  // namespace hadal
