// DeepSeek-V3.2's sparse attention: against transformers' numbers, against dense attention, against an
// indexer in double precision, and through the engine.
#include <cmath>
#include <map>

#include "hadal/base/random.h"
#include "hadal/checkpoint.h"
#include "hadal/engine.h"
#include "hadal/engine/open_network.h"
#include "tests/support/error_of.h"
#include "tests/support/fed_sequences.h"
#include "tests/support/golden_cases.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

Ids random_ids(uint64_t stream, int64_t n, int64_t vocab_size) {
  Ids ids;
  for (int64_t i = 0; i < n; ++i)
    ids.push_back(static_cast<int32_t>(philox(5, stream, static_cast<uint64_t>(i))[0] %
                                       static_cast<uint64_t>(vocab_size)));
  return ids;
}

// The case's weights with another number of keys; nullopt: dense attention.
NetworkWeights weights_with(const std::string& golden, std::optional<int64_t> top_k) {
  NetworkWeights weights = open_network(golden_dir(golden));
  if (top_k)
    weights.config.mla.indexer->top_k = *top_k;
  else
    weights.config.mla.indexer.reset();
  return weights;
}

class SparseParity : public testing::TestWithParam<const char*> {
 protected:
  GoldenArrays golden{golden_dir(GetParam())};
  WorkerPool pool{2};
  Network network{open_network(golden_dir(GetParam())), pool};
  std::vector<Ids> prompts = rows_of(golden.ints("tokens"), golden.shape("tokens"));
};

TEST_P(SparseParity, PrefillGivesTheReferencesNumbers) {
  Sequences sequences(network, 2, 128);
  const std::vector<float> hidden = sequences.feed({0, 1}, prompts);
  expect_close(hidden, golden.floats("hidden.final"), golden.tolerance("hidden"), "hidden.final");
  expect_close(sequences.logits(hidden), golden.floats("logits"), golden.tolerance("logits"), "logits");
}

TEST_P(SparseParity, TokensFedOneByOneGiveTheReferencesNumbersAndGreedyTokens) {
  const auto W = static_cast<size_t>(network.config().vocab_size);
  const std::vector<Ids> want = rows_of(golden.ints("greedy_tokens"), golden.shape("greedy_tokens"));
  const std::vector<float> prompt_logits = golden.floats("logits"),
                           new_logits = golden.floats("decode_logits");
  const size_t T = prompts[0].size(), N = want[0].size();
  for (size_t s = 0; s < prompts.size(); ++s) {
    Sequences one(network, 1, 128);
    for (size_t t = 0; t < T + N; ++t) {
      const std::vector<float> logits = one.logits(one.feed({0}, {{t < T ? prompts[s][t] : want[s][t - T]}}));
      const auto rows = t < T ? std::span(prompt_logits).subspan((s * T + t) * W, W)
                              : std::span(new_logits).subspan((s * N + t - T) * W, W);
      expect_close(logits, rows, golden.tolerance("logits"), "token " + std::to_string(t));
      if (t + 1 >= T && t + 1 < T + N) {
        EXPECT_EQ(argmax(logits), want[s][t + 1 - T]) << t;
      }
    }
  }
}

TEST_P(SparseParity, TheMtpModuleChoosesItsOwnKeys) {
  if (!golden.has("mtp.normed")) GTEST_SKIP() << "no MTP in this case";
  std::vector<float> normed, logits;
  for (const Ids& prompt : prompts) {
    Sequences one(network, 1, 128);
    const std::vector<float> hidden = one.feed({0}, {Ids(prompt.begin(), prompt.end() - 1)});
    const std::vector<float> part = one.mtp(hidden, Ids(prompt.begin() + 1, prompt.end()));
    const std::vector<float> part_logits = one.logits(part);
    normed.insert(normed.end(), part.begin(), part.end());
    logits.insert(logits.end(), part_logits.begin(), part_logits.end());
  }
  expect_close(normed, golden.floats("mtp.normed"), golden.tolerance("hidden"), "mtp.normed");
  expect_close(logits, golden.floats("mtp.logits"), golden.tolerance("logits"), "mtp.logits");
}

TEST_P(SparseParity, NoBitDependsOnChunksBatchOrThreadsInAnyFormatOfTheCache) {
  WorkerPool single(1);
  for (const int64_t top_k : {9, 300}) {  // one split of keys; two, and tokens before and behind the border
    Network shared(weights_with(GetParam(), top_k), pool), alone(weights_with(GetParam(), top_k), single);
    const std::vector<Ids> ids = {random_ids(1, 337, 50), random_ids(2, 337, 50)};
    for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kInt8}) {
      Sequences whole(shared, 2, 337, format);
      const std::vector<float> together = whole.feed({0, 1}, ids);
      for (const size_t chunk : {size_t{1}, size_t{7}, size_t{337}}) {
        std::vector<float> got;
        for (const Ids& row : ids) {
          Sequences one(alone, 1, 337, format);
          for (size_t at = 0; at < row.size(); at += chunk) {
            const Ids piece(row.begin() + static_cast<int64_t>(at),
                            row.begin() + static_cast<int64_t>(std::min(row.size(), at + chunk)));
            const std::vector<float> hidden = one.feed({0}, {piece});
            got.insert(got.end(), hidden.begin(), hidden.end());
          }
        }
        EXPECT_TRUE(got == together) << "top_k " << top_k << " chunk " << chunk << ", " << name(format);
      }
    }
  }
}

TEST_P(SparseParity, DecodingTogetherGivesTheBitsOfDecodingAlone) {
  const auto D = static_cast<size_t>(network.config().width);
  const std::vector<Ids> ids = {random_ids(1, 320, 50), random_ids(2, 270, 50)};
  std::vector<std::vector<float>> want;
  for (const Ids& row : ids) want.push_back(Sequences(network, 1, 320).feed({0}, {row}));
  for (const int64_t rows : {1, 2}) {  // 2: a draft to be verified
    Sequences both(network, 2, 320);
    both.feed({0, 1}, {Ids(ids[0].begin(), ids[0].end() - 8), Ids(ids[1].begin(), ids[1].end() - 8)});
    for (int64_t left = 8; left > 0; left -= rows) {
      std::vector<Ids> piece;
      for (const Ids& row : ids) piece.emplace_back(row.end() - left, row.end() - left + rows);
      const std::vector<float> got = both.feed({0, 1}, piece);
      for (size_t s = 0; s < 2; ++s) {
        const auto n = static_cast<int64_t>(D) * rows;
        EXPECT_TRUE(std::equal(got.begin() + static_cast<int64_t>(s) * n,
                               got.begin() + static_cast<int64_t>(s) * n + n,
                               want[s].end() - left * static_cast<int64_t>(D)))
            << "sequence " << s << ", " << left << " left";
      }
    }
  }
}

TEST_P(SparseParity, UpToTopKTokensItIsDenseAttentionBitForBit) {
  const Ids ids = random_ids(3, 290, 50);
  Network dense(weights_with(GetParam(), std::nullopt), pool);
  for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kBF16}) {
    Sequences all(dense, 1, 290, format);
    const std::vector<float> want = all.feed({0}, {ids});
    for (const int64_t top_k : {289, 290, 2048}) {
      Network sparse(weights_with(GetParam(), top_k), pool);
      Sequences one(sparse, 1, 290, format);
      const std::vector<float> got = one.feed({0}, {ids});
      const int64_t same = std::min<int64_t>(290, top_k) * dense.config().width;
      EXPECT_TRUE(std::equal(got.begin(), got.begin() + same, want.begin())) << name(format) << top_k;
      EXPECT_EQ(got == want, top_k >= 290) << "the last token sees one key more than 289";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, SparseParity, testing::Values("v32-tiny", "v32-yarn"), [](const auto& info) {
  return std::string(info.param) == "v32-tiny" ? "tiny" : "yarn";
});

// One layer of odd sizes whose weights are drawn, and which keys it has to choose, in double precision.
class SlowIndexer {
 public:
  static constexpr int64_t W = 40, D = 24, Q = 10, R = 4, X = 3, Y = 7, kTopK = 6;

  SlowIndexer() {
    ModelConfig& c = weights.config;
    c.generation = Generation::kV32;
    c.vocab_size = W, c.width = D, c.num_layers = 1, c.dense_dim = 16, c.max_positions = 256;
    c.mla = {
        .num_heads = 2, .query_latent = Q, .kv_latent = 12, .nope_dim = 6, .rope_dim = R, .value_dim = 5};
    c.mla.rope_theta = 100;
    c.mla.indexer = IndexerConfig{.num_heads = X, .head_dim = Y, .top_k = kTopK};
    check(c, "SlowIndexer");
    LayerView layer;
    weights.embedding = weights.head = matrix(W, D);
    layer.attention_norm = embedding_gain = floats(D, 1), layer.ffn_norm = floats(D, 1);
    layer.mla = {.q_down = q_down = matrix(Q, D),
                 .q_up = matrix(2 * 10, Q),
                 .q_norm = q_gain = floats(Q, 1),
                 .kv_down = matrix(16, D),
                 .kv_norm = floats(12, 1),
                 .kv_up = matrix(2 * 11, 12),
                 .out = matrix(D, 10)};
    layer.mla.indexer = indexer = {.query = matrix(X * Y, Q),
                                   .key = matrix(Y, D),
                                   .key_norm = floats(Y, 1),
                                   .key_bias = floats(Y, 0),
                                   .weights = matrix(X, D)};
    layer.mlp = {matrix(16, D), matrix(16, D), matrix(D, 16)};
    weights.final_norm = floats(D, 1);
    weights.layers = {layer};
  }

  // Of token t of ids: I_{t,j} for j <= t.
  std::vector<double> scores(const Ids& ids, int64_t t) const {
    std::vector<double> query = times(indexer.query, q_latent(ids[static_cast<size_t>(t)]));
    const std::vector<double> weight = times(indexer.weights, input(ids[static_cast<size_t>(t)]));
    for (int64_t x = 0; x < X; ++x) turn(query.data() + x * Y, t);
    std::vector<double> out;
    for (int64_t j = 0; j <= t; ++j) {
      const std::vector<double> key = index_key(ids[static_cast<size_t>(j)], j);
      double score = 0;
      for (int64_t x = 0; x < X; ++x) {
        double dot = 0;
        for (int64_t y = 0; y < Y; ++y)
          dot += query[static_cast<size_t>(x * Y + y)] * key[static_cast<size_t>(y)];
        score +=
            weight[static_cast<size_t>(x)] * std::sqrt(1.0 / X) * std::max(0.0, std::sqrt(1.0 / Y) * dot);
      }
      out.push_back(score);
    }
    return out;
  }

  NetworkWeights weights;

 private:
  const float* floats(int64_t n, float base) {
    const auto block = std::make_shared<std::vector<float>>();
    for (int64_t i = 0; i < n; ++i)
      block->push_back(base +
                       0.5f * static_cast<float>(normal(3, weights.owner.size(), static_cast<uint64_t>(i))));
    weights.owner.push_back(block);
    return block->data();
  }
  WeightView matrix(int64_t N, int64_t K) { return {WeightFormat::kF32, N, K, floats(N * K, 0)}; }

  static std::vector<double> times(const WeightView& w, const std::vector<double>& x) {
    std::vector<double> y(static_cast<size_t>(w.N), 0);
    for (int64_t n = 0; n < w.N; ++n)
      for (int64_t k = 0; k < w.K; ++k)
        y[static_cast<size_t>(n)] +=
            double{static_cast<const float*>(w.data)[n * w.K + k]} * x[static_cast<size_t>(k)];
    return y;
  }
  static std::vector<double> rms_normed(std::vector<double> x, const float* gain) {
    double squares = 0;
    for (const double v : x) squares += v * v;
    for (size_t i = 0; i < x.size(); ++i)
      x[i] *= gain[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-6);
    return x;
  }
  std::vector<double> input(int32_t id) const {
    const float* row = static_cast<const float*>(weights.embedding.data) + id * D;
    return rms_normed({row, row + D}, embedding_gain);
  }
  std::vector<double> q_latent(int32_t id) const { return rms_normed(times(q_down, input(id)), q_gain); }
  std::vector<double> index_key(int32_t id, int64_t position) const {
    std::vector<double> key = times(indexer.key, input(id));
    double mean = 0, variance = 0;
    for (const double v : key) mean += v / Y;
    for (const double v : key) variance += (v - mean) * (v - mean) / Y;
    for (size_t y = 0; y < Y; ++y)
      key[y] = (key[y] - mean) / std::sqrt(variance + 1e-6) * indexer.key_norm[y] + indexer.key_bias[y];
    turn(key.data(), position);
    return key;
  }
  // Channel i with channel i + R/2.
  static void turn(double* x, int64_t position) {
    for (int64_t i = 0; i < R / 2; ++i) {
      const double angle = static_cast<double>(position) * std::pow(100.0, -2.0 * static_cast<double>(i) / R);
      const double a = x[i], b = x[i + R / 2];
      x[i] = a * std::cos(angle) - b * std::sin(angle);
      x[i + R / 2] = a * std::sin(angle) + b * std::cos(angle);
    }
  }

  const float *embedding_gain, *q_gain;
  WeightView q_down;
  IndexerView indexer;
};

// The kTopK best, of equal ones the first; nothing where rounding may decide.
std::optional<Ids> slow_choice(const std::vector<double>& scores, int64_t k, double sure) {
  Ids order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto score = [&](int32_t j) { return scores[static_cast<size_t>(j)]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
  const double gap = score(order[static_cast<size_t>(k - 1)]) - score(order[static_cast<size_t>(k)]);
  if (gap != 0 && gap < sure) return std::nullopt;
  Ids best(order.begin(), order.begin() + k);
  std::sort(best.begin(), best.end());
  return best;
}

TEST(SparseAttention, TheKeysAreThoseOfAnIndexerInDoublePrecision) {
  const SlowIndexer slow;
  constexpr int64_t kTokens = 140;  // three pages
  const Ids ids = random_ids(4, kTokens, SlowIndexer::W);
  struct Case {
    CacheFormat format;
    double gap;        // that rounding cannot turn over
    int64_t compared;  // of the tokens, at least
  };
  for (const Case& c : {Case{CacheFormat::kF32, 1e-5, kTokens - 10}, Case{CacheFormat::kBF16, 0.04, 30}})
    for (const int threads : {1, 2})
      for (const int64_t chunk : {kTokens, int64_t{1}}) {  // workers share out tokens; keys of a token
        int64_t compared = 0;
        WorkerPool pool(threads);
        Network network(slow.weights, pool);
        Sequences one(network, 1, kTokens, c.format);
        for (int64_t first = 0; first < kTokens; first += chunk) {
          one.feed({0}, {Ids(ids.begin() + first, ids.begin() + first + chunk)});
          for (int64_t t = std::max(first, SlowIndexer::kTopK); t < first + chunk; ++t) {
            const auto want = slow_choice(slow.scores(ids, t), SlowIndexer::kTopK, c.gap);
            if (!want) continue;
            const auto got = network.chosen_keys(t - first);
            EXPECT_EQ(Ids(got.begin(), got.end()), *want)
                << "token " << t << ", " << threads << " threads, " << name(c.format);
            ++compared;
          }
        }
        EXPECT_GE(compared, c.compared) << name(c.format);
      }
}

// As official checkpoints have them: matrices in FP8, weights_proj in BF16.
TEST(SparseAttention, AnFp8CheckpointComputesWithItsDequantisedWeights) {
  const TemporaryFolder folder;
  ConvertOptions options;
  options.dtype = DType::kF8E4M3;
  convert(golden_dir("v32-tiny"), folder / "fp8", options);
  options.dtype = DType::kF32;
  convert(folder / "fp8", folder / "f32", options);
  WorkerPool pool(1);
  Network fp8(open_network(folder / "fp8"), pool), f32(open_network(folder / "f32"), pool);
  const IndexerView& indexer = fp8.weights().layers[0].mla.indexer;
  EXPECT_EQ(indexer.query.format, WeightFormat::kFp8);
  EXPECT_EQ(indexer.key.format, WeightFormat::kFp8);
  EXPECT_EQ(indexer.weights.format, WeightFormat::kBF16);
  const Ids ids = random_ids(6, 60, 50);
  Sequences one(fp8, 1, 60), two(f32, 1, 60);
  const std::vector<float> got = one.feed({0}, {ids}), want = two.feed({0}, {ids});
  expect_close(got, want, {3e-5, 3e-5}, "hidden");
}

Request request(uint64_t stream, int64_t prompt_tokens, int64_t max_tokens) {
  Request out{.prompt = random_ids(stream, prompt_tokens, 50), .max_tokens = max_tokens, .ignore_end = true};
  out.sampling.temperature = stream % 2 ? 0.8 : 0.0, out.sampling.seed = stream;
  return out;
}

std::vector<Ids> answers(Engine& engine, const std::vector<Request>& requests) {
  std::map<RequestId, Ids> got;
  for (const Request& request : requests) got[engine.submit(request)];
  while (!engine.idle())
    for (const Delta& delta : engine.step())
      for (const NewToken& token : delta.tokens) got[delta.request].push_back(token.id);
  std::vector<Ids> out;
  for (const auto& [id, ids] : got) out.push_back(ids);
  return out;
}

TEST(SparseAttention, AnswersDoNotDependOnDraftsBatchesReuseOrASavedCache) {
  const auto folder = golden_dir("v32-tiny");
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 4; ++i) requests.push_back(request(i, 40 + 70 * static_cast<int64_t>(i), 40));
  requests[3].prompt.insert(requests[3].prompt.begin(), requests[2].prompt.begin(), requests[2].prompt.end());
  std::vector<Ids> want;
  for (const Request& each : requests) {
    Engine engine = Engine::open(
        folder,
        {.threads = 1, .cache_tokens = 2048, .reuse_prefixes = false, .speculation = Speculation::kOff});
    want.push_back(answers(engine, {each})[0]);
  }
  const TemporaryFolder saved;
  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn}) {
    EngineConfig config{.threads = 1,
                        .cache_tokens = 2048,
                        .max_sequences = 3,
                        .max_batch_tokens = 33,
                        .speculation = speculation};
    Engine engine = Engine::open(folder, config), restored = Engine::open(folder, config);
    EXPECT_EQ(answers(engine, requests), want);
    EXPECT_EQ(answers(engine, requests), want) << "with the pages that the first round left";
    EXPECT_GT(engine.stats().reused_tokens, 200);
    if (speculation == Speculation::kOn) {
      EXPECT_GT(engine.stats().accepted_tokens, 0);
    }
    EXPECT_GT(engine.save_cache(saved / "cache"), 0);
    EXPECT_GT(restored.load_cache(saved / "cache"), 0);
    EXPECT_EQ(answers(restored, requests), want) << "from a saved cache";
    EXPECT_GT(restored.stats().reused_tokens, 200);
  }
}

TEST(SparseAttention, ACacheOfAnotherIndexerIsRefused) {
  const TemporaryFolder saved;
  const EngineConfig config{.threads = 1, .cache_tokens = 512};
  NetworkWeights weights = open_network(golden_dir("v32-tiny"));
  Engine engine(weights, std::nullopt, config);
  answers(engine, {request(1, 100, 5)});
  engine.save_cache(saved / "cache");
  weights.layers[1].mla.indexer.key_bias = weights.layers[0].mla.indexer.key_bias;
  Engine other(weights, std::nullopt, config);
  EXPECT_NE(error_of([&] { other.load_cache(saved / "cache"); }).find("saved with another model"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal
