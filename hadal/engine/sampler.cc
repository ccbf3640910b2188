#include "hadal/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/kernels/infer.h"

namespace hadal {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kLeast = 1e-37f;  // above the exponential of kNever

struct Candidate {
  double score;  // exp((logit - largest) / temperature), logits after penalties
  int32_t id;
};

bool likelier(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

void require(bool good, const char* field, double value, const char* range) {
  if (!good)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[sampler.check] ", field, ": got ", value, ", need ", range, "."));
}

// The largest of the logits. Refuses what no model computes in good order.
float checked_largest(std::span<const float> logits) {
  const float largest = infer_kernels().largest(logits.data(), std::ssize(logits));
  if (std::isnan(largest) || largest == -kNever) {
    const auto bad =
        std::find_if(logits.begin(), logits.end(), [](float x) { return std::isnan(x) || x == -kNever; });
    throw Error(ErrorCode::kInternal,
                cat("[sampler.logits] logit of token ", bad - logits.begin(), " is ", *bad,
                    ": need finite values. The weights are damaged or the arithmetic overflowed."));
  }
  if (largest == kNever)
    throw Error(ErrorCode::kInternal,
                "[sampler.logits] every token has logit -inf or is not allowed: none can be chosen.");
  return largest;
}

// Those of the tokenizer's tokens.
std::span<const float> real_logits(const SamplerInput& input) {
  const int64_t W = std::ssize(input.logits_W), num_tokens = input.num_tokens < 0 ? W : input.num_tokens;
  if (num_tokens < 1 || num_tokens > W)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[sampler.logits] the tokenizer has ", num_tokens, " tokens, the model ", W,
                    " rows: need 1..", W, ". This tokenizer is not this model's."));
  return input.logits_W.first(static_cast<size_t>(num_tokens));
}

// The logits, padding and what is not allowed masked.
std::vector<float> read_logits(const SamplerInput& input) {
  const std::span<const float> real = real_logits(input);
  std::vector<float> logits(input.logits_W.size(), kNever);
  for (size_t i = 0; i < real.size(); ++i)
    if (input.allowed.empty() || (input.allowed[i / 64] >> (i % 64) & 1)) logits[i] = real[i];
  checked_largest(std::span(logits).first(real.size()));
  return logits;
}

void count(std::span<const int32_t> ids, size_t num_rows, std::unordered_map<int32_t, int64_t>& counts) {
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= num_rows)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[sampler.history] token id ", id, ": need 0..", num_rows - 1, "."));
    ++counts[id];
  }
}

void apply_penalties(const SamplingParams& params, const SamplerInput& input, std::vector<float>& logits) {
  if (params.repetition_penalty == 1 && params.presence_penalty == 0 && params.frequency_penalty == 0) return;
  std::unordered_map<int32_t, int64_t> seen, made;
  count(input.generated, logits.size(), made);
  seen = made;
  count(input.prompt, logits.size(), seen);
  for (const auto& [id, unused] : seen)
    logits[id] = static_cast<float>(logits[id] < 0 ? logits[id] * params.repetition_penalty
                                                   : logits[id] / params.repetition_penalty);
  for (const auto& [id, times] : made)
    logits[id] -=
        static_cast<float>(params.presence_penalty + params.frequency_penalty * static_cast<double>(times));
}

// Keeps the fewest likeliest whose total reaches top_p; at least one. The order stays. Linear: the least
// likely one kept is found by halving, each half weighed once.
void keep_top_p(double top_p, std::vector<Candidate>& kept) {
  double total = 0;
  for (const Candidate& c : kept) total += c.score;
  // Even all together, tokens below this weigh no more than what is dropped anyway.
  const double negligible = (1 - top_p) * total / static_cast<double>(kept.size());
  std::vector<Candidate> ranked;
  for (const Candidate& c : kept)
    if (c.score >= negligible) ranked.push_back(c);
  auto low = ranked.begin(), high = ranked.end();
  double before = 0;  // mass of the likelier ones; a token stays while this is below top_p
  while (high - low > 64) {
    const auto middle = low + (high - low) / 2;
    std::nth_element(low, middle, high, likelier);
    double mass = 0;
    for (auto c = low; c != middle; ++c) mass += c->score;
    if (before + mass >= top_p * total) {
      high = middle;
    } else {
      before += mass;
      low = middle;
    }
  }
  std::sort(low, high, likelier);
  while (low + 1 != high && before + low->score < top_p * total) before += (low++)->score;
  const Candidate last = *low;
  std::erase_if(kept, [&](const Candidate& c) { return likelier(last, c); });
}

// The tokens that may be chosen, by id, with weights exp(logit - largest).
std::vector<Candidate> candidates(const SamplingParams& params, const SamplerInput& input) {
  check(params);
  std::vector<float> logits = read_logits(input);
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size())
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[sampler.logit_bias] token id ", id, ": need 0..", logits.size() - 1, "."));
    logits[static_cast<size_t>(id)] += static_cast<float>(bias);
  }
  apply_penalties(params, input, logits);
  const float largest = infer_kernels().largest(logits.data(), std::ssize(logits));
  if (params.temperature == 0) {  // the first on ties
    const auto best = std::find(logits.begin(), logits.end(), largest);
    return {{1.0, static_cast<int32_t>(best - logits.begin())}};
  }

  float lowest = kNever;  // of those that top-k keeps
  if (params.top_k > 0 && params.top_k < static_cast<int64_t>(logits.size())) {
    std::vector<float> ordered = logits;
    std::nth_element(ordered.begin(), ordered.begin() + (params.top_k - 1), ordered.end(), std::greater<>());
    lowest = ordered[params.top_k - 1];
  }
  std::vector<float> score(logits.size());
  infer_kernels().exponentials(logits.data(), largest, static_cast<float>(1 / params.temperature),
                               score.data(), std::ssize(logits));
  std::vector<Candidate> kept;
  if (lowest == kNever) kept.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] != kNever && logits[i] >= lowest) kept.push_back({score[i], static_cast<int32_t>(i)});
  if (params.top_p < 1) keep_top_p(params.top_p, kept);
  std::erase_if(kept, [&](const Candidate& c) { return c.score < params.min_p; });  // the largest is 1
  return kept;
}

// Nothing to apply but temperature: no copies, no candidates.
bool is_plain(const SamplingParams& p, const SamplerInput& input) {
  const bool all = p.temperature == 0 || (p.top_k == 0 && p.top_p == 1 && p.min_p == 0);
  return all && p.repetition_penalty == 1 && p.presence_penalty == 0 && p.frequency_penalty == 0 &&
         p.logit_bias.empty() && input.allowed.empty();
}

double sum_of(std::span<const float> x) {
  double lane[8] = {};
  size_t i = 0;
  for (; i + 8 <= x.size(); i += 8)
    for (size_t j = 0; j < 8; ++j) lane[j] += x[i + j];
  for (; i < x.size(); ++i) lane[0] += x[i];
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

// Where the running sum of weights reaches a share in (0, 1] of their total.
int32_t reached(std::span<const float> weight, double share) {
  constexpr size_t kBlock = 64;
  std::vector<double> sums;
  for (size_t i = 0; i < weight.size(); i += kBlock)
    sums.push_back(sum_of(weight.subspan(i, std::min(kBlock, weight.size() - i))));
  const double target = share * std::accumulate(sums.begin(), sums.end(), 0.0);
  double before = 0;
  size_t block = 0;
  while (block + 1 < sums.size() && before + sums[block] < target) before += sums[block++];
  size_t at = block * kBlock;
  const size_t end = std::min(at + kBlock, weight.size());
  while (at + 1 < end && (before += weight[at]) < target) ++at;
  while (at > 0 && weight[at] < kLeast) --at;  // rounding of the last sum
  return static_cast<int32_t>(at);
}

int32_t plain_sample(const SamplingParams& params, const SamplerInput& input, double share) {
  const std::span<const float> logits = real_logits(input);
  const float largest = checked_largest(logits);
  if (params.temperature == 0)  // the first on ties
    return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
  std::vector<float> weight(logits.size());
  infer_kernels().exponentials(logits.data(), largest, static_cast<float>(1 / params.temperature),
                               weight.data(), std::ssize(logits));
  return reached(weight, share);
}

}  // namespace

void check(const SamplingParams& p) {
  const auto within = [](double x, double low, double high) {
    return x >= low && x <= high;
  };  // false for NaN
  require(within(p.temperature, 0, 1e6), "temperature", p.temperature, "0 (greedy) to 1e6");
  require(p.top_k >= 0, "top_k", static_cast<double>(p.top_k), "0 (off) or more");
  require(within(p.top_p, 0, 1), "top_p", p.top_p, "0 to 1 (off)");
  require(within(p.min_p, 0, 1), "min_p", p.min_p, "0 (off) to 1");
  require(within(p.repetition_penalty, 1e-6, 1e6), "repetition_penalty", p.repetition_penalty,
          "1e-6 to 1e6; 1 is off");
  require(within(p.presence_penalty, -1e6, 1e6), "presence_penalty", p.presence_penalty,
          "-1e6 to 1e6; 0 is off");
  require(within(p.frequency_penalty, -1e6, 1e6), "frequency_penalty", p.frequency_penalty,
          "-1e6 to 1e6; 0 is off");
  for (const auto& [id, bias] : p.logit_bias)
    require(within(bias, -1e6, 1e6), "logit_bias", bias, "-1e6 to 1e6; 0 is off");
}

std::vector<float> probabilities(const SamplingParams& params, const SamplerInput& input) {
  const std::vector<Candidate> kept = candidates(params, input);
  double total = 0;
  for (const Candidate& c : kept) total += c.score;
  std::vector<float> probs(input.logits_W.size(), 0.0f);
  for (const Candidate& c : kept) probs[c.id] = static_cast<float>(c.score / total);
  return probs;
}

int32_t sample(const SamplingParams& params, const SamplerInput& input, uint64_t stream, uint64_t position) {
  check(params);
  const double share = uniform(params.seed, stream, position);  // in (0, 1]
  if (is_plain(params, input)) return plain_sample(params, input, share);
  const std::vector<Candidate> kept = candidates(params, input);
  double total = 0;
  for (const Candidate& c : kept) total += c.score;
  double before = 0;
  for (const Candidate& c : kept)
    if ((before += c.score) >= share * total) return c.id;
  return kept.back().id;  // rounding of the last sum
}

std::vector<TokenLogprob> logprobs(std::span<const float> logits, int32_t chosen, int64_t count) {
  const float largest = infer_kernels().largest(logits.data(), std::ssize(logits));
  std::vector<float> exponential(logits.size());
  const double sum =
      infer_kernels().exponentials(logits.data(), largest, 1, exponential.data(), std::ssize(logits));
  const double norm = largest + std::log(sum);
  const auto entry = [&](int32_t id) {
    return TokenLogprob{id, static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - norm)};
  };
  std::vector<TokenLogprob> out{entry(chosen)};
  if (count == 0) return out;
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto likeliest = ids.begin() + std::min<int64_t>(count, static_cast<int64_t>(ids.size()));
  std::partial_sort(ids.begin(), likeliest, ids.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (auto id = ids.begin(); id != likeliest; ++id) out.push_back(entry(*id));
  return out;
}

}  // namespace hadal
