#include "hadal/cli/info_model.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"
#include "hadal/planner.h"

namespace hadal {
namespace {

std::string pad(std::string text, size_t width) {  // right-aligned
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

// "671.026 B", decimal units as in the reports.
std::string short_count(int64_t value) {
  static const char* kUnits[] = {"", " K", " M", " B", " T", " quadrillion"};
  double scaled = static_cast<double>(value);
  int unit = 0;
  while (scaled >= 999.9995 && unit < 5) scaled /= 1000, ++unit;
  char text[48];
  std::snprintf(text, sizeof text, unit ? "%.3f%s" : "%.0f%s", scaled, kUnits[unit]);
  return text;
}

const char* architecture(Generation generation) {
  switch (generation) {
    case Generation::kV2:
      return "DeepSeek-V2";
    case Generation::kV3:
      return "DeepSeek-V3";
    case Generation::kV32:
      return "DeepSeek-V3.2";
  }
  return "?";
}

int64_t num_moe_layers(const ModelConfig& c) {
  int64_t n = 0;
  for (int64_t layer = 0; layer < c.num_layers; ++layer) n += c.is_moe(layer);
  return n;
}

std::string rule_text(const MoeConfig& moe) {
  const std::string scoring = moe.scoring == Scoring::kSigmoid ? "sigmoid" : "softmax";
  if (moe.choice == Choice::kGreedy) return scoring + ", plain top-k";
  return cat(scoring, ", ", moe.num_groups_kept, " of ", moe.num_groups, " groups by ",
             moe.choice == Choice::kGroupMax ? "best expert" : "sum of the two best, with balance bias");
}

std::string indexer_text(const MlaConfig& a) {
  if (!a.indexer) return "";
  return cat("\n  sparse         ", with_commas(a.indexer->top_k), " keys a token, chosen by ",
             a.indexer->num_heads, " index heads of ", a.indexer->head_dim);
}

std::string shape_lines(const ModelConfig& c) {
  const MlaConfig& a = c.mla;
  const int64_t moe_layers = num_moe_layers(c);
  std::string out =
      cat("  layers         ", c.num_layers, ": ", c.num_layers - moe_layers, " dense, ", moe_layers,
          " mixture of experts", c.mtp_depth ? cat("; ", c.mtp_depth, " MTP") : "", "\n  width          ",
          with_commas(c.width), "\n  vocabulary     ", with_commas(c.vocab_size),
          c.tied_head ? ", head tied to the embedding" : "", "\n  attention      ", a.num_heads,
          " heads, key ", a.nope_dim, " + ", a.rope_dim, " rotated, value ", a.value_dim, "; latents: kv ",
          a.kv_latent, ", query ", a.query_latent ? std::to_string(a.query_latent) : "none", indexer_text(a),
          "\n  dense FFN      ", with_commas(c.dense_dim), "\n");
  if (c.moe.num_experts > 0)
    out += cat("  experts        ", c.moe.num_experts, " routed of ", with_commas(c.moe.expert_dim), ", ",
               c.moe.top_k, " per token, ", c.moe.num_shared, " shared; ", rule_text(c.moe), "\n");
  out += cat("  context        ", with_commas(c.max_positions), " positions, RoPE theta ", a.rope_theta);
  if (a.yarn)
    out += cat(", YaRN ", a.yarn->factor, " x ", with_commas(a.yarn->original_positions), " (beta ",
               a.yarn->beta_fast, "/", a.yarn->beta_slow, ", mscale ", a.yarn->mscale, "/",
               a.yarn->mscale_all_dim, ")");
  char scale[32];
  std::snprintf(scale, sizeof scale, "%.10f", c.softmax_scale());
  return out + "\n  softmax scale  " + scale + "\n";
}

struct Part {
  const char* key;
  const char* label;
  int64_t WeightCounts::*count;
};
constexpr Part kParts[] = {{"embedding", "embedding", &WeightCounts::embedding},
                           {"attention", "attention", &WeightCounts::attention},
                           {"indexer", "indexer", &WeightCounts::indexer},
                           {"dense_mlp", "dense FFN", &WeightCounts::dense_mlp},
                           {"routed_experts", "routed experts", &WeightCounts::routed_experts},
                           {"shared_experts", "shared experts", &WeightCounts::shared_experts},
                           {"router", "router", &WeightCounts::router},
                           {"norms", "norms", &WeightCounts::norms},
                           {"mtp_project", "MTP projection", &WeightCounts::mtp_project},
                           {"head", "head", &WeightCounts::head}};

std::string parameter_lines(const ModelConfig& c, const ModelSize& size) {
  const bool mtp = c.mtp_depth > 0;
  const auto row = [&](const std::string& label, int64_t total, int64_t active, int64_t extra) {
    return cat("  ", label, std::string(22 - label.size(), ' '), pad(with_commas(total), 19),
               pad(with_commas(active), 19), mtp ? pad(with_commas(extra), 19) : "", "\n");
  };
  std::string out = cat("parameters", std::string(14, ' '), pad("total", 19), pad("active a token", 19),
                        mtp ? pad("MTP, unique", 19) : "", "\n");
  for (const Part& part : kParts)
    if (size.main.*part.count != 0 || size.mtp.*part.count != 0)
      out += row(part.label, size.main.*part.count, size.active.*part.count, size.mtp.*part.count);
  out += row("all", size.main.total(), size.active.total(), size.mtp.total());
  out += row("without embedding", size.main.total() - size.main.embedding,
             size.active.total() - size.active.embedding, size.mtp.total());
  out += cat("  total ", short_count(size.main.total()), ", active ", short_count(size.active.total()),
             " with the whole embedding table, ", short_count(size.active.total() - size.active.embedding),
             " without");
  if (mtp) out += cat("; MTP ", short_count(size.mtp.total()), ", embedding and head shared");
  if (size.balance_bias > 0)
    out += cat("\n  balance bias ", with_commas(size.balance_bias), " values, not trained, not counted");
  return out + "\n";
}

std::string cost_lines(const ModelSize& size, const TokenFlops& decode, const TokenFlops& prefill,
                       int64_t context, bool sparse) {
  char ratio[32];
  std::snprintf(ratio, sizeof ratio, "%.1f",
                static_cast<double>(size.expanded_cache_bytes) / static_cast<double>(size.cache_bytes));
  const auto flops = [](const char* label, const TokenFlops& f) {
    return cat("  ", label, pad(with_commas(f.layers), 19), pad(with_commas(f.head), 17),
               pad(with_commas(f.attention), 21), pad(with_commas(f.total()), 21), "\n");
  };
  const auto checkpoint = [](const char* label, int64_t bytes, int64_t tensors) {
    return cat("  ", label, pad(with_commas(bytes), 22), " bytes (", human_bytes(bytes), ") in ",
               with_commas(tensors), " tensors\n");
  };
  return cat("KV cache a token, bf16: ", with_commas(size.cache_bytes), " bytes (latent and rotated key",
             sparse ? ", the indexer's key" : "", "); ", with_commas(size.expanded_cache_bytes),
             " as keys and values of all heads (MHA), ", ratio, " times as many\n  ", with_commas(context),
             " tokens: ", human_bytes(size.cache_bytes * context), "\nFLOPs a token, context ",
             with_commas(context), ", main model: matrix products, a multiply-add is two\n",
             std::string(24, ' '), pad("layer matrices", 19), pad("head", 17), pad("attention", 21),
             pad("all", 21), "\n", flops("decode, absorbed      ", decode),
             flops("prefill, expanded,    ", prefill),
             "    mean of the prompt's tokens, logits for each\ncheckpoint",
             size.mtp_copies ? ", with MTP and its copies of embedding and head\n" : "\n",
             checkpoint("bf16     ", size.bf16_bytes, size.bf16_tensors),
             checkpoint("block FP8", size.fp8_bytes, size.fp8_tensors));
}

Json counts_json(const WeightCounts& counts) {
  Json json = Json::object();
  for (const Part& part : kParts) json[part.key] = counts.*part.count;
  json["total"] = counts.total();
  return json;
}

Json flops_json(const TokenFlops& f) {
  return {{"layers", f.layers}, {"head", f.head}, {"attention", f.attention}, {"total", f.total()}};
}

}  // namespace

int info_model(const ModelConfig& config, const std::string& source, int64_t context, bool json) {
  if (context > config.max_positions)
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.info] --context ", context, ": this model has ",
                                                 config.max_positions, " positions. Choose no more."));
  if (context == 0) context = std::min<int64_t>(4096, config.max_positions);
  const ModelSize size = model_size(config);
  const TokenFlops decode = decode_flops(config, context), prefill = prefill_flops(config, context);
  if (!json) {
    print(cat(architecture(config.generation), " architecture: ", one_line(source), "\n", shape_lines(config),
              parameter_lines(config, size),
              cost_lines(size, decode, prefill, context, config.mla.indexer.has_value())));
    return 0;
  }
  Json out = {{"source", source}, {"config", parse_json(config_json(config), "config")}};
  out["softmax_scale"] = config.softmax_scale();
  out["layers"] = {{"main", config.num_layers}, {"moe", num_moe_layers(config)}, {"mtp", config.mtp_depth}};
  out["parameters"] = {{"main", counts_json(size.main)},
                       {"active", counts_json(size.active)},
                       {"active_without_embedding", size.active.total() - size.active.embedding},
                       {"mtp_unique", counts_json(size.mtp)},
                       {"balance_bias", size.balance_bias}};
  out["cache_bytes_per_token"] = {{"latent_bf16", size.cache_bytes}, {"mha_bf16", size.expanded_cache_bytes}};
  out["flops_per_token"] = {{"context", context},
                            {"decode_absorbed", flops_json(decode)},
                            {"prefill_expanded_mean", flops_json(prefill)}};
  out["checkpoint"] = {{"bf16_bytes", size.bf16_bytes},
                       {"bf16_tensors", size.bf16_tensors},
                       {"fp8_bytes", size.fp8_bytes},
                       {"fp8_tensors", size.fp8_tensors}};
  print(dump_json(out) + "\n");
  return 0;
}

}  // namespace hadal
