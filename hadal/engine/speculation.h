// Which drafted tokens stand. Torch-free, pure: every draw is a function of (seed, stream, position,
// purpose).
//
// The default, verify(), is stronger than "the distribution is that of the model". At each position the
// model's own token x is chosen exactly as without speculation: the largest logit, or the draw that sample()
// makes at that position, from the same counter. A draft d stands if and only if x == d; else x takes its
// place and what was drafted behind it is dropped. So with equal logits the tokens are the same with
// speculation on and off, sampling included, whatever the drafts are: bad ones cost time only. Nothing is
// lost against the published rule for a point mass: P(x == d) = p(d) is its probability of acceptance, and
// given x != d, x has the distribution p without d, renormalised.
//
// Drafts may be drawn with the model's own counter: sample(params, draft logits, stream, position). If the
// draft's distribution q is near p, the same draw then mostly gives the same token, and if q = p always,
// where the likeliest token would stand with its probability only.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace hadal {

// What a draw at a position is for. kToken is the counter of sampler.h's sample().
enum class DrawPurpose : uint8_t { kToken = 0, kAcceptance = 1, kResample = 2, kDraft = 3 };

struct DrawKey {
  uint64_t seed = 0;
  uint64_t stream = 0;    // the request
  uint64_t position = 0;  // index of the token in it, below 2^56
};

// In (0, 1].
double draw(const DrawKey& key, DrawPurpose purpose);
// A token of weights_W (>= 0, sum > 0, not necessarily 1). Throws internal if none is above 0.
int32_t draw_token(std::span<const float> weights_W, const DrawKey& key, DrawPurpose purpose);

// What the model itself chooses at a row.
struct ModelToken {
  int32_t id = 0;
  bool last = false;  // the answer ends with it
};

// The tokens of a step: the drafts that stand, then the model's own next one. choose(i) gives the model's
// token behind the first i drafts (row i of the step). It is called for i = 0, 1, .. in order; each token it
// returns stands, and the next call comes only if the token was the draft and not the last. So penalties,
// grammars and stop strings see at row i exactly what they would see without speculation.
std::vector<int32_t> verify(std::span<const int32_t> drafts,
                            const std::function<ModelToken(int64_t)>& choose);

struct Verdict {
  bool accepted = false;
  int32_t token = 0;  // the draft, or what takes its place
};

// The published rules, for comparison and for drafts whose distribution is kept; equal to the model in
// distribution only. Probabilities after temperature, top-k, top-p and the rest.
//
// The draft was chosen without chance: stands with probability p(d), else p without d.
Verdict verify_point_mass(std::span<const float> p_W, int32_t draft, const DrawKey& key);
// The draft was drawn from q by draw_token(q_W, key, kDraft): stands with probability min(1, p(d) / q(d)),
// else max(p - q, 0), renormalised. Leviathan, Kalman, Matias, 2023.
Verdict verify_drawn(std::span<const float> p_W, std::span<const float> q_W, int32_t draft,
                     const DrawKey& key);

}  // namespace hadal
