// Log probabilities of answers that are already there, by inference's own forward pass: the same bits as when
// they were sampled. Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "hadal/network/network.h"
#include "hadal/posttrain/rollout.h"

namespace hadal {

struct ScoredSample {
  std::vector<float> logp;  // of each token of the answer, temperature 1: as the engine reports them
  std::vector<double> at_temperature;  // the same of the distribution that was sampled from
  // Of each MoE layer: [tokens of prompt and answer but the last, A], the experts chosen.
  std::vector<std::vector<int32_t>> experts;
};

// The same at temperature 1 without a pass, from what the engine noted when it wrote the sample: its
// log probabilities and experts; those of the prompt are `sibling`'s, which has the same prompt. Not for
// samples with replies, which nobody computed on their own. `sibling` without experts: none.
ScoredSample as_sampled(const Sample& sample, const ScoredSample& sibling);

class Scorer {
 public:
  // The weights' owners are kept; what is written to them later is seen.
  Scorer(NetworkWeights weights, int threads);

  // Samples of at least one token.
  std::vector<ScoredSample> score(std::span<const Sample* const> samples, double temperature);

 private:
  void score_some(std::span<const Sample* const> samples, double temperature, std::span<ScoredSample> out);
  WorkerPool pool_;
  Network network_;
};

}  // namespace hadal
