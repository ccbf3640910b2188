// Answers longer than the context: rows at new positions, and the engine going on over them.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "hadal/config/rope_frequencies.h"
#include "hadal/engine.h"
#include "hadal/engine/open_network.h"
#include "hadal/error.h"
#include "hadal/network/network.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

std::vector<int32_t> prompt(uint64_t seed, int64_t n, uint64_t vocab_size = 253) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    ids.push_back(static_cast<int32_t>((seed >> 33) % (vocab_size - 3) + 3));
  }
  return ids;
}

std::vector<int32_t> ids_of(const Answer& answer) {
  std::vector<int32_t> ids;
  for (const NewToken& token : answer.tokens) ids.push_back(token.id);
  return ids;
}

// A sequence of kRows rows of which pages 1 and 2 leave.
constexpr int64_t kKeep = 64, kDrop = 128, kRows = 270, kStay = kRows - kKeep - kDrop;

class ShiftedRows {
 public:
  ShiftedRows(const std::string& golden, CacheFormat format)
      : pool(2),
        network(open_network(golden_dir(golden)), pool),
        layers(network.config().num_layers),
        pages(network.config().mla, layers, 8, format),
        ids(prompt(1, kRows, std::min<uint64_t>(253, network.config().vocab_size))) {
    forward(pages, ids, 0, {0, 1, 2, 3, 4});
  }

  std::vector<float> forward(LatentPages& storage, const std::vector<int32_t>& tokens, int64_t position,
                             const std::vector<int32_t>& in) {
    const std::vector<SequenceRows> rows = {{position, std::ssize(tokens), in}};
    const float* hidden = network.forward(tokens, rows, storage);
    std::vector<float> logits(static_cast<size_t>(network.config().vocab_size));
    network.logits(hidden, std::vector<int32_t>{static_cast<int32_t>(tokens.size()) - 1}, logits.data());
    return logits;
  }

  // Row `position` of a sequence: latent, then key.
  std::vector<float> row(const LatentPages& storage, int64_t layer, int64_t position,
                         const std::vector<int32_t>& in) const {
    std::vector<float> scratch(static_cast<size_t>(kPageTokens * storage.row_stride()));
    const float* rows =
        storage.read(layer, in[static_cast<size_t>(position / kPageTokens)], kPageTokens, scratch.data());
    const float* from = rows + position % kPageTokens * storage.row_stride();
    return {from, from + storage.row_stride()};
  }

  void shift() { network.shift_rows(std::vector<PageMove>{{3, 6}, {4, 4}}, kKeep, kStay, kDrop, pages); }

  WorkerPool pool;
  Network network;
  int64_t layers;
  LatentPages pages;
  std::vector<int32_t> ids;
};

// The key at one position from the key at another, by turning it back and forth in double precision.
std::vector<float> at_position(const MlaConfig& mla, std::vector<float> row, int64_t from, int64_t to) {
  const std::vector<float> frequency = rope_frequencies(mla);
  float* key = row.data() + mla.kv_latent;
  for (int64_t i = 0; i < mla.rope_dim / 2; ++i) {
    const double f = frequency[static_cast<size_t>(i)];
    const double back = static_cast<double>(from) * f, turn = static_cast<double>(to) * f;
    const double a = key[2 * i], b = key[2 * i + 1];
    const double x = a * std::cos(back) + b * std::sin(back), y = b * std::cos(back) - a * std::sin(back);
    key[2 * i] = static_cast<float>(x * std::cos(turn) - y * std::sin(turn));
    key[2 * i + 1] = static_cast<float>(x * std::sin(turn) + y * std::cos(turn));
  }
  return row;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(double{a[i]} - double{b[i]}));
  return most;
}

TEST(ContextShift, LogitsAreThoseOfKeysTurnedToTheirNewPositions) {
  for (const char* golden : {"v3-mtp", "v3-yarn", "v2lite-tiny"}) {
    ShiftedRows shifted(golden, CacheFormat::kF32);
    const MlaConfig& mla = shifted.network.config().mla;
    LatentPages reference(mla, shifted.layers, 3, CacheFormat::kF32),
        unturned(mla, shifted.layers, 3, CacheFormat::kF32);
    const std::vector<int32_t> old = {0, 1, 2, 3, 4}, now = {0, 6, 4}, fresh = {0, 1, 2};
    for (int64_t layer = 0; layer < shifted.layers; ++layer)
      for (int64_t to = 0; to < kKeep + kStay; ++to) {
        const int64_t from = to < kKeep ? to : to + kDrop;
        const std::vector<float> row = shifted.row(shifted.pages, layer, from, old);
        const std::vector<float> turned = at_position(mla, row, from, to);
        const int32_t page = static_cast<int32_t>(to / kPageTokens);
        reference.write(layer, page, to % kPageTokens, turned.data(), turned.data() + mla.kv_latent);
        unturned.write(layer, page, to % kPageTokens, row.data(), row.data() + mla.kv_latent);
      }
    shifted.shift();
    const std::vector<float> got = shifted.forward(shifted.pages, {7}, kKeep + kStay, now);
    const std::vector<float> want = shifted.forward(reference, {7}, kKeep + kStay, fresh);
    EXPECT_LT(largest_difference(got, want), 2e-5) << golden;
    EXPECT_GT(largest_difference(shifted.forward(unturned, {7}, kKeep + kStay, fresh), want), 1e-4) << golden;
  }
}

// In the first layer a latent and its key know nothing of the tokens before, so there a shift is exact.
TEST(ContextShift, RowsOfTheFirstLayerAreThoseOfTheRemainingTextComputedAnew) {
  for (const CacheFormat format :
       {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kInt8, CacheFormat::kFp8}) {
    ShiftedRows shifted("v3-mtp", format);
    const MlaConfig& mla = shifted.network.config().mla;
    shifted.shift();
    std::vector<int32_t> rest(shifted.ids.begin(), shifted.ids.begin() + kKeep);
    rest.insert(rest.end(), shifted.ids.begin() + kKeep + kDrop, shifted.ids.end());
    LatentPages fresh(mla, shifted.layers, 3, format);
    shifted.forward(fresh, rest, 0, {0, 1, 2});
    const double precision = format == CacheFormat::kF32 ? 1e-6 : 1.0 / 128;  // two roundings of bf16 keys
    for (int64_t at = 0; at < kKeep + kStay; ++at) {
      const std::vector<float> got = shifted.row(shifted.pages, 0, at, {0, 6, 4});
      const std::vector<float> want = shifted.row(fresh, 0, at, {0, 1, 2});
      for (int64_t c = 0; c < mla.kv_latent; ++c)
        ASSERT_EQ(got[static_cast<size_t>(c)], want[static_cast<size_t>(c)]) << name(format) << " " << at;
      double size = 0;
      for (size_t i = static_cast<size_t>(mla.kv_latent); i < want.size(); ++i)
        size = std::max(size, std::fabs(double{want[i]}));
      ASSERT_LE(largest_difference(got, want), precision * std::max(1.0, size)) << name(format) << " " << at;
    }
  }
}

// Index keys turn, too, and choose among the rows that stay.
TEST(ContextShift, IndexKeysOfTheFirstLayerAreThoseOfTheRemainingTextComputedAnew) {
  for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kInt8}) {
    ShiftedRows shifted("v32-yarn", format);
    const int64_t Y = shifted.network.config().mla.index_dim();
    shifted.shift();
    std::vector<int32_t> rest(shifted.ids.begin(), shifted.ids.begin() + kKeep);
    rest.insert(rest.end(), shifted.ids.begin() + kKeep + kDrop, shifted.ids.end());
    LatentPages fresh(shifted.network.config().mla, shifted.layers, 3, format);
    shifted.forward(fresh, rest, 0, {0, 1, 2});
    const auto key = [&](const LatentPages& storage, int32_t page, int64_t row) {
      std::vector<float> out(static_cast<size_t>(Y));
      infer_kernels().decode_rows(storage.index_keys(0, page, kPageTokens), row, row + 1, out.data(), Y);
      return out;
    };
    const std::vector<int32_t> now = {0, 6, 4};
    for (int64_t at = 0; at < kKeep + kStay; ++at)
      EXPECT_LE(
          largest_difference(key(shifted.pages, now[static_cast<size_t>(at / kPageTokens)], at % kPageTokens),
                             key(fresh, static_cast<int32_t>(at / kPageTokens), at % kPageTokens)),
          format == CacheFormat::kF32 ? 5e-6 : 3.0 / 128)
          << name(format) << " " << at;
  }
}

EngineConfig shifting(Speculation speculation = Speculation::kOff) {
  EngineConfig config{.threads = 1, .cache_tokens = 2048, .speculation = speculation};
  config.context_tokens = 192, config.overflow = Overflow::kShift, config.keep_tokens = 64;
  return config;
}

Request long_request(uint64_t seed, int64_t prompt_tokens, int64_t max_tokens) {
  Request request{.prompt = prompt(seed, prompt_tokens), .max_tokens = max_tokens, .ignore_end = true};
  request.sampling.temperature = seed % 2 ? 0.8 : 0.0, request.sampling.seed = seed;
  return request;
}

TEST(ContextShift, AnswersGoOnBehindTheContextAndDoNotDependOnAnythingElse) {
  const auto folder = golden_dir("v3-mtp");
  std::vector<Request> all;
  for (uint64_t i = 0; i < 5; ++i)
    all.push_back(long_request(i, i == 3 ? 260 : 50 + 40 * static_cast<int64_t>(i), 160));
  all[4].prompt = all[2].prompt;  // shared pages
  all[4].sampling.temperature = 1.1;
  EngineConfig alone = shifting();
  alone.reuse_prefixes = false;
  Engine reference = Engine::open(folder, alone);
  std::map<RequestId, std::vector<int32_t>> want;
  for (const Request& request : all) {
    const Answer answer = reference.generate(request);
    EXPECT_EQ(answer.reason, FinishReason::kMaxTokens);
    EXPECT_GT(answer.usage.dropped_tokens, 0);
    want[want.size() + 1] = ids_of(answer);
    EXPECT_EQ(std::ssize(want[want.size()]), request.max_tokens);
  }
  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn, Speculation::kAuto})
    for (const bool reuse : {false, true}) {
      for (const int64_t cache : {2 * 192, 2048}) {
        if (!reuse && cache == 2048) continue;
        EngineConfig config = shifting(speculation);
        config.threads = speculation == Speculation::kAuto && cache == 2048 ? 2 : 1;
        config.max_sequences = 4, config.max_batch_tokens = 50;
        config.cache_tokens = cache, config.reuse_prefixes = reuse;
        Engine engine = Engine::open(folder, config);
        for (int round = 0; round < 2; ++round) {  // again, with what the first one left in the cache
          std::map<RequestId, std::vector<int32_t>> got;
          const RequestId before = static_cast<RequestId>(round) * all.size();
          for (const Request& request : all) engine.submit(request);
          while (!engine.idle())
            for (const Delta& delta : engine.step())
              for (const NewToken& token : delta.tokens) got[delta.request - before].push_back(token.id);
          EXPECT_EQ(got, want) << "speculation " << static_cast<int>(speculation) << " reuse " << reuse
                               << " cache " << cache << " round " << round;
          EXPECT_EQ(engine.stats().pages_used, 0);
        }
        EXPECT_GT(engine.stats().context_shifts, 10);
        if (speculation == Speculation::kOn) {
          EXPECT_GT(engine.stats().accepted_tokens, 0);
        }
      }
    }
}

TEST(ContextShift, ShiftedRowsAreNeverFoundAsAPrefix) {
  Engine engine = Engine::open(golden_dir("v3-mtp"), shifting());
  Request request = long_request(2, 100, 140);
  const Answer answer = engine.generate(request);
  ASSERT_EQ(answer.usage.dropped_tokens, 64);
  // What was in the context at the end, as a prompt: its latents are other ones.
  std::vector<int32_t> text = request.prompt;
  for (const int32_t id : ids_of(answer)) text.push_back(id);
  text.erase(text.begin() + 64, text.begin() + 128);
  text.resize(170);
  const Request next{.prompt = text, .max_tokens = 20, .sampling = {.temperature = 0}, .ignore_end = true};
  const Answer warm = engine.generate(next);
  EXPECT_EQ(warm.usage.reused_tokens, 64);
  Engine cold = Engine::open(golden_dir("v3-mtp"), shifting());
  EXPECT_EQ(ids_of(warm), ids_of(cold.generate(next)));
}

TEST(ContextShift, ALongPromptLosesItsMiddleBeforeItStarts) {
  Engine engine = Engine::open(golden_dir("v3-mtp"), shifting());
  const Request request = long_request(3, 300, 10);
  const Answer answer = engine.generate(request);
  EXPECT_EQ(answer.usage.dropped_tokens, 128);
  EXPECT_EQ(answer.usage.prompt_tokens, 300);
  Request same = request;
  same.prompt.erase(same.prompt.begin() + 64, same.prompt.begin() + 192);
  EXPECT_EQ(ids_of(answer), ids_of(engine.generate(same)));
}

TEST(ContextShift, IsRefusedUnlessAskedFor) {
  EngineConfig config = shifting();
  config.overflow = Overflow::kRefuse;
  Engine engine = Engine::open(golden_dir("v3-mtp"), config);
  EXPECT_EQ(engine.context(), 192);
  const Answer answer = engine.generate(long_request(2, 100, 300));
  EXPECT_EQ(answer.reason, FinishReason::kContextFull);
  EXPECT_EQ(answer.tokens.size(), 92u);
  EXPECT_EQ(answer.usage.dropped_tokens, 0);
  EXPECT_NE(error_of([&] { engine.submit(long_request(2, 192, 1)); }).find("the context is 192"),
            std::string::npos);
  config.overflow = Overflow::kShift, config.keep_tokens = 65;
  EXPECT_NE(error_of([&] { Engine::open(golden_dir("v3-mtp"), config); }).find("Keep fewer"),
            std::string::npos);
}

TEST(ContextShift, ACancelledRequestFreesItsPagesAfterAShiftToo) {
  Engine engine = Engine::open(golden_dir("v3-mtp"), shifting(Speculation::kOn));
  const RequestId id = engine.submit(long_request(1, 150, 1000));
  while (engine.stats().context_shifts < 2) engine.step();
  EXPECT_LE(engine.stats().pages_used, 3);
  EXPECT_TRUE(engine.cancel(id));
  EXPECT_EQ(engine.stats().pages_used, 0);
  EXPECT_TRUE(engine.idle());
}

}  // namespace
}  // namespace hadal
