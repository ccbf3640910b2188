#include "hadal/posttrain/preference_loss.h"

#include <cmath>

#include "hadal/base/check.h"

namespace hadal {
namespace {

double sigmoid(double x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}

double log_sigmoid(double x) {
  return x >= 0 ? -std::log1p(std::exp(-x)) : x - std::log1p(std::exp(x));
}

struct Term {
  double value, slope;
};

// Of one pair, in x = how much more the policy prefers the chosen answer than the reference does.
Term dpo_term(const DpoConfig& c, double x) {
  const double z = c.beta * x;
  switch (c.kind) {
    case DpoKind::kSigmoid:
      return {-log_sigmoid(z), -c.beta * sigmoid(-z)};
    case DpoKind::kHinge:
      return {std::max(0.0, 1 - z), z < 1 ? -c.beta : 0};
    case DpoKind::kIpo:
      return {std::pow(x - 1 / (2 * c.beta), 2), 2 * (x - 1 / (2 * c.beta))};
    case DpoKind::kRobust:
      break;
  }
  const double e = c.smoothing;
  return {(-log_sigmoid(z) * (1 - e) + log_sigmoid(-z) * e) / (1 - 2 * e),
          c.beta * (-sigmoid(-z) * (1 - e) - sigmoid(z) * e) / (1 - 2 * e)};
}

}  // namespace

PairLoss bradley_terry(std::span<const double> chosen, std::span<const double> rejected,
                       std::span<const double> margin, double center) {
  const size_t n = chosen.size();
  HADAL_CHECK(n > 0 && rejected.size() == n && (margin.empty() || margin.size() == n)) << n;
  PairLoss out;
  const double share = 1 / static_cast<double>(n);
  for (size_t i = 0; i < n; ++i) {
    const double x = chosen[i] - rejected[i] - (margin.empty() ? 0 : margin[i]);
    const double sum = chosen[i] + rejected[i], pull = 2 * center * sum;
    out.loss += share * (-log_sigmoid(x) + center * sum * sum);
    out.chosen.push_back(share * (-sigmoid(-x) + pull));
    out.rejected.push_back(share * (sigmoid(-x) + pull));
    out.accuracy += share * (chosen[i] > rejected[i]);
  }
  return out;
}

PairLoss dpo(const DpoConfig& config, std::span<const double> chosen, std::span<const double> rejected,
             std::span<const double> reference_chosen, std::span<const double> reference_rejected) {
  const size_t n = chosen.size();
  HADAL_CHECK(n > 0 && rejected.size() == n && reference_chosen.size() == n && reference_rejected.size() == n)
      << n;
  PairLoss out;
  const double share = 1 / static_cast<double>(n);
  for (size_t i = 0; i < n; ++i) {
    const double x = chosen[i] - rejected[i] - (reference_chosen[i] - reference_rejected[i]);
    const Term term = dpo_term(config, x);
    out.loss += share * term.value;
    out.chosen.push_back(share * term.slope);
    out.rejected.push_back(-share * term.slope);
    out.accuracy += share * (x > 0);
  }
  return out;
}

}  // namespace hadal
