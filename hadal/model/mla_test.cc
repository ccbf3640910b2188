#include "hadal/model/mla.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hadal/model/weights.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

ModelConfig config_of(int64_t query_latent) {
  ModelConfig c;
  c.vocab_size = 10, c.width = 24, c.num_layers = 1, c.dense_dim = 8, c.init_std = 0.3;
  c.mla = {.num_heads = 3,
           .query_latent = query_latent,
           .kv_latent = 12,
           .nope_dim = 6,
           .rope_dim = 4,
           .value_dim = 5};
  return c;
}

Tensor noise(at::IntArrayRef shape, double from) {
  return (arange(0, 1'000'000).narrow(0, 0, c10::multiply_integers(shape)).to(at::kFloat) * 0.7 + from)
      .sin()
      .view(shape);
}

// The definition, position by position and head by head, in double.
Tensor attention_by_loops(const MlaConfig& mla, const MlaWeights& w, const MlaQuery& q,
                          const Tensor& latent_BLC, const Tensor& rope_key_BLR, double scale) {
  const int64_t B = latent_BLC.size(0), L = latent_BLC.size(1), S = q.q_nope_BSHN.size(1), H = mla.num_heads;
  const int64_t N = mla.nope_dim, V = mla.value_dim;
  Tensor out_BSHV = zeros({B, S, H, V}, at::kDouble);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t h = 0; h < H; ++h) {
      const Tensor rows = w.kv_up.narrow(0, h * (N + V), N + V).to(at::kDouble);
      const Tensor kv_LX = latent_BLC[b].to(at::kDouble).matmul(rows.t());
      for (int64_t s = 0; s < S; ++s) {
        std::vector<double> weight;
        double sum = 0;
        for (int64_t l = 0; l <= L - S + s; ++l) {
          const Tensor nope = (q.q_nope_BSHN[b][s][h].to(at::kDouble) * kv_LX[l].narrow(0, 0, N)).sum();
          const Tensor turned =
              (q.q_rope_BSHR[b][s][h].to(at::kDouble) * rope_key_BLR[b][l].to(at::kDouble)).sum();
          weight.push_back(std::exp(scale * (nope + turned).item<double>()));
          sum += weight.back();
        }
        for (size_t l = 0; l < weight.size(); ++l)
          out_BSHV[b][s][h].add_(kv_LX[static_cast<int64_t>(l)].narrow(0, N, V), weight[l] / sum);
      }
    }
  return out_BSHV;
}

TEST(Mla, BothFormsEqualTheDefinitionForPromptChunkAndDecode) {
  for (const int64_t Q : {0, 8}) {
    const ModelConfig c = config_of(Q);
    const ModelWeights weights = random_weights(c, 5);
    const MlaWeights& w = weights.layers[0].mla;
    const int64_t L = 7;
    const Tensor x_BLD = noise({2, L, c.width}, 0.1);
    const LatentRow row = project_latent(c.mla, w, x_BLD, rope_angles(c.mla, arange(0, L)));
    for (const int64_t S : {L, int64_t{3}, int64_t{1}}) {  // whole prompt, chunk after 4 cached, decode
      const MlaQuery q =
          project_query(c.mla, w, x_BLD.narrow(1, L - S, S), rope_angles(c.mla, arange(L - S, L)));
      const Tensor want = attention_by_loops(c.mla, w, q, row.latent_BSC, row.rope_key_BSR, 0.4);
      for (const auto form : {mla_expanded, mla_absorbed}) {
        const Tensor got = form(c.mla, w, q, row.latent_BSC, row.rope_key_BSR, 0.4);
        EXPECT_LE((got - want).abs().max().item<double>(), 2e-6)
            << "Q " << Q << " S " << S;  // fp32 sums of 12 terms
      }
    }
  }
}

TEST(Mla, CachedRowIsTheNormedLatentAndTheRotatedKey) {
  const ModelConfig c = config_of(8);
  const ModelWeights weights = random_weights(c, 5);
  const MlaWeights& w = weights.layers[0].mla;
  const Tensor x = noise({1, 1, c.width}, 0.2);
  const LatentRow at_0 = project_latent(c.mla, w, x, rope_angles(c.mla, arange(0, 1)));
  const LatentRow at_9 = project_latent(c.mla, w, x, rope_angles(c.mla, arange(9, 10)));
  EXPECT_TRUE(at_0.latent_BSC.equal(at_9.latent_BSC));  // no position in it
  EXPECT_FALSE(at_0.rope_key_BSR.allclose(at_9.rope_key_BSR));
  EXPECT_NEAR(at_0.latent_BSC.pow(2).mean().item<double>(), 1.0, 1e-4);  // normed: gain is 1
  const Tensor raw = x.matmul(w.kv_down.t()).narrow(-1, c.mla.kv_latent, c.mla.rope_dim);
  EXPECT_TRUE(at_0.rope_key_BSR.equal(raw));  // position 0 does not turn, and the key is not normed
}

TEST(Mla, ScoresDependOnDistanceOnly) {
  const ModelConfig c = config_of(0);
  const ModelWeights weights = random_weights(c, 6);
  const MlaWeights& w = weights.layers[0].mla;
  const Tensor x = noise({1, 5, c.width}, 0.3);
  const auto run = [&](int64_t first) {
    const RopeAngles angles = rope_angles(c.mla, arange(first, first + 5));
    const LatentRow row = project_latent(c.mla, w, x, angles);
    return mla_absorbed(c.mla, w, project_query(c.mla, w, x, angles), row.latent_BSC, row.rope_key_BSR, 0.4);
  };
  EXPECT_LE((run(0) - run(1000)).abs().max().item<double>(), 1e-4);  // fp32 angles near 1000
}

}  // namespace
}  // namespace hadal
