#include <gtest/gtest.h>

#include <map>
#include <set>

#include "hadal/engine.h"
#include "hadal/error.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

std::vector<int32_t> prompt(uint64_t seed, int64_t n, int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    ids.push_back(static_cast<int32_t>((seed >> 33) % static_cast<uint64_t>(vocab_size)));
  }
  return ids;
}

std::vector<int32_t> ids_of(const std::vector<NewToken>& tokens) {
  std::vector<int32_t> ids;
  for (const NewToken& token : tokens) ids.push_back(token.id);
  return ids;
}

// Requests of many kinds: greedy and sampled, short and over several pages, some with a common beginning.
std::vector<Request> requests(int64_t vocab_size, int64_t context) {
  std::vector<Request> out;
  for (uint64_t i = 0; i < 12; ++i) {
    Request request;
    request.prompt = prompt(i % 3, i % 4 == 0 ? 80 : 5 + static_cast<int64_t>(i), vocab_size);
    if (static_cast<int64_t>(request.prompt.size()) > context / 2)
      request.prompt.resize(static_cast<size_t>(context / 2));
    request.max_tokens = 12 + static_cast<int64_t>(i);
    request.ignore_end = true;
    request.sampling.temperature = i % 2 ? 0.9 : 0.0;
    request.sampling.seed = i;
    if (i % 3 == 1) request.sampling.repetition_penalty = 1.3;
    out.push_back(request);
  }
  return out;
}

std::map<RequestId, std::vector<int32_t>> run_together(Engine& engine, const std::vector<Request>& all) {
  std::map<RequestId, std::vector<int32_t>> tokens;
  for (const Request& request : all) engine.submit(request);
  while (!engine.idle())
    for (const Delta& delta : engine.step())
      for (const NewToken& token : delta.tokens) tokens[delta.request].push_back(token.id);
  return tokens;
}

const char* const kMtpCase = "v3-mtp";

TEST(Engine, AnswersDoNotDependOnBatchChunksThreadsPrefixesOrSpeculation) {
  const auto folder = golden_dir(kMtpCase);
  EngineConfig alone{
      .threads = 1, .cache_tokens = 4096, .reuse_prefixes = false, .speculation = Speculation::kOff};
  std::map<RequestId, std::vector<int32_t>> want;
  Engine reference = Engine::open(folder, alone);
  const std::vector<Request> all = requests(reference.model().vocab_size, reference.context());
  RequestId id = 1;
  for (const Request& request : all) want[id++] = ids_of(reference.generate(request).tokens);
  std::set<std::vector<int32_t>> different;
  for (const auto& [request, tokens] : want) {
    EXPECT_EQ(static_cast<int64_t>(tokens.size()), all[request - 1].max_tokens);
    different.insert(tokens);
  }
  EXPECT_GE(different.size(), 10u);

  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn, Speculation::kAuto})
    for (const bool reuse : {false, true})
      for (const int64_t batch : {5, 24, 512}) {
        EngineConfig config{
            .threads = 2, .cache_tokens = 2048, .max_sequences = 4, .max_batch_tokens = batch};
        config.reuse_prefixes = reuse, config.speculation = speculation;
        Engine engine = Engine::open(folder, config);
        EXPECT_EQ(run_together(engine, all), want)
            << "speculation " << static_cast<int>(speculation) << " reuse " << reuse << " batch " << batch;
        EXPECT_EQ(engine.stats().pages_used, 0);
        // Again, with what the first round left in the cache.
        std::map<RequestId, std::vector<int32_t>> again;
        for (const auto& [request, tokens] : run_together(engine, all)) again[request - all.size()] = tokens;
        EXPECT_EQ(again, want) << "second round";
        if (reuse) {
          EXPECT_GT(engine.stats().reused_tokens, 0);
        }
        if (speculation == Speculation::kOn) {
          EXPECT_GT(engine.stats().drafted_tokens, 0);
        }
      }
}

TEST(Engine, ACancelledRequestFreesItsPagesBeforeTheNextStep) {
  Engine engine = Engine::open(golden_dir(kMtpCase), {.threads = 1, .cache_tokens = 1024});
  const RequestId first = engine.submit({.prompt = prompt(1, 20, 50), .max_tokens = 30, .ignore_end = true});
  const RequestId second = engine.submit({.prompt = prompt(2, 20, 50), .max_tokens = 3, .ignore_end = true});
  engine.step();
  const int64_t used = engine.stats().pages_used;
  EXPECT_GT(used, 0);
  EXPECT_TRUE(engine.cancel(first));
  EXPECT_FALSE(engine.cancel(first));
  EXPECT_LT(engine.stats().pages_used, used);
  while (!engine.idle())
    for (const Delta& delta : engine.step()) EXPECT_EQ(delta.request, second);
  EXPECT_EQ(engine.stats().pages_used, 0);
}

TEST(Engine, RefusesWhatCannotBeAnswered) {
  Engine engine = Engine::open(golden_dir(kMtpCase), {.threads = 1, .cache_tokens = 64});
  const auto error = [&](Request request) { return error_of([&] { engine.submit(std::move(request)); }); };
  EXPECT_NE(error({}).find("prompt is empty"), std::string::npos);
  EXPECT_NE(error({.prompt = {1}, .max_tokens = 0}).find("max_tokens"), std::string::npos);
  EXPECT_NE(error({.prompt = {1, 1 << 20}}).find("outside the vocabulary"), std::string::npos);
  EXPECT_NE(error({.prompt = {1}, .stops = {"x"}}).find("tokenizer"), std::string::npos);
  EXPECT_NE(error({.prompt = {1}, .sampling = {.temperature = -1}}).find("temperature"), std::string::npos);
  EXPECT_TRUE(engine.idle());
  EXPECT_THROW(Engine::open(golden_dir(kMtpCase), {.cache_dtype = "fp4"}), Error);
}

TEST(Engine, StatisticsAreTheSumsOfTheRequestsUsage) {
  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn}) {
    EngineConfig config{.threads = 1, .cache_tokens = 2048, .max_sequences = 4, .max_batch_tokens = 24};
    config.speculation = speculation;
    Engine engine = Engine::open(golden_dir(kMtpCase), config);
    std::vector<Request> all = requests(engine.model().vocab_size, engine.context());
    for (Request& request : all) request.ignore_end = false, request.max_tokens += 30;
    std::map<RequestId, Usage> usage;
    int64_t tokens = 0;
    for (int round = 0; round < 2; ++round) {
      for (const Request& request : all)
        usage[engine.submit(request)].prompt_tokens = std::ssize(request.prompt);
      while (!engine.idle())
        for (const Delta& delta : engine.step()) {
          usage[delta.request] = delta.usage;
          tokens += std::ssize(delta.tokens);
          if (delta.request % 5 == 0 && delta.usage.generated_tokens > 4) engine.cancel(delta.request);
        }
    }
    Usage sum;
    for (const auto& [id, of] : usage) {
      sum.prompt_tokens += of.prompt_tokens, sum.reused_tokens += of.reused_tokens;
      sum.generated_tokens += of.generated_tokens, sum.drafted_tokens += of.drafted_tokens;
      sum.accepted_tokens += of.accepted_tokens;
    }
    const EngineStats stats = engine.stats();
    EXPECT_EQ(stats.prompt_tokens, sum.prompt_tokens);
    EXPECT_EQ(stats.reused_tokens, sum.reused_tokens);
    EXPECT_EQ(stats.generated_tokens, sum.generated_tokens);
    EXPECT_EQ(stats.generated_tokens, tokens);
    EXPECT_EQ(stats.drafted_tokens, sum.drafted_tokens);
    EXPECT_EQ(stats.accepted_tokens, sum.accepted_tokens);
    EXPECT_GT(stats.cancelled_requests, 0);
    EXPECT_GT(stats.reused_tokens, 0);
    EXPECT_EQ(stats.drafted_tokens > 0, speculation == Speculation::kOn);
  }
}

TEST(Engine, ReportsLogprobsAndExpertsOfEachToken) {
  Engine engine = Engine::open(golden_dir(kMtpCase), {.threads = 1, .cache_tokens = 1024});
  const ModelConfig& model = engine.model();
  Request request{.prompt = prompt(3, 9, model.vocab_size), .max_tokens = 4, .ignore_end = true};
  request.sampling.temperature = 0;
  request.top_logprobs = 2, request.want_experts = true;
  const Answer answer = engine.generate(request);
  ASSERT_EQ(answer.tokens.size(), 4u);
  int64_t moe_layers = 0;
  for (int64_t i = 0; i < model.num_layers; ++i) moe_layers += model.is_moe(i);
  for (const NewToken& token : answer.tokens) {
    ASSERT_EQ(token.logprobs.size(), 3u);
    EXPECT_EQ(token.logprobs[0].id, token.id);
    EXPECT_EQ(token.logprobs[1].id, token.id);  // greedy: the likeliest
    EXPECT_LE(token.logprobs[2].logprob, token.logprobs[1].logprob);
    EXPECT_EQ(static_cast<int64_t>(token.experts.size()), moe_layers * model.moe.top_k);
  }
  EXPECT_EQ(answer.reason, FinishReason::kMaxTokens);
}

}  // namespace
}  // namespace hadal
