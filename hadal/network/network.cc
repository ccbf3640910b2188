#include "hadal/network/network.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/config/rope_frequencies.h"
#include "hadal/error.h"
#include "hadal/network/step.h"

namespace hadal {
namespace {

void for_each_matrix(const NetworkWeights& weights, auto&& f) {
  f(weights.embedding), f(weights.head);
  for (const LayerView& layer : weights.layers) {
    for (const WeightView* matrix : matrices_of(layer.mla)) f(*matrix);
    f(layer.moe.router), f(layer.mtp.project);
    for (const MlpView* mlp : {&layer.mlp, &layer.moe.shared}) f(mlp->gate), f(mlp->up), f(mlp->down);
    for (const MlpView& mlp : layer.moe.experts) f(mlp.gate), f(mlp.up), f(mlp.down);
  }
}

}  // namespace

Network::Network(NetworkWeights weights, WorkerPool& pool)
    : weights_(std::move(weights)), pool_(pool), ws_(std::make_unique<Workspace>()) {
  const ModelConfig& config = weights_.config;
  frequency_ = rope_frequencies(config.mla);
  rope_multiplier_ = static_cast<float>(rope_multiplier(config.mla));
  softmax_scale_ = static_cast<float>(config.softmax_scale());
  if (config.moe.num_groups > 1024)
    throw Error(ErrorCode::kUnsupported, cat("[network.open] ", config.moe.num_groups,
                                             " groups of experts; at most 1024 are supported."));
  const InferKernels& kernels = infer_kernels();
  std::array<bool, kNumLayouts> seen{};
  for_each_matrix(weights_, [&](const WeightView& w) {
    if (w.N == 0) return;
    ws_->max_K = std::max(ws_->max_K, w.K);
    bool& have = seen[static_cast<size_t>(kernels.layout_of(w.format))];
    if (!have) ws_->formats.push_back(w.format);
    have = true;
  });
  ws_->max_K = std::max({ws_->max_K, config.mla.cache_dim(), config.mla.index_dim()});
  ws_->worker.resize(static_cast<size_t>(pool_.size()));
  for (WorkerScratch& scratch : ws_->worker) scratch.dot.ensure(kernels.dot_scratch_bytes(ws_->max_K));
  ws_->expert.resize(weights_.layers.size());
  ws_->weight.resize(weights_.layers.size());
}

Network::~Network() = default;

Network::Step Network::plan(std::span<const int32_t> ids, std::span<const SequenceRows> sequences) {
  const ModelConfig& config = weights_.config;
  const int64_t H = config.mla.num_heads, R = config.mla.rope_dim;
  Step step;
  step.ids = ids, step.sequences = sequences, step.T = static_cast<int64_t>(ids.size());
  step.redundant = step.T <= kRedundantTokens;
  const int64_t group_tokens = std::max<int64_t>(1, kGroupRows / H);
  // The first position whose token sees more keys than it attends to.
  const int64_t first_choosing =
      config.mla.indexer ? config.mla.indexer->top_k : std::numeric_limits<int64_t>::max();
  for (size_t s = 0; s < sequences.size(); ++s) {
    const SequenceRows& rows = sequences[s];
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t position = rows.position + i;
      if (i % group_tokens == 0 || position >= first_choosing) {
        AttentionGroup group{s, static_cast<int64_t>(step.position.size())};
        group.tokens = std::min({group_tokens, rows.count - i, first_choosing - position});
        group.position = position;
        if (position >= first_choosing) {
          group.tokens = 1, group.position = first_choosing - 1, group.chooses_from = position + 1;
          const int64_t whole = (group.chooses_from + kSplitKeys - 1) / kSplitKeys * kSplitKeys;
          step.longest = std::max(step.longest, whole);
        }
        group.splits = (group.position + group.tokens + kSplitKeys - 1) / kSplitKeys;
        group.first_part = step.num_parts;
        step.num_parts += group.splits * group.tokens * H;
        step.groups.push_back(group);
      }
      step.position.push_back(position);
      step.page.push_back(rows.pages[static_cast<size_t>(position / kPageTokens)]);
      step.offset.push_back(position % kPageTokens);
    }
  }
  HADAL_CHECK(step.position.size() == ids.size()) << "rows of the sequences: " << step.position.size();
  step.by_split = static_cast<int64_t>(step.groups.size()) < 2 * pool_.size();
  float* cos = ws_->cos.ensure(step.T * R / 2);
  float* sin = ws_->sin.ensure(step.T * R / 2);
  for (int64_t t = 0; t < step.T; ++t)
    for (int64_t i = 0; i < R / 2; ++i) {
      // fp32 product, like every reference
      const float angle =
          static_cast<float>(step.position[static_cast<size_t>(t)]) * frequency_[static_cast<size_t>(i)];
      cos[t * R / 2 + i] = std::cos(angle) * rope_multiplier_;
      sin[t * R / 2 + i] = std::sin(angle) * rope_multiplier_;
    }
  reserve(step);
  return step;
}

void Network::reserve(const Step& step) {
  const ModelConfig& config = weights_.config;
  const MlaConfig& mla = config.mla;
  const MoeConfig& moe = config.moe;
  const int64_t T = step.T, D = config.width, H = mla.num_heads, C = mla.kv_latent, U = T * moe.top_k;
  const int64_t shared = moe.num_shared * moe.expert_dim;
  Workspace& ws = *ws_;
  for (AlignedBuffer<float>* rows : {&ws.x, &ws.product, &ws.hidden, &ws.mixed}) rows->ensure(T * D);
  ws.normed.ensure(T * std::max({D, mla.query_latent, C}));
  for (AlignedBuffer<float>& rows : ws.mtp_hidden) rows.ensure(T * D);
  ws.joined.ensure(config.mtp_depth > 0 ? T * 2 * D : 0);
  ws.q_latent.ensure(T * mla.query_latent), ws.kv.ensure(T * mla.cache_dim());
  ws.query.ensure(T * H * mla.key_dim()), ws.heads.ensure(T * H * mla.value_dim);
  const InferKernels& kernels = infer_kernels();
  ws.query_bf16.ensure(H * T * mla.cache_dim());
  ws.query_rows.ensure(H * T * kernels.prepared_bytes(WeightFormat::kF32, mla.cache_dim()));
  ws.latent_out.ensure(T * H * C);
  if (step.by_split) {
    ws.part_max.ensure(step.num_parts), ws.part_sum.ensure(step.num_parts);
    ws.part_out.ensure(step.num_parts * C);
  }
  // Hidden rows: dense [T, F]; mixture [U, M], then the shared expert's [T, shared].
  const int64_t hidden = std::max(T * config.dense_dim, U * moe.expert_dim + T * shared);
  ws.gate.ensure(hidden), ws.up.ensure(hidden);
  ws.router.ensure(T * moe.num_experts);
  ws.token.resize(static_cast<size_t>(U)), ws.place_weight.resize(static_cast<size_t>(U));

  const int64_t input = config.mtp_depth > 0 ? 2 * D : D;
  const int64_t workers = pool_.size();
  for (int64_t w = 0; w < workers; ++w) {
    WorkerScratch& own = ws.worker[static_cast<size_t>(w)];
    if (w == 0 || step.redundant)
      for (const WeightFormat format : ws.formats) {
        const size_t layout = static_cast<size_t>(kernels.layout_of(format));
        const auto bytes = [&](int64_t K) { return K > 0 ? kernels.prepared_bytes(format, K) : 0; };
        own.input.rows[layout].ensure(T * bytes(input));
        own.second.rows[layout].ensure(
            std::max({T * bytes(mla.query_latent), T * bytes(H * mla.value_dim), T * bytes(mla.value_dim),
                      T * bytes(mla.kv_latent), T * bytes(config.dense_dim),
                      U * bytes(moe.expert_dim) + T * bytes(shared)}));
      }
    own.normed.ensure(step.redundant ? T * std::max({D, mla.query_latent, C}) : 0);
    for (const WeightFormat format : ws.formats) own.head_rows.ensure(T * kernels.prepared_bytes(format, C));
    own.product.ensure(T * std::max(D, mla.cache_dim()));
    own.max.ensure(2 * std::max(kGroupRows, H)), own.sum.ensure(2 * std::max(kGroupRows, H));
    const int64_t rows = std::max(kGroupRows, H);
    own.score.ensure(rows * kSplitKeys), own.out.ensure(2 * rows * C);
    own.keys.ensure(std::max(kSplitKeys * mla.cache_dim(), mla.nope_dim * C));
    own.key_units.ensure(kPageTokens * mla.cache_dim()), own.cached.ensure(kSplitKeys * mla.cache_dim());
    own.prob.ensure(rows * kSplitKeys);
    own.visible.ensure(rows), own.query_index.ensure(rows);
    own.choice.ensure(2 * moe.num_experts);
  }
  reserve_indexer(step);
}

const float* Network::forward(std::span<const int32_t> ids, std::span<const SequenceRows> sequences,
                              LatentPages& pages) {
  const Step step = plan(ids, sequences);
  const int64_t D = weights_.config.width;
  float* x = ws_->x.data();
  pool_.run([&](int worker) {
    const WorkRange rows = split_work(step.T, 1, worker, pool_.size());
    for (int64_t t = rows.first; t < rows.last; ++t)
      infer_kernels().decode_rows(weights_.embedding, ids[static_cast<size_t>(t)],
                                  ids[static_cast<size_t>(t)] + 1, x + t * D, D);
    pool_.barrier();
    for (int64_t i = 0; i < weights_.config.num_layers; ++i)
      layer(weights_.layers[static_cast<size_t>(i)], i, step, pages, worker);
    infer_kernels().rms_norm(x + rows.first * D, D, weights_.final_norm, ws_->hidden.data() + rows.first * D,
                             D, rows.last - rows.first, D, eps());
  });
  return ws_->hidden.data();
}

const float* Network::mtp(int64_t depth, const float* hidden, std::span<const int32_t> next_ids,
                          std::span<const SequenceRows> sequences, LatentPages& pages) {
  const Step step = plan(next_ids, sequences);
  const int64_t D = weights_.config.width, index = weights_.config.num_layers + depth;
  const LayerView& view = weights_.layers.at(static_cast<size_t>(index));
  const InferKernels& kernels = infer_kernels();
  float *x = ws_->x.data(), *joined = ws_->joined.data(), *out = ws_->mtp_hidden[depth % 2].data();
  pool_.run([&](int worker) {
    const WorkRange rows = split_work(step.T, 1, worker, pool_.size());
    for (int64_t t = rows.first; t < rows.last; ++t) {
      float* row = joined + t * 2 * D;
      const int64_t id = next_ids[static_cast<size_t>(t)];
      kernels.decode_rows(weights_.embedding, id, id + 1, row, D);
      kernels.rms_norm(row, D, view.mtp.embedding_norm, row, D, 1, D, eps());
      kernels.rms_norm(hidden + t * D, D, view.mtp.hidden_norm, row + D, D, 1, D, eps());
    }
    pool_.barrier();
    const PreparedRows& input =
        prepare(step, worker, &WorkerScratch::input, joined, 2 * D, step.T, 2 * D, {&view.mtp.project});
    multiply(view.mtp.project, input, nullptr, step.T, x, D, share(view.mtp.project, worker), worker);
    pool_.barrier();
    layer(view, index, step, pages, worker);
    kernels.rms_norm(x + rows.first * D, D, view.mtp.final_norm, out + rows.first * D, D,
                     rows.last - rows.first, D, eps());
  });
  return out;
}

void Network::logits(const float* hidden, std::span<const int32_t> rows, float* out) {
  const int64_t D = weights_.config.width, W = weights_.config.vocab_size,
                M = static_cast<int64_t>(rows.size());
  if (M == 0) return;
  const WeightView& head = weights_.head;
  const InferKernels& kernels = infer_kernels();
  const int64_t bytes = kernels.prepared_bytes(head.format, D);
  std::byte* prepared = ws_->head_input.ensure(M * bytes);
  for (int64_t m = 0; m < M; ++m)
    kernels.prepare_rows(head.format, hidden + rows[static_cast<size_t>(m)] * D, D, 1, D,
                         prepared + m * bytes);
  pool_.run([&](int worker) {
    const WorkRange n = share(head, worker);
    kernels.dot_rows(head, prepared, nullptr, M, out, W, n.first, n.last,
                     ws_->worker[static_cast<size_t>(worker)].dot.data());
  });
}

std::span<const int32_t> Network::chosen_experts(int64_t layer) const {
  return ws_->expert.at(static_cast<size_t>(layer));
}
std::span<const float> Network::expert_weights(int64_t layer) const {
  return ws_->weight.at(static_cast<size_t>(layer));
}

float Network::eps() const {
  return static_cast<float>(weights_.config.norm_eps);
}

WorkRange Network::share(const WeightView& w, int worker) const {
  return split_work(w.N, kOutputUnit, worker, pool_.size());
}

const PreparedRows& Network::prepare(const Step& step, int worker, PreparedRows WorkerScratch::*set,
                                     const float* x, int64_t x_stride, int64_t M, int64_t K,
                                     std::initializer_list<const WeightView*> for_weights) {
  const InferKernels& kernels = infer_kernels();
  PreparedRows& prepared = ws_->worker[step.redundant ? static_cast<size_t>(worker) : 0].*set;
  const WorkRange rows = step.redundant ? WorkRange{0, M} : split_work(M, 1, worker, pool_.size());
  std::array<bool, kNumLayouts> done{};
  for (const WeightView* w : for_weights) {
    if (w->N == 0) continue;
    const size_t layout = static_cast<size_t>(kernels.layout_of(w->format));
    if (done[layout]) continue;
    done[layout] = true;
    kernels.prepare_rows(w->format, x + rows.first * x_stride, x_stride, rows.last - rows.first, K,
                         prepared.rows[layout].data() + rows.first * kernels.prepared_bytes(w->format, K));
  }
  if (!step.redundant) pool_.barrier();
  return prepared;
}

const float* Network::normed(const Step& step, int worker, const float* x, int64_t x_stride,
                             const float* gain, int64_t width) {
  float* out = step.redundant ? ws_->worker[static_cast<size_t>(worker)].normed.data() : ws_->normed.data();
  // Each worker prepares the rows that it norms, so no barrier stands between the two.
  const WorkRange rows = step.redundant ? WorkRange{0, step.T} : split_work(step.T, 1, worker, pool_.size());
  infer_kernels().rms_norm(x + rows.first * x_stride, x_stride, gain, out + rows.first * width, width,
                           rows.last - rows.first, width, eps());
  return out;
}

void Network::multiply(const WeightView& w, const PreparedRows& input, const int32_t* row_index, int64_t M,
                       float* y, int64_t y_stride, WorkRange n, int worker) {
  const InferKernels& kernels = infer_kernels();
  kernels.dot_rows(w, input.rows[static_cast<size_t>(kernels.layout_of(w.format))].data(), row_index, M, y,
                   y_stride, n.first, n.last, ws_->worker[static_cast<size_t>(worker)].dot.data());
}

void Network::add_to_stream(const Step& step, const float* y, WorkRange n) {
  const int64_t D = weights_.config.width;
  for (int64_t t = 0; t < step.T; ++t)
    infer_kernels().add_scaled(y + t * D + n.first, 1.0f, ws_->x.data() + t * D + n.first, n.last - n.first);
}

void Network::layer(const LayerView& view, int64_t index, const Step& step, LatentPages& pages, int worker) {
  attention(view, index, step, pages, worker);
  if (view.is_moe)
    mixture(view, index, step, worker);
  else
    dense(view, step, worker);
}

void Network::dense(const LayerView& view, const Step& step, int worker) {
  const MlpView& mlp = view.mlp;
  const int64_t T = step.T, F = mlp.gate.N, D = weights_.config.width;
  const float* x = normed(step, worker, ws_->x.data(), D, view.ffn_norm, D);
  const PreparedRows& input = prepare(step, worker, &WorkerScratch::input, x, D, T, D, {&mlp.gate, &mlp.up});
  float *gate = ws_->gate.data(), *up = ws_->up.data();
  const WorkRange n = share(mlp.gate, worker);
  multiply(mlp.gate, input, nullptr, T, gate, F, n, worker);
  multiply(mlp.up, input, nullptr, T, up, F, n, worker);
  for (int64_t t = 0; t < T; ++t)
    infer_kernels().swiglu(gate + t * F + n.first, up + t * F + n.first, gate + t * F + n.first,
                           n.last - n.first);
  pool_.barrier();
  const PreparedRows& hidden = prepare(step, worker, &WorkerScratch::second, gate, F, T, F, {&mlp.down});
  const WorkRange d = share(mlp.down, worker);
  multiply(mlp.down, hidden, nullptr, T, ws_->product.data(), D, d, worker);
  add_to_stream(step, ws_->product.data(), d);
  pool_.barrier();
}

}  // namespace hadal
