// The losses of GRPO and its relatives, as numbers: the value, and its gradient with respect to each token's
// log probability. The trainer multiplies the gradient into the network; nothing here knows tensors.
// Torch-free; sums in double.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// How the tokens' losses are summed; what they are divided by is of the whole optimizer step.
enum class LossKind {
  kGrpo,    // mean over completions of the mean over their tokens (DeepSeekMath)
  kBnpo,    // by the trained tokens of the micro-batch: depends on its size
  kDrGrpo,  // by completions times the longest length allowed: no length bias (Dr. GRPO)
  kDapo,    // by the trained tokens of the step (DAPO)
  kCispo,   // as kDapo; the capped ratio is a constant before the log probability (MiniMax-M1)
};
enum class RatioLevel { kToken, kSequence };  // kSequence: exp of the completion's mean log ratio (GSPO)
enum class KlEstimate { kK1, kK2, kK3 };      // log p/ref; half its square; exp(d) - d - 1, d = log ref/p

struct PolicyLossConfig {
  LossKind kind = LossKind::kDapo;
  RatioLevel level = RatioLevel::kToken;
  double eps_low = 0.2, eps_high = 0.2;  // the ratio is clipped to [1 - low, 1 + high]; kCispo: at most high
  double delta = 0;                      // the unclipped ratio is at most this (INTELLECT-2); 0: not capped
  double dual_clip = 0;  // negative advantages: a token's loss is at most this times |A|; 0: not capped
  double beta = 0;       // of the KL term to the reference
  KlEstimate kl = KlEstimate::kK3;
  bool kl_ratio = true;    // times the ratio: its gradient is then the reverse KL's (V3.2)
  int64_t max_length = 0;  // kDrGrpo: tokens of a completion at most
};

// Completions one after the other; completion i has tokens [begin[i], begin[i + 1]).
struct PolicyBatch {
  std::span<const int64_t> begin;          // [completions + 1]
  std::span<const double> logp;            // of the policy that is trained
  std::span<const double> old_logp;        // of the policy that sampled
  std::span<const double> reference_logp;  // empty: beta is 0
  std::span<const uint8_t> mask;           // 1: trained
  std::span<const double> advantage;       // [completions]
};

// What sums are divided by; 0: this batch is the whole step.
struct PolicyDivisor {
  int64_t completions = 0, tokens = 0, micro_batches = 0;
};

struct PolicyLoss {
  double loss = 0;
  std::vector<double> token_loss;  // before the division, 0 where masked
  std::vector<double> gradient;    // d loss / d logp
  // Over the trained tokens:
  int64_t tokens = 0;
  double kl_sum = 0;                          // of the estimate, without beta and ratio
  int64_t clipped_low = 0, clipped_high = 0;  // where clipping took the gradient away
};
PolicyLoss policy_loss(const PolicyLossConfig& config, const PolicyBatch& batch,
                       const PolicyDivisor& divisor = {});

// Trained tokens of a batch: what PolicyDivisor::tokens sums.
int64_t count_trained(std::span<const uint8_t> mask);

}  // namespace hadal
