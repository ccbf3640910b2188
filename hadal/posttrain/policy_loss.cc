#include "hadal/posttrain/policy_loss.h"

#include <algorithm>
#include <cmath>

#include "hadal/base/check.h"

namespace hadal {
namespace {

constexpr double kMaxLogRatio = 20;  // beyond it the ratio is taken as constant

// A value and its derivative with respect to one variable.
struct Term {
  double value = 0, slope = 0;
};

Term ratio_of(double log_ratio) {
  const double ratio = std::exp(std::clamp(log_ratio, -kMaxLogRatio, kMaxLogRatio));
  return {ratio, std::abs(log_ratio) > kMaxLogRatio ? 0 : ratio};
}

// The estimate at one token; the slope is in logp.
Term kl_term(KlEstimate kind, double logp, double reference) {
  const double raw = reference - logp, d = std::clamp(raw, -kMaxLogRatio, kMaxLogRatio);
  const double inside = raw == d ? 1 : 0;
  if (kind == KlEstimate::kK1) return {-d, inside};
  if (kind == KlEstimate::kK2) return {0.5 * d * d, -d * inside};
  return {std::exp(d) - d - 1, (1 - std::exp(d)) * inside};
}

// min of clipped and unclipped objective; the slope is in the ratio.
Term clipped_term(const PolicyLossConfig& c, double ratio, double A) {
  const bool capped = c.delta > 0 && ratio > c.delta;
  const double unclipped = (capped ? c.delta : ratio) * A;
  const double clipped = std::clamp(ratio, 1 - c.eps_low, 1 + c.eps_high) * A;
  const bool outside = ratio < 1 - c.eps_low || ratio > 1 + c.eps_high;
  Term out{-std::min(unclipped, clipped), -A};
  if ((outside && clipped <= unclipped) || (capped && unclipped < clipped)) out.slope = 0;
  if (c.dual_clip > 0 && A < 0 && out.value > c.dual_clip * -A) out = {c.dual_clip * -A, 0};
  return out;
}

class Sum {
 public:
  Sum(const PolicyLossConfig& config, const PolicyBatch& batch, const PolicyDivisor& divisor)
      : c_(config), b_(batch), divisor_(divisor) {
    const int64_t completions = std::ssize(b_.begin) - 1;
    tokens_ = count_trained(b_.mask);
    if (divisor_.completions == 0) divisor_.completions = completions;
    if (divisor_.tokens == 0) divisor_.tokens = tokens_;
    if (divisor_.micro_batches == 0) divisor_.micro_batches = 1;
    out_.token_loss.resize(b_.logp.size());
    out_.gradient.resize(b_.logp.size());
    out_.tokens = tokens_;
  }

  PolicyLoss all() {
    for (int64_t i = 0; i + 1 < std::ssize(b_.begin); ++i) completion(static_cast<size_t>(i));
    return std::move(out_);
  }

 private:
  // What one token's loss counts in the sum.
  double weight(int64_t trained) const {
    const auto over = [](int64_t n) { return 1.0 / static_cast<double>(std::max<int64_t>(1, n)); };
    switch (c_.kind) {
      case LossKind::kGrpo:
        return over(trained) * over(divisor_.completions);
      case LossKind::kBnpo:
        return over(tokens_) * over(divisor_.micro_batches);
      case LossKind::kDrGrpo:
        return over(divisor_.completions) * over(c_.max_length);
      default:
        return over(divisor_.tokens);
    }
  }

  void completion(size_t i) {
    const auto first = static_cast<size_t>(b_.begin[i]), last = static_cast<size_t>(b_.begin[i + 1]);
    int64_t trained = 0;
    double log_ratio_sum = 0;
    for (size_t t = first; t < last; ++t)
      if (b_.mask[t]) ++trained, log_ratio_sum += b_.logp[t] - b_.old_logp[t];
    if (trained == 0) return;
    const bool whole = c_.level == RatioLevel::kSequence;
    const double w = weight(trained), mean = log_ratio_sum / static_cast<double>(trained);
    const Term shared = ratio_of(mean);
    double shared_slope = 0;  // of the loss in the completion's ratio
    for (size_t t = first; t < last; ++t) {
      if (!b_.mask[t]) continue;
      const Term ratio = whole ? shared : ratio_of(b_.logp[t] - b_.old_logp[t]);
      const double in_ratio = token(t, i, w, ratio.value);
      whole ? shared_slope += in_ratio : out_.gradient[t] += in_ratio * ratio.slope;
    }
    if (!whole) return;
    for (size_t t = first; t < last; ++t)
      if (b_.mask[t]) out_.gradient[t] += shared_slope * shared.slope / static_cast<double>(trained);
  }

  // Adds one token's loss, and to its gradient what does not pass through the ratio. Returns the rest: the
  // slope in the ratio.
  double token(size_t t, size_t i, double w, double ratio) {
    const double A = b_.advantage[i];
    double loss, in_ratio = 0;
    if (c_.kind == LossKind::kCispo) {
      const double factor = -std::min(ratio, c_.eps_high) * A;
      loss = factor * b_.logp[t];
      out_.gradient[t] += w * factor;
    } else {
      const Term policy = clipped_term(c_, ratio, A);
      loss = policy.value;
      in_ratio = policy.slope;
      out_.clipped_low += ratio < 1 - c_.eps_low && A < 0;
      out_.clipped_high += ratio > 1 + c_.eps_high && A > 0;
    }
    if (!b_.reference_logp.empty()) {
      const Term kl = kl_term(c_.kl, b_.logp[t], b_.reference_logp[t]);
      const double factor = c_.beta * (c_.kl_ratio ? ratio : 1);
      out_.kl_sum += kl.value;
      loss += factor * kl.value;
      out_.gradient[t] += w * factor * kl.slope;
      if (c_.kl_ratio) in_ratio += c_.beta * kl.value;
    }
    out_.token_loss[t] = loss;
    out_.loss += w * loss;
    return w * in_ratio;
  }

  const PolicyLossConfig& c_;
  const PolicyBatch& b_;
  PolicyDivisor divisor_;
  int64_t tokens_ = 0;
  PolicyLoss out_;
};

}  // namespace

int64_t count_trained(std::span<const uint8_t> mask) {
  return std::count_if(mask.begin(), mask.end(), [](uint8_t m) { return m != 0; });
}

PolicyLoss policy_loss(const PolicyLossConfig& config, const PolicyBatch& batch,
                       const PolicyDivisor& divisor) {
  const size_t n = batch.logp.size();
  HADAL_CHECK(batch.old_logp.size() == n && batch.mask.size() == n) << n;
  HADAL_CHECK(batch.reference_logp.empty() || batch.reference_logp.size() == n) << n;
  HADAL_CHECK(batch.begin.size() == batch.advantage.size() + 1) << batch.begin.size();
  return Sum(config, batch, divisor).all();
}

}  // namespace hadal
