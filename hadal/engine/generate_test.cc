#include <gtest/gtest.h>

#include "hadal/engine/generate.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

ModelConfig small_config() {
  ModelConfig c = small_model();
  c.vocab_size = 300, c.max_positions = 40, c.mtp_depth = 0;
  c.init_std = 0.2;  // sharp enough that neighbouring logits differ by far more than rounding
  return c;
}

class Generate : public testing::Test {
 protected:
  Transformer model{small_config(), random_weights(small_config(), 3)};
  const std::vector<int32_t> prompt{5, 17, 200, 41, 9};

  GenerateRequest greedy(std::vector<int32_t> ids, int64_t max_tokens) {
    return {.prompt = std::move(ids), .max_tokens = max_tokens, .sampling = {.temperature = 0}};
  }
  std::string error_of(const GenerateRequest& request) {
    try {
      Generator(model, std::nullopt).generate(request);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
};

TEST_F(Generate, GreedyTokensEqualThoseOfWholeForwardPasses) {
  NoGrad no_grad;
  const GenerateResult got = Generator(model, std::nullopt).generate(greedy(prompt, 12));
  std::vector<int32_t> ids = prompt;
  for (int i = 0; i < 12; ++i) {
    const Tensor hidden = model.forward(from_ids(ids).unsqueeze(0));
    ids.push_back(static_cast<int32_t>(model.logits(hidden[0][-1]).argmax(-1).item<int64_t>()));
  }
  EXPECT_EQ(got.tokens, std::vector<int32_t>(ids.begin() + 5, ids.end()));
  EXPECT_EQ(got.reason, FinishReason::kMaxTokens);
}

TEST_F(Generate, AContinuedPromptReusesItsRowsAndGivesTheTokensOfAColdStart) {
  Generator warm(model, std::nullopt);
  std::vector<int32_t> longer = prompt;
  for (const int32_t id : warm.generate(greedy(prompt, 6)).tokens) longer.push_back(id);
  longer.push_back(77);
  const GenerateResult reused = warm.generate(greedy(longer, 8));
  const GenerateResult cold = Generator(model, std::nullopt).generate(greedy(longer, 8));
  EXPECT_GE(reused.reused_tokens, 10);
  EXPECT_EQ(cold.reused_tokens, 0);
  EXPECT_EQ(reused.tokens, cold.tokens);
  EXPECT_EQ(warm.generate(greedy({1, 2}, 4)).tokens,
            Generator(model, std::nullopt).generate(greedy({1, 2}, 4)).tokens);
}

TEST_F(Generate, SameSeedGivesTheSameTokensAndAnotherSeedOthers) {
  GenerateRequest request{.prompt = prompt, .max_tokens = 16, .sampling = {.temperature = 1.5, .seed = 1}};
  const auto run = [&] { return Generator(model, std::nullopt).generate(request).tokens; };
  const auto first = run();
  EXPECT_EQ(run(), first);
  request.sampling.seed = 2;
  EXPECT_NE(run(), first);
}

TEST_F(Generate, EndsAtTheContextAndSaysSo) {
  const GenerateResult got = Generator(model, std::nullopt).generate(greedy(prompt, 1000));
  EXPECT_EQ(got.reason, FinishReason::kContextFull);
  EXPECT_EQ(got.tokens.size(), 36u);  // 5 + 35 fill the 40 positions; the last row gives one more token
}

TEST_F(Generate, EndsAtTheEndTokenWhichIsNotPartOfTheResult) {
  ModelConfig config = small_config();
  const auto tokens = Generator(model, std::nullopt).generate(greedy(prompt, 12)).tokens;
  config.eos_ids = {tokens[7]};
  const Transformer ending(config, model.weights());
  const GenerateResult got = Generator(ending, std::nullopt).generate(greedy(prompt, 12));
  const auto first = std::find(tokens.begin(), tokens.end(), tokens[7]);
  EXPECT_EQ(got.reason, FinishReason::kEndToken);
  EXPECT_EQ(got.tokens, std::vector<int32_t>(tokens.begin(), first));
}

TEST_F(Generate, InterruptEndsAfterTheCurrentToken) {
  const std::atomic<bool> interrupt{true};
  const GenerateResult got = Generator(model, std::nullopt).generate(greedy(prompt, 12), {}, &interrupt);
  EXPECT_EQ(got.reason, FinishReason::kCancelled);
  EXPECT_EQ(got.tokens.size(), 1u);
}

TEST_F(Generate, BadRequestsAreNamedWithTheNumbers) {
  EXPECT_NE(error_of(greedy({}, 1)).find("prompt is empty"), std::string::npos);
  EXPECT_NE(error_of(greedy({5, 300}, 1)).find("token id 300 is outside the vocabulary: need 0 to 299"),
            std::string::npos);
  EXPECT_NE(error_of(greedy({-1}, 1)).find("token id -1"), std::string::npos);
  EXPECT_NE(error_of(greedy(std::vector<int32_t>(41, 7), 1)).find("41 tokens, the model's context is 40"),
            std::string::npos);
  EXPECT_NE(error_of(greedy({5}, -2)).find("max_tokens is -2"), std::string::npos);
}

}  // namespace
}  // namespace hadal
