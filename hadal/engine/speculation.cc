#include "hadal/engine/speculation.h"

#include <algorithm>

#include "hadal/base/check.h"
#include "hadal/base/random.h"

namespace hadal {

double draw(const DrawKey& key, DrawPurpose purpose) {
  return uniform(key.seed, key.stream, key.position | static_cast<uint64_t>(purpose) << 56);
}

int32_t draw_token(std::span<const float> weights, const DrawKey& key, DrawPurpose purpose) {
  double total = 0;
  for (const float w : weights) total += w;
  const double target = total * draw(key, purpose);  // in (0, total]
  double reached = 0;
  int32_t last = -1;  // for the rounding of the last sum
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    last = static_cast<int32_t>(i);
    reached += weights[i];
    if (reached >= target) break;
  }
  HADAL_CHECK(last >= 0) << "no token has a weight above 0";
  return last;
}

std::vector<int32_t> verify(std::span<const int32_t> drafts,
                            const std::function<ModelToken(int64_t)>& choose) {
  std::vector<int32_t> tokens;
  for (size_t row = 0;; ++row) {
    const ModelToken token = choose(static_cast<int64_t>(row));
    tokens.push_back(token.id);
    if (token.last || row == drafts.size() || token.id != drafts[row]) return tokens;
  }
}

namespace {

// Of p when the draft fell. Rounding may leave nothing, if p and q are all but equal: then any token of p.
Verdict replacement(std::span<const float> p, const std::vector<float>& rest, const DrawKey& key) {
  const bool any = std::any_of(rest.begin(), rest.end(), [](float w) { return w > 0; });
  return {false, draw_token(any ? std::span<const float>(rest) : p, key, DrawPurpose::kResample)};
}

}  // namespace

Verdict verify_point_mass(std::span<const float> p, int32_t draft, const DrawKey& key) {
  const size_t d = static_cast<size_t>(draft);
  HADAL_CHECK(draft >= 0 && d < p.size()) << "draft " << draft << " of " << p.size() << " tokens";
  if (draw(key, DrawPurpose::kAcceptance) <= p[d]) return {true, draft};
  std::vector<float> rest(p.begin(), p.end());
  rest[d] = 0;
  return replacement(p, rest, key);
}

Verdict verify_drawn(std::span<const float> p, std::span<const float> q, int32_t draft, const DrawKey& key) {
  const size_t d = static_cast<size_t>(draft);
  HADAL_CHECK(p.size() == q.size()) << "the draft has " << q.size() << " tokens, the model " << p.size();
  HADAL_CHECK(draft >= 0 && d < p.size() && q[d] > 0) << "draft " << draft << " cannot be drawn from q";
  if (draw(key, DrawPurpose::kAcceptance) * q[d] <= p[d]) return {true, draft};
  std::vector<float> rest(p.size());
  for (size_t i = 0; i < p.size(); ++i) rest[i] = std::max(p[i] - q[i], 0.0f);
  return replacement(p, rest, key);
}

}  // namespace hadal
