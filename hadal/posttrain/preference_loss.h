// Losses on pairs of answers, the better and the worse: Bradley-Terry for reward models, DPO for policies. As
// numbers and gradients; torch-free, in double.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace hadal {

struct PairLoss {
  double loss = 0;                       // mean over the pairs
  std::vector<double> chosen, rejected;  // gradient with respect to each score
  double accuracy = 0;                   // share of pairs in which the chosen one scores higher; ties: 0
};

// -log sigmoid(chosen - rejected - margin) + center (chosen + rejected)^2, mean over pairs. margin: of each
// pair, or empty.
PairLoss bradley_terry(std::span<const double> chosen, std::span<const double> rejected,
                       std::span<const double> margin = {}, double center = 0);

enum class DpoKind { kSigmoid, kHinge, kIpo, kRobust };
struct DpoConfig {
  DpoKind kind = DpoKind::kSigmoid;
  double beta = 0.1;
  double smoothing = 0;  // kRobust: share of pairs believed to be the wrong way round
};

// Log probabilities of whole completions, of policy and reference: sums over their tokens, for kIpo means.
PairLoss dpo(const DpoConfig& config, std::span<const double> chosen, std::span<const double> rejected,
             std::span<const double> reference_chosen, std::span<const double> reference_rejected);

}  // namespace hadal
