// hadal logits: what a model computes, for comparison with another implementation.
#include <filesystem>
#include <map>

#include "hadal/base/text.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/input.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

using Named = std::map<std::string, Tensor>;

// Names and shapes of the golden cases: logits [B, T, W], hidden.0 .. hidden.L and hidden.final [B, T, D],
// router.l.{logits, experts, weights} [B*T, .], cache.l.{latent, k_rope} [B, T, .], greedy_tokens [B, N],
// decode_logits [B, N, W].
void add_trace(const Trace& trace, const LogitsOptions& o, const std::string& prefix, Named& out) {
  if (o.hidden) out[prefix + "hidden.0"] = trace.embedded_BSD;
  for (const LayerTrace& layer : trace.layers) {
    const std::string i = std::to_string(layer.layer);
    if (o.hidden) out[prefix + "hidden." + std::to_string(layer.layer + 1)] = layer.hidden_BSD;
    if (o.cache) {
      out[prefix + "cache." + i + ".latent"] = layer.row.latent_BSC;
      out[prefix + "cache." + i + ".k_rope"] = layer.row.rope_key_BSR;
    }
    if (!o.routing || !layer.is_moe) continue;
    out[prefix + "router." + i + ".logits"] = layer.logit_TE;
    out[prefix + "router." + i + ".experts"] = layer.routing.expert_TA;
    out[prefix + "router." + i + ".weights"] = layer.routing.weight_TA;
  }
}

void compute(const Transformer& model, const Tensor& ids_BT, const LogitsOptions& o,
             const std::string& prefix, Named& out) {
  NoGrad no_grad;
  const int64_t B = ids_BT.size(0), T = ids_BT.size(1);
  LatentCache cache(model.config(), B, T + o.decode, model.dtype());
  Trace trace;
  const Tensor hidden = model.forward(ids_BT, &cache, &trace);
  const Tensor logits_BTW = model.logits(hidden);
  out[prefix + "input_ids"] = ids_BT;
  out[prefix + "logits"] = logits_BTW;
  if (o.hidden) out[prefix + "hidden.final"] = hidden;
  add_trace(trace, o, prefix, out);
  if (o.decode == 0) return;
  std::vector<Tensor> tokens, steps;
  Tensor last_BW = logits_BTW.select(1, T - 1);
  for (int64_t j = 0; j < o.decode; ++j) {
    tokens.push_back(last_BW.argmax(-1));
    last_BW = model.logits(model.forward(tokens.back().unsqueeze(1), &cache)).select(1, 0);
    steps.push_back(last_BW);
  }
  out[prefix + "greedy_tokens"] = stack(tokens, 1);
  out[prefix + "decode_logits"] = stack(steps, 1);
}

void write(const std::string& path, const Named& tensors) {
  std::vector<TensorHead> heads;
  Named ready;
  for (const auto& [name, tensor] : tensors) {
    const bool is_integer = tensor.scalar_type() == at::kLong;
    ready[name] = tensor.to(is_integer ? at::kLong : at::kFloat).contiguous();
    heads.push_back({name, is_integer ? ElementType::kI64 : ElementType::kF32, tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path, heads);
  for (const TensorHead& head : writer.heads())
    writer.write(ready.at(head.name).data_ptr(), ready.at(head.name).nbytes());
  writer.finish();
}

}  // namespace

int run_logits(const LogitsOptions& o) {
  use_threads(o.threads);
  const std::vector<std::vector<int32_t>> rows = read_token_ids(o.ids_file);
  const Transformer model = open_model(o.model, o.dtype);
  bool one_length = true;
  for (const auto& row : rows) one_length = one_length && row.size() == rows[0].size();
  Named out;
  if (one_length) {
    std::vector<Tensor> stacked;
    for (const auto& row : rows) stacked.push_back(from_ids(row));
    compute(model, stack(stacked, 0), o, "", out);
  } else {  // each alone, as seq.0.logits [1, T, W]
    for (size_t i = 0; i < rows.size(); ++i)
      compute(model, from_ids(rows[i]).unsqueeze(0), o, cat("seq.", i, "."), out);
  }
  write(o.out, out);
  std::fprintf(stderr, "%zu tensors of %zu sequences written to %s\n", out.size(), rows.size(),
               o.out.c_str());
  return 0;
}

}  // namespace hadal
