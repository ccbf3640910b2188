#include "hadal/posttrain/rollout.h"

#include <algorithm>
#include <unordered_map>

#include "hadal/base/check.h"
#include "hadal/base/random.h"
#include "hadal/network/latent_pages.h"

namespace hadal {
namespace {

class Rollout {
 public:
  Rollout(Engine& engine, std::span<const SampleRequest> requests, const NewEpisode& episode)
      : engine_(engine), requests_(requests), samples_(requests.size()) {
    for (size_t i = 0; episode && i < requests.size(); ++i) {
      episodes_.push_back(episode());
      samples_[i].turns = 1;
    }
  }

  // Whole pages of a prompt can be shared only once they are computed.
  std::vector<Sample> all() {
    std::vector<size_t> later;
    const std::vector<int32_t>* last = nullptr;
    size_t ahead = 0;
    for (size_t i = 0; i < requests_.size(); ++i) {
      const auto& prompt = requests_[i].prompt;
      const bool follows = prompt.get() == last && std::ssize(*prompt) > kPageTokens;
      last = prompt.get();
      follows ? later.push_back(i) : (++ahead, submit(i));
    }
    while (first_tokens_ < ahead && !later.empty() && !engine_.idle()) step();
    for (const size_t i : later) submit(i);
    while (!engine_.idle()) step();
    return std::move(samples_);
  }

 private:
  // The next turn of sample i, behind all tokens there are.
  void submit(size_t i) {
    const SampleRequest& r = requests_[i];
    Sample& sample = samples_[i];
    sample.prompt = r.prompt;
    std::vector<int32_t> ids = *r.prompt;
    ids.insert(ids.end(), sample.ids.begin(), sample.ids.end());
    SamplingParams sampling = r.sampling;
    if (sample.turns > 1) sampling.seed = sample_seed(r.sampling.seed, sample.turns, 0);
    const RequestId id = engine_.submit({.prompt = std::move(ids),
                                         .max_tokens = r.max_tokens - std::ssize(sample.ids),
                                         .sampling = sampling,
                                         .top_logprobs = 0,
                                         .want_end = true,
                                         .want_experts = r.want_experts});
    running_[id] = i;
  }

  void step() {
    for (Delta& delta : engine_.step()) {
      const size_t i = running_.at(delta.request);
      Sample& sample = samples_[i];
      first_tokens_ += sample.ids.empty() && !delta.tokens.empty();
      for (const NewToken& token : delta.tokens) {
        sample.ids.push_back(token.id);
        sample.logp.push_back(token.logprobs.front().logprob);
        sample.experts.insert(sample.experts.end(), token.experts.begin(), token.experts.end());
        if (!sample.written.empty()) sample.written.push_back(1);
      }
      sample.text += delta.text;
      if (delta.finished) end_turn(i, *delta.finished);
    }
  }

  void end_turn(size_t i, FinishReason reason) {
    Sample& sample = samples_[i];
    sample.reason = reason;
    if (episodes_.empty() || reason != FinishReason::kEndToken) return;
    const auto turn = std::span(sample.ids).subspan(sample.turn_ids);
    const std::optional<Reply> reply = episodes_[i](turn.first(turn.size() - 1));
    if (!reply) return;
    sample.calls += reply->calls, sample.failed_calls += reply->failed_calls;
    const int64_t length = std::ssize(sample.ids) + std::ssize(reply->ids);
    if (reply->is_cut || length >= requests_[i].max_tokens) {
      sample.reason = FinishReason::kMaxTokens;
      return;
    }
    const size_t experts = sample.experts.size() / sample.ids.size(), added = reply->ids.size();
    sample.written.resize(sample.ids.size(), 1);
    sample.written.resize(sample.ids.size() + added, 0);
    sample.ids.insert(sample.ids.end(), reply->ids.begin(), reply->ids.end());
    sample.logp.resize(sample.ids.size(), 0);
    sample.experts.resize(sample.ids.size() * experts, -1);
    sample.text += reply->text;
    sample.turn_ids = sample.ids.size(), sample.turn_text = sample.text.size();
    ++sample.turns;
    submit(i);
  }

  Engine& engine_;
  std::span<const SampleRequest> requests_;
  std::vector<Sample> samples_;
  std::vector<Episode> episodes_;  // of each sample, or none
  std::unordered_map<RequestId, size_t> running_;
  size_t first_tokens_ = 0;
};

}  // namespace

int64_t Sample::num_written() const {
  return written.empty() ? std::ssize(ids) : std::count(written.begin(), written.end(), uint8_t{1});
}

std::vector<Sample> sample_all(Engine& engine, std::span<const SampleRequest> requests,
                               const NewEpisode& episode) {
  return Rollout(engine, requests, episode).all();
}

uint64_t sample_seed(uint64_t run_seed, int64_t draw, int64_t index) {
  const auto words = philox(run_seed, static_cast<uint64_t>(draw), static_cast<uint64_t>(index));
  return static_cast<uint64_t>(words[0]) << 32 | words[1];
}

}  // namespace hadal
