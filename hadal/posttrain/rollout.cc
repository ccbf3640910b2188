#include "hadal/posttrain/rollout.h"

#include <unordered_map>

#include "hadal/base/check.h"
#include "hadal/base/random.h"
#include "hadal/network/latent_pages.h"

namespace hadal {
namespace {

class Rollout {
 public:
  Rollout(Engine& engine, std::span<const SampleRequest> requests)
      : engine_(engine), requests_(requests), samples_(requests.size()) {}

  // Whole pages of a prompt can be shared only once they are computed.
  std::vector<Sample> all() {
    std::vector<size_t> later;
    const std::vector<int32_t>* last = nullptr;
    for (size_t i = 0; i < requests_.size(); ++i) {
      const auto& prompt = requests_[i].prompt;
      const bool follows = prompt.get() == last && std::ssize(*prompt) > kPageTokens;
      last = prompt.get();
      follows ? later.push_back(i) : submit(i);
    }
    while (first_tokens_ < running_.size() && !later.empty() && !engine_.idle()) step();
    for (const size_t i : later) submit(i);
    while (!engine_.idle()) step();
    return std::move(samples_);
  }

 private:
  void submit(size_t i) {
    const SampleRequest& r = requests_[i];
    samples_[i].prompt = r.prompt;
    const RequestId id = engine_.submit({.prompt = *r.prompt,
                                         .max_tokens = r.max_tokens,
                                         .sampling = r.sampling,
                                         .top_logprobs = 0,
                                         .want_end = true,
                                         .want_experts = true});
    running_[id] = i;
  }

  void step() {
    for (Delta& delta : engine_.step()) {
      Sample& sample = samples_[running_.at(delta.request)];
      first_tokens_ += sample.ids.empty() && !delta.tokens.empty();
      for (const NewToken& token : delta.tokens) {
        sample.ids.push_back(token.id);
        sample.logp.push_back(token.logprobs.front().logprob);
        sample.experts.insert(sample.experts.end(), token.experts.begin(), token.experts.end());
      }
      sample.text += delta.text;
      if (delta.finished) sample.reason = *delta.finished;
    }
  }

  Engine& engine_;
  std::span<const SampleRequest> requests_;
  std::vector<Sample> samples_;
  std::unordered_map<RequestId, size_t> running_;
  size_t first_tokens_ = 0;
};

}  // namespace

std::vector<Sample> sample_all(Engine& engine, std::span<const SampleRequest> requests) {
  return Rollout(engine, requests).all();
}

uint64_t sample_seed(uint64_t run_seed, int64_t draw, int64_t index) {
  const auto words = philox(run_seed, static_cast<uint64_t>(draw), static_cast<uint64_t>(index));
  return static_cast<uint64_t>(words[0]) << 32 | words[1];
}

}  // namespace hadal
