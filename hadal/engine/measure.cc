#include "hadal/engine/measure.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <set>

#include "hadal/base/clock.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/config/attention_cost.h"
#include "hadal/engine/open_network.h"
#include "hadal/error.h"
#include "hadal/kernels/probe.h"
#include "hadal/network/network.h"

namespace hadal {
namespace {

std::vector<int32_t> random_ids(int64_t n, int64_t vocab_size, uint64_t stream) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i)
    ids.push_back(std::min<int32_t>(static_cast<int32_t>(vocab_size) - 1,
                                    static_cast<int32_t>(uniform(7, stream, static_cast<uint64_t>(i)) *
                                                         static_cast<double>(vocab_size))));
  return ids;
}

// FNV-1a.
uint64_t hash_of(const std::vector<float>& values) {
  uint64_t hash = 14695981039346656037ull;
  for (const float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    hash = (hash ^ bits) * 1099511628211ull;
  }
  return hash;
}

int64_t bytes_of(const WeightView& w) {
  return w.N * (row_bytes(w.format, w.K) + 2 * row_groups(w.format, w.K));
}
int64_t bytes_of(const MlpView& mlp) {
  return bytes_of(mlp.gate) + bytes_of(mlp.up) + bytes_of(mlp.down);
}

// Weights that the last step of the network read: each chosen expert's once.
int64_t weight_bytes(const Network& network) {
  const NetworkWeights& weights = network.weights();
  int64_t bytes = bytes_of(weights.head);
  for (int64_t i = 0; i < network.config().num_layers; ++i) {
    const LayerView& layer = weights.layers[static_cast<size_t>(i)];
    for (const WeightView* w : matrices_of(layer.mla)) bytes += w->N > 0 ? bytes_of(*w) : 0;
    if (!layer.is_moe) {
      bytes += bytes_of(layer.mlp);
      continue;
    }
    bytes += bytes_of(layer.moe.router);
    const std::span<const int32_t> chosen = network.chosen_experts(i);
    for (const int32_t e : std::set<int32_t>(chosen.begin(), chosen.end()))
      bytes += bytes_of(layer.moe.experts[static_cast<size_t>(e)]);
    if (layer.moe.shared.gate.N > 0) bytes += bytes_of(layer.moe.shared);
  }
  return bytes;
}

int64_t values_of(const WeightView& w) {
  return w.N * w.K;
}
int64_t values_of(const MlpView& mlp) {
  return values_of(mlp.gate) + values_of(mlp.up) + values_of(mlp.down);
}

// Multiply-adds of a token that sees `keys` keys, the head aside.
double token_products(const NetworkWeights& weights, double keys) {
  const ModelConfig& config = weights.config;
  double sum = 0;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerView& layer = weights.layers[static_cast<size_t>(i)];
    for (const WeightView* w : matrices_of(layer.mla)) sum += static_cast<double>(values_of(*w));
    sum += static_cast<double>(values_of(layer.moe.router));
    sum += static_cast<double>(layer.is_moe ? config.moe.top_k * values_of(layer.moe.experts[0]) +
                                                  values_of(layer.moe.shared)
                                            : values_of(layer.mlp));
    sum += attention_products(config.mla, keys);
  }
  return sum;
}

// Sequences in the cache, fed in steps.
class Feeder {
 public:
  Feeder(Network& network, const std::string& cache_dtype, int64_t sequences, int64_t capacity)
      : network_(network),
        format_(choose_cache_format(cache_dtype, network.weights())),
        pages_each_((capacity + kPageTokens - 1) / kPageTokens),
        pages_(network.config().mla, network.config().num_layers, sequences * pages_each_, format_),
        logits_(static_cast<size_t>(sequences * network.config().vocab_size)) {
    for (int64_t s = 0; s < sequences; ++s) {
      page_ids_.emplace_back(static_cast<size_t>(pages_each_));
      std::iota(page_ids_.back().begin(), page_ids_.back().end(), static_cast<int32_t>(s * pages_each_));
    }
  }

  // The same number of tokens for each sequence, at `position`; with logits of each one's last.
  void step(int64_t position, const std::vector<std::vector<int32_t>>& ids, bool want_logits) {
    std::vector<int32_t> flat, rows;
    std::vector<SequenceRows> sequences;
    for (size_t s = 0; s < ids.size(); ++s) {
      sequences.push_back({position, static_cast<int64_t>(ids[s].size()), page_ids_[s]});
      flat.insert(flat.end(), ids[s].begin(), ids[s].end());
      rows.push_back(static_cast<int32_t>(flat.size()) - 1);
    }
    const float* hidden = network_.forward(flat, sequences, pages_);
    if (want_logits) network_.logits(hidden, rows, logits_.data());
  }
  const std::vector<float>& logits() const { return logits_; }
  // Of the cache, that a token with `keys` keys before it reads in a layer.
  int64_t bytes_read(int64_t keys) const {
    const std::optional<IndexerConfig>& indexer = network_.config().mla.indexer;
    if (!indexer || keys < indexer->top_k) return keys * pages_.latent_bytes();
    return indexer->top_k * pages_.latent_bytes() + keys * pages_.index_bytes();
  }

 private:
  Network& network_;
  CacheFormat format_;
  int64_t pages_each_;
  LatentPages pages_;
  std::vector<std::vector<int32_t>> page_ids_;
  std::vector<float> logits_;
};

void prefill(Feeder& feeder, const std::vector<std::vector<int32_t>>& prompts, bool want_logits) {
  constexpr int64_t kChunk = 512;
  const auto n = static_cast<int64_t>(prompts[0].size());
  for (int64_t at = 0; at < n; at += kChunk) {
    std::vector<std::vector<int32_t>> chunk;
    for (const std::vector<int32_t>& prompt : prompts)
      chunk.emplace_back(prompt.begin() + at, prompt.begin() + std::min(n, at + kChunk));
    feeder.step(at, chunk, want_logits && at + kChunk >= n);
  }
}

void set_speed(EngineBenchResult& result, std::vector<double> seconds, int64_t tokens) {
  std::sort(seconds.begin(), seconds.end());
  result.tokens_per_second = static_cast<double>(tokens) / seconds.front();
  result.median_tokens_per_second = static_cast<double>(tokens) / seconds[seconds.size() / 2];
}

EngineBenchResult bench_network(Network& network, const EngineBenchOptions& o) {
  const bool decode = o.work != "prefill";
  const int64_t S = o.work == "batch" ? o.sequences : 1, W = network.config().vocab_size, P = o.prompt_tokens;
  const int64_t N = decode ? o.new_tokens : 0;
  EngineBenchResult result{.work = o.work, .prompt_tokens = P, .new_tokens = N, .sequences = S};
  Feeder feeder(network, o.cache_dtype, S, P + N);
  std::vector<std::vector<int32_t>> prompts, next(static_cast<size_t>(S), std::vector<int32_t>(1));
  for (int64_t s = 0; s < S; ++s) prompts.push_back(random_ids(P, W, static_cast<uint64_t>(s)));
  const std::vector<int32_t> fed = random_ids(N * S, W, 1000);
  if (decode && P > 0) prefill(feeder, prompts, false);
  std::vector<double> seconds;
  double bytes = 0;
  for (int64_t repeat = 0; repeat <= o.repeats; ++repeat) {
    const double start = now_seconds();
    bytes = 0;
    if (!decode) prefill(feeder, prompts, true);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t s = 0; s < S; ++s) next[static_cast<size_t>(s)][0] = fed[static_cast<size_t>(n * S + s)];
      feeder.step(P + n, next, true);
      bytes += static_cast<double>(weight_bytes(network)) +
               static_cast<double>(S * network.config().num_layers * feeder.bytes_read(P + n));
    }
    if (repeat > 0) seconds.push_back(now_seconds() - start);  // the first one warms up
  }
  result.hash = hash_of(feeder.logits());
  const double keys = static_cast<double>(decode ? P + N / 2 : P / 2),
               head = static_cast<double>(W * network.config().width);
  result.flops_per_token =
      2 * (token_products(network.weights(), keys) + (decode ? head : head / static_cast<double>(P)));
  set_speed(result, seconds, decode ? N * S : P);
  if (decode) result.bytes_per_token = bytes / static_cast<double>(N * S);
  return result;
}

// The engine itself, greedy, with and without drafts.
EngineBenchResult bench_speculation(const std::filesystem::path& model, const EngineBenchOptions& o) {
  EngineBenchResult result{.work = o.work, .prompt_tokens = o.prompt_tokens, .new_tokens = o.new_tokens};
  double without = 0;
  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn}) {
    Engine engine = Engine::open(model, {.threads = o.threads,
                                         .cache_tokens = o.prompt_tokens + o.new_tokens + 128,
                                         .cache_dtype = o.cache_dtype,
                                         .max_sequences = 1,
                                         .speculation = speculation});
    Request request{.prompt = random_ids(o.prompt_tokens, engine.model().vocab_size, 0),
                    .max_tokens = o.new_tokens,
                    .ignore_end = true};
    request.sampling.temperature = 0;
    std::vector<double> seconds;
    Answer answer;
    for (int64_t repeat = 0; repeat <= o.repeats; ++repeat) {
      answer = engine.generate(request);
      if (repeat > 0) seconds.push_back(answer.decode_seconds);
    }
    set_speed(result, seconds, o.new_tokens - 1);
    if (speculation == Speculation::kOff) without = result.tokens_per_second;
    if (answer.usage.drafted_tokens > 0)
      result.acceptance = static_cast<double>(answer.usage.accepted_tokens) /
                          static_cast<double>(answer.usage.drafted_tokens);
    std::vector<float> ids;
    for (const NewToken& token : answer.tokens) ids.push_back(static_cast<float>(token.id));
    if (speculation == Speculation::kOn && hash_of(ids) != result.hash)
      throw Error(ErrorCode::kInternal, "[engine.bench] drafts changed the answer. Please report this.");
    result.hash = hash_of(ids);
  }
  result.speedup = result.tokens_per_second / without;
  return result;
}

}  // namespace

MachineSpeed measure_machine(int threads) {
  WorkerPool pool(threads);
  constexpr int64_t kFloats = 32 << 20;  // a thread; beyond most caches, and less than some servers' L3
  std::vector<AlignedBuffer<float>> memory(static_cast<size_t>(pool.size()));
  MachineSpeed out{.threads = pool.size()};
  pool.run([&](int w) { std::fill_n(memory[static_cast<size_t>(w)].ensure(kFloats), kFloats, 1.0f); });
  for (int repeat = 0; repeat < 8; ++repeat) {
    std::vector<double> done(static_cast<size_t>(pool.size()));
    double start = now_seconds();
    pool.run([&](int w) {
      float sink[3] = {0.999f, 0.001f, 0};
      done[static_cast<size_t>(w)] = fma_rounds(1 << 20, sink);
    });
    out.fma_peak =
        std::max(out.fma_peak, 2 * std::accumulate(done.begin(), done.end(), 0.0) / (now_seconds() - start));
    start = now_seconds();
    pool.run([&](int w) {
      volatile float sink = read_floats(memory[static_cast<size_t>(w)].data(), kFloats);
      (void)sink;
    });
    out.read_bandwidth = std::max(out.read_bandwidth,
                                  static_cast<double>(kFloats * 4 * pool.size()) / (now_seconds() - start));
  }
  return out;
}

EngineBenchResult bench_engine(const std::filesystem::path& model, const EngineBenchOptions& o,
                               const MachineSpeed& machine) {
  if (o.work != "prefill" && o.work != "decode" && o.work != "batch" && o.work != "spec")
    throw Error(ErrorCode::kInvalidArgument,
                cat("[engine.bench] unknown work \"", o.work, "\": need prefill, decode, batch or spec."));
  if (o.work == "spec") return bench_speculation(model, o);
  WorkerPool pool(o.threads);
  Network network(open_network(model), pool);
  const int64_t tokens = o.prompt_tokens + (o.work == "prefill" ? 0 : o.new_tokens);
  if (tokens > network.config().max_positions)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[engine.bench] ", tokens, " tokens, the model's context is ",
                    network.config().max_positions, ". Ask for fewer."));
  EngineBenchResult result = bench_network(network, o);
  result.bandwidth_share = result.bytes_per_token * result.tokens_per_second / machine.read_bandwidth;
  result.peak_share = result.flops_per_token * result.tokens_per_second / machine.fma_peak;
  return result;
}

}  // namespace hadal
