#include "hadal/posttrain/model_rewards.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "hadal/checkpoint/load.h"
#include "hadal/config/weight_specs.h"
#include "hadal/posttrain/reward_step.h"
#include "hadal/tokenizer/bpe_train.h"
#include "tests/support/small_model.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

// A reward model and a language model with random weights and a chat format.
struct Folders {
  TemporaryFolder folder;
  Folders() {
    ModelConfig language = small_model();
    language.vocab_size = 272, language.max_positions = 128, language.eos_ids = {1};
    language.stored_dtype = DType::kF32;
    ModelConfig reward = reward_config(language);
    const std::string_view text[] = {"0123456789 +="};
    const TrainedTokenizer tokenizer = train_tokenizer({.kind = TokenizerKind::kChar}, text);
    save_model(folder.path() / "rm", reward, reward_weights(language, random_weights(language, 3), 3));
    save_model(folder.path() / "lm", language, random_weights(language, 4));
    for (const char* name : {"rm", "lm"}) save_tokenizer(tokenizer, folder.path() / name);
  }
  std::unique_ptr<Reward> reward(const char* kind, const char* name, Json options = Json::object()) const {
    options["path"] = (folder.path() / name).string();
    return reward_kinds(1).at(kind)(options);
  }
};

// Answers to two tasks, some of them equal, one too long for the model.
struct Asked {
  std::vector<Task> tasks;
  std::vector<const Task*> of;
  std::vector<Completion> answers;
  Asked() {
    for (const char* prompt : {"1+1=", "2+2="})
      tasks.push_back(parse_task(Json{{"prompt", prompt}, {"verifier", "rm"}}.dump(), "test"));
    for (const char* text : {"2", "4", "2", "22", "2", "4 = 4"})
      for (const Task& task : tasks) of.push_back(&task), answers.push_back({.text = text});
    of.push_back(&tasks[0]), answers.emplace_back().text.assign(200, '1');
  }
};

void expect_as_each_alone(const Reward& reward, const Asked& asked) {
  const std::vector<RewardScore> together = reward.score_all(asked.of, asked.answers, 1);
  ASSERT_EQ(together.size(), asked.answers.size());
  for (size_t i = 0; i < together.size(); ++i) {
    const RewardScore alone = reward.score(*asked.of[i], asked.answers[i]);
    EXPECT_EQ(together[i].verdict, alone.verdict) << i;
    EXPECT_EQ(together[i].detail, alone.detail) << i;
    EXPECT_EQ(std::isnan(together[i].value), std::isnan(alone.value)) << i;
    if (!std::isnan(alone.value)) {
      EXPECT_EQ(together[i].value, alone.value) << i;
    }
  }
}

TEST(ModelRewards, ManyAnswersGetTheScoresThatEachGetsAlone) {
  const Folders folders;
  const Asked asked;
  const auto reward = folders.reward("rm", "rm");
  expect_as_each_alone(*reward, asked);
  const std::vector<RewardScore> scores = reward->score_all(asked.of, asked.answers, 1);
  EXPECT_NE(scores[0].value, scores[1].value);  // the tasks differ
  EXPECT_NE(scores[0].value, scores[2].value);  // the answers differ
  EXPECT_EQ(scores[0].value, scores[4].value);
  EXPECT_EQ(scores.back().verdict, "too_long");
  EXPECT_TRUE(std::isnan(scores.back().value));
}

TEST(ModelRewards, ManyAnswersAreJudgedAsEachAlone) {
  const Folders folders;
  const Asked asked;
  const auto judge = folders.reward("judge", "lm", {{"votes", 2}, {"max_tokens", 8}});
  expect_as_each_alone(*judge, asked);
  const std::vector<RewardScore> scores = judge->score_all(asked.of, asked.answers, 1);
  EXPECT_NE(scores[0].detail, scores[1].detail);
  EXPECT_NE(scores[0].detail, scores[2].detail);
  EXPECT_EQ(scores[0].verdict, "not_valid");  // random weights judge nothing
  EXPECT_EQ(scores.back().verdict, "too_long");
}

}  // namespace
}  // namespace hadal
