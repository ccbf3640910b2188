#include "hadal/cli/command_line.h"

#include <gtest/gtest.h>

#include "hadal/cli/input.h"
#include "hadal/error.h"
#include "tests/support/error_of.h"

namespace hadal {
namespace {

// Runs the command line and keeps what the handlers were given. `code` is what hadal_main returned.
struct Given {
  std::optional<RunOptions> run;
  std::optional<TrainOptions> train;
  int code = -1;
};

Given given(std::vector<std::string> arguments) {
  Given result;
  Handlers handlers;
  handlers.run = [&](const RunOptions& o) { return result.run = o, 0; };
  handlers.train = [&](const TrainOptions& o) { return result.train = o, 0; };
  arguments.insert(arguments.begin(), "hadal");
  std::vector<char*> argv;
  for (std::string& one : arguments) argv.push_back(one.data());
  argv.push_back(nullptr);
  result.code = hadal_main(static_cast<int>(arguments.size()), argv.data(), handlers);
  return result;
}

TEST(CommandLine, PromptIsTakenToTheLetter) {
  for (const std::string prompt :
       {"[a,b]", "", "--help", "-p", "run", "{x}", "a\nb", "'q'", "\"q\"", "%d", "@file", "ü中"}) {
    const Given result = given({"run", "m", "--prompt", prompt});
    ASSERT_TRUE(result.run) << prompt;
    EXPECT_EQ(result.run->prompt, prompt);
    EXPECT_EQ(given({"run", "m", "-p", prompt}).run->prompt, prompt);
  }
}

TEST(CommandLine, StopMayBeRepeatedAndIsNeverSplit) {
  const Given result = given({"run", "--stop", "[a,b]", "m", "--stop", "c d", "-p", "x"});
  ASSERT_TRUE(result.run);
  EXPECT_EQ(result.run->stop, (std::vector<std::string>{"[a,b]", "c d"}));
  EXPECT_EQ(result.run->model, "m");
  EXPECT_EQ(given({"run", "m", "--stop", ""}).code, 2);
}

TEST(CommandLine, GreedyIsTemperatureZeroAndATemplateIsAChat) {
  EXPECT_EQ(given({"run", "m", "--greedy"}).run->sampling.temperature, 0);
  EXPECT_FALSE(given({"run", "m", "-p", "x"}).run->chat);
  EXPECT_TRUE(given({"run", "m", "--system", "s"}).run->chat);
  EXPECT_EQ(given({"run", "m", "--system", "s", "--ids", "f"}).code, 2);
  EXPECT_EQ(given({"run", "m", "--greedy", "--temperature", "1"}).code, 2);
}

TEST(CommandLine, SamplingFlagsReachTheirFields) {
  const auto o = given({"run", "m", "--temperature", "0.7", "--top-k", "5", "--top-p", "0.9", "--min-p", ".1",
                        "--repetition-penalty", "1.1", "--presence-penalty", "-0.5", "--frequency-penalty=2",
                        "--seed", "18446744073709551615", "--max-tokens", "9"})
                     .run;
  ASSERT_TRUE(o);
  EXPECT_EQ(o->sampling.temperature, 0.7);
  EXPECT_EQ(o->sampling.top_k, 5);
  EXPECT_EQ(o->sampling.top_p, 0.9);
  EXPECT_EQ(o->sampling.min_p, 0.1);
  EXPECT_EQ(o->sampling.repetition_penalty, 1.1);
  EXPECT_EQ(o->sampling.presence_penalty, -0.5);
  EXPECT_EQ(o->sampling.frequency_penalty, 2);
  EXPECT_EQ(o->sampling.seed, UINT64_MAX);
  EXPECT_EQ(o->max_tokens, 9);
}

TEST(CommandLine, ValuesOutOfRangeAreBadUsage) {
  const std::vector<std::vector<std::string>> bad = {{"--temperature", "-1"},
                                                     {"--temperature", "nan"},
                                                     {"--top-p", "1.01"},
                                                     {"--top-k", "1.5"},
                                                     {"--top-k", ""},
                                                     {"--min-p", "2"},
                                                     {"--repetition-penalty", "0"},
                                                     {"--seed", "-1"},
                                                     {"--seed", "18446744073709551616"},
                                                     {"--max-tokens", "0"},
                                                     {"--max-tokens", "9e9"},
                                                     {"--threads", "-2"},
                                                     {"--dtype", "f16"},
                                                     {"--template", "v9"}};
  for (const auto& flag : bad) {
    const Given result = given({"run", "m", flag[0], flag[1]});
    EXPECT_EQ(result.code, 2) << flag[0] << " " << flag[1];
    EXPECT_FALSE(result.run) << flag[0] << " " << flag[1];
  }
}

TEST(CommandLine, TextThatIsNotUtf8IsRefusedBeforeAnyWork) {
  const Given result = given({"run", "m", "-p", "a\xff"});
  EXPECT_EQ(result.code, 1);
  EXPECT_FALSE(result.run);
}

TEST(CommandLine, TrainNeedsAnEnd) {
  const auto model = [](std::vector<std::string> more) {
    std::vector<std::string> all{"train", "--data", "d", "--out", "o"};
    all.insert(all.end(), more.begin(), more.end());
    return train_config_of(given(all).train.value()).model;
  };
  EXPECT_EQ(given({"train", "--data", "d", "--out", "o"}).code, 2);
  EXPECT_EQ(model({"--steps", "3"}).preset, "tiny");
  EXPECT_EQ(model({"--minutes", "0.5", "--config", "c"}).preset, "");
  EXPECT_EQ(model({"--minutes", "0.5", "--config", "c"}).config, "c");
  EXPECT_EQ(
      given({"train", "--data", "d", "--out", "o", "--steps", "3", "--preset", "v3", "--config", "c"}).code,
      2);
}

TEST(CommandLine, TrainFlagsAreKeysAndThoseOfWholeKeysComeLast) {
  const Given result = given({"train", "--data", "d", "--out", "o", "--steps", "3", "--lr", "0.5", "--batch",
                              "2", "--batch.sequences", "4", "--mtp-weight", "0"});
  const TrainConfig config = train_config_of(result.train.value());
  EXPECT_EQ(config.data.text, "d");
  EXPECT_EQ(config.run.out, "o");
  EXPECT_EQ(config.run.steps, 3);
  EXPECT_EQ(config.optimizer.lr, 0.5);
  EXPECT_EQ(config.batch.sequences, 4);
  EXPECT_EQ(config.loss.mtp_weight, 0);
  EXPECT_EQ(config.loss.mtp_weight_late, 0);
  EXPECT_EQ(given({"train", "--data", "d", "--out", "o", "--steps", "3", "--optimizer.lrr", "1"}).code, 2);
}

TEST(CommandLine, ACommandThatTheProgramLacksFailsByName) {
  EXPECT_EQ(given({"logits", "m", "--ids", "i", "--out", "o"}).code, 1);
}

using Rows = std::vector<std::vector<int32_t>>;

TEST(TokenIds, LinesAndJsonGiveTheSameRows) {
  const Rows want = {{1, 2, 3}, {4}};
  for (const char* text : {"1 2 3\n4\n", "1,2, 3\r\n\n 4", "[[1,2,3],[4]]", "{\"ids\": [[1, 2, 3], [4]]}"})
    EXPECT_EQ(parse_token_ids(text, "x"), want) << text;
  EXPECT_EQ(parse_token_ids(" [7]", "x"), (Rows{{7}}));
}

TEST(TokenIds, WhatIsNoIdIsNamedWithItsPlace) {
  const auto problem = [](const char* text) { return error_of([&] { parse_token_ids(text, "ids.txt"); }); };
  EXPECT_NE(problem("1 2\n3 x4").find("ids.txt: line 2: got \"x4\""), std::string::npos);
  EXPECT_NE(problem("1 -2").find("got \"-2\""), std::string::npos);
  EXPECT_NE(problem("2147483648").find("got \"2147483648\""), std::string::npos);
  EXPECT_NE(problem("[1, 2.5]").find("got \"2.5\""), std::string::npos);
  EXPECT_NE(problem("[1, [2]]").find("got \"[2]\""), std::string::npos);
  EXPECT_NE(problem("{\"x\": 1}").find("\"ids\" is no list"), std::string::npos);
  EXPECT_NE(problem(" \n").find("no token ids"), std::string::npos);
}

}  // namespace
}  // namespace hadal
