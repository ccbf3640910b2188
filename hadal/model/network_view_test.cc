#include "hadal/model/network_view.h"

#include <gtest/gtest.h>

#include <numeric>

#include "hadal/model/transformer.h"
#include "hadal/network/network.h"
#include "hadal/tensor/make.h"
#include "tests/support/small_model.h"

namespace hadal {
namespace {

// Long enough for three splits of keys and several groups of queries.
constexpr int64_t kTokens = 600;

ModelConfig long_model() {
  ModelConfig c = small_model();
  c.max_positions = 1024, c.init_std = 0.2;
  return c;
}

std::vector<int32_t> some_ids(int64_t n, int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>((i * i * 31 + i * 7) % vocab_size));
  return ids;
}

struct Fed {
  std::vector<float> hidden, mtp;
};

// Feeds the ids in pieces of the given sizes, the last one repeated, MTP beside it.
Fed feed(Network& network, const std::vector<int32_t>& ids, const std::vector<int64_t>& pieces) {
  const int64_t n = static_cast<int64_t>(ids.size()) - 1, D = network.config().width;
  std::vector<int32_t> page_ids(static_cast<size_t>((n + kPageTokens - 1) / kPageTokens));
  std::iota(page_ids.rbegin(), page_ids.rend(), 0);
  LatentPages pages(network.config().mla, network.config().num_layers + 1,
                    static_cast<int64_t>(page_ids.size()), CacheFormat::kF32);
  Fed out;
  size_t piece = 0;
  for (int64_t at = 0; at < n;) {
    const int64_t count = std::min(n - at, pieces[std::min(piece++, pieces.size() - 1)]);
    const SequenceRows rows{at, count, page_ids};
    const std::span<const int32_t> all(ids);
    const float* hidden =
        network.forward(all.subspan(static_cast<size_t>(at), static_cast<size_t>(count)), {&rows, 1}, pages);
    const std::vector<float> copy(hidden, hidden + count * D);
    const float* mtp =
        network.mtp(0, copy.data(), all.subspan(static_cast<size_t>(at + 1), static_cast<size_t>(count)),
                    {&rows, 1}, pages);
    out.hidden.insert(out.hidden.end(), copy.begin(), copy.end());
    out.mtp.insert(out.mtp.end(), mtp, mtp + count * D);
    at += count;
  }
  return out;
}

double worst(const std::vector<float>& got, const Tensor& want) {
  return (from_floats(got).view(want.sizes()) - want.to(at::kFloat)).abs().max().item<double>();
}

TEST(NetworkView, ComputesWhatTheModelComputesOverSeveralSplitsOfKeys) {
  NoGrad no_grad;
  const Transformer model(long_model(), random_weights(long_model(), 3));
  const std::vector<int32_t> ids = some_ids(kTokens + 1, 128);
  const Tensor ids_BS = from_ids(ids).unsqueeze(0);
  const Tensor hidden = model.forward(ids_BS.narrow(1, 0, kTokens));
  const Tensor mtp = model.mtp(0, hidden, ids_BS.narrow(1, 1, kTokens));
  WorkerPool pool(2);
  Network network(network_view(model.config(), model.weights()), pool);
  const Fed got = feed(network, ids, {kTokens});
  // Hidden states are normed to about 1; fp32 sums in another order.
  EXPECT_LE(worst(got.hidden, hidden), 2e-4);
  EXPECT_LE(worst(got.mtp, mtp), 2e-4);
}

TEST(NetworkView, NoBitDependsOnPiecesOrThreads) {
  NoGrad no_grad;
  const ModelWeights weights = random_weights(long_model(), 4);
  const std::vector<int32_t> ids = some_ids(kTokens + 1, 128);
  WorkerPool one(1), three(3);
  Network alone(network_view(long_model(), weights), one), shared(network_view(long_model(), weights), three);
  const Fed whole = feed(alone, ids, {kTokens});
  for (const std::vector<int64_t>& pieces :
       std::vector<std::vector<int64_t>>{{kTokens}, {1}, {7}, {300, 1, 64}, {255, 1, 1, 1, 200}, {500, 5}}) {
    const Fed got = feed(shared, ids, pieces);
    EXPECT_TRUE(got.hidden == whole.hidden) << "first piece " << pieces[0];
    EXPECT_TRUE(got.mtp == whole.mtp) << "first piece " << pieces[0];
  }
}

TEST(NetworkView, SeesWhatTheOptimiserWrites) {
  NoGrad no_grad;
  const ModelConfig config = long_model();
  ModelWeights weights = random_weights(config, 5);
  WorkerPool pool(1);
  Network network(network_view(config, weights), pool);
  const std::vector<int32_t> ids = some_ids(9, 128);
  const Fed before = feed(network, ids, {8});
  weights.layers[1].moe.experts.down_EDM.mul_(1.5);
  weights.layers[0].attention_norm.add_(0.5);
  Network fresh(network_view(config, weights), pool);
  const Fed after = feed(network, ids, {8});
  EXPECT_TRUE(after.hidden == feed(fresh, ids, {8}).hidden);
  EXPECT_FALSE(after.hidden == before.hidden);
}

}  // namespace
}  // namespace hadal
