#include "hadal/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

struct Candidate {
  double score;  // logit after penalties and temperature, then exp(score - largest)
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

// The logits in double, padding masked. Refuses what no model computes in good order.
std::vector<double> read_logits(const SamplerInput& input) {
  const int64_t W = static_cast<int64_t>(input.logits_W.size());
  const int64_t num_tokens = input.num_tokens < 0 ? W : input.num_tokens;
  if (num_tokens < 1 || num_tokens > W)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[sampler.logits] the tokenizer has ", num_tokens, " tokens, the model ", W,
                    " rows: need 1..", W, ". This tokenizer is not this model's."));
  std::vector<double> logits(W, kNever);
  bool any = false;
  const auto allowed = [&](int64_t i) {
    return input.allowed.empty() || (input.allowed[static_cast<size_t>(i / 64)] >> (i % 64) & 1);
  };
  for (int64_t i = 0; i < num_tokens; ++i) {
    if (!allowed(i)) continue;
    const float x = input.logits_W[i];
    if (std::isnan(x) || x == std::numeric_limits<float>::infinity())
      throw Error(ErrorCode::kInternal,
                  cat("[sampler.logits] logit of token ", i, " is ", x,
                      ": need finite values. The weights are damaged or the arithmetic overflowed."));
    logits[i] = x;
    any = any || x != -std::numeric_limits<float>::infinity();
  }
  if (!any)
    throw Error(ErrorCode::kInternal,
                "[sampler.logits] every token has logit -inf or is not allowed: none can be chosen.");
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

void apply_penalties(const SamplingParams& params, const SamplerInput& input, std::vector<double>& logits) {
  if (params.repetition_penalty == 1 && params.presence_penalty == 0 && params.frequency_penalty == 0) return;
  std::unordered_map<int32_t, int64_t> seen, made;
  count(input.generated, logits.size(), made);
  seen = made;
  count(input.prompt, logits.size(), seen);
  for (const auto& [id, unused] : seen)
    logits[id] =
        logits[id] < 0 ? logits[id] * params.repetition_penalty : logits[id] / params.repetition_penalty;
  for (const auto& [id, times] : made)
    logits[id] -= params.presence_penalty + params.frequency_penalty * static_cast<double>(times);
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
  std::vector<double> logits = read_logits(input);
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size())
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[sampler.logit_bias] token id ", id, ": need 0..", logits.size() - 1, "."));
    logits[static_cast<size_t>(id)] += bias;
  }
  apply_penalties(params, input, logits);
  const size_t best = std::max_element(logits.begin(), logits.end()) - logits.begin();  // the first on ties
  if (params.temperature == 0) return {{1.0, static_cast<int32_t>(best)}};

  const double largest = logits[best];
  double lowest = kNever;  // of those that top-k keeps
  if (params.top_k > 0 && params.top_k < static_cast<int64_t>(logits.size())) {
    std::vector<double> ordered = logits;
    std::nth_element(ordered.begin(), ordered.begin() + (params.top_k - 1), ordered.end(), std::greater<>());
    lowest = ordered[params.top_k - 1];
  }
  std::vector<Candidate> kept;
  if (lowest == kNever) kept.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kNever || logits[i] < lowest) continue;
    kept.push_back({std::exp((logits[i] - largest) / params.temperature), static_cast<int32_t>(i)});
  }
  if (params.top_p < 1) keep_top_p(params.top_p, kept);
  std::erase_if(kept, [&](const Candidate& c) { return c.score < params.min_p; });  // the largest is 1
  return kept;
}

// Greedy choice with nothing to apply: one pass, no copy.
bool is_plain_greedy(const SamplingParams& p, const SamplerInput& input) {
  return p.temperature == 0 && p.repetition_penalty == 1 && p.presence_penalty == 0 &&
         p.frequency_penalty == 0 && p.logit_bias.empty() && input.allowed.empty();
}

// The largest logit, the first on ties; -1 if one of them must be refused (candidates() says which).
int32_t argmax(const SamplerInput& input) {
  const size_t n = input.num_tokens < 0 ? input.logits_W.size() : static_cast<size_t>(input.num_tokens);
  if (n == 0 || n > input.logits_W.size()) return -1;
  const std::span<const float> logits = input.logits_W.first(n);
  float largest = -std::numeric_limits<float>::infinity();
  bool nan = false;
  for (const float x : logits) {
    largest = x > largest ? x : largest;
    nan |= x != x;
  }
  if (nan || std::isinf(largest)) return -1;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
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
  if (is_plain_greedy(params, input)) {
    check(params);
    if (const int32_t best = argmax(input); best >= 0) return best;
  }
  const std::vector<Candidate> kept = candidates(params, input);
  double total = 0;
  for (const Candidate& c : kept) total += c.score;
  const double target = total * uniform(params.seed, stream, position);  // in (0, total]
  double reached = 0;
  for (const Candidate& c : kept) {
    reached += c.score;
    if (reached >= target) return c.id;
  }
  return kept.back().id;  // rounding of the last sum
}

std::vector<TokenLogprob> logprobs(std::span<const float> logits, int32_t chosen, int64_t count) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x - largest));
  const double norm = static_cast<double>(largest) + std::log(total);
  const auto entry = [&](int32_t id) {
    return TokenLogprob{id, static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - norm)};
  };
  std::vector<TokenLogprob> out{entry(chosen)};
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
