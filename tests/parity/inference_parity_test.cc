// The model against transformers' numbers, for every case folder that has prefill logits.
#include <gtest/gtest.h>

#include "hadal/checkpoint/load.h"
#include "hadal/checkpoint/names.h"
#include "hadal/ops/cross_entropy.h"
#include "tests/support/golden_tensors.h"

namespace hadal {
namespace {

Transformer in_f32(const Transformer& model) {
  ModelWeights weights = model.weights();
  for_each_weight(model.config(), weights, [](const WeightSpec&, Tensor& w) { w = w.to(at::kFloat); });
  return {model.config(), weights};
}

class Inference : public testing::TestWithParam<std::filesystem::path> {
 protected:
  GoldenCase golden{GetParam()};
  Transformer model = load_model(GetParam(), DType::kF32);
  Tensor ids_BT = golden.tensor("input_ids");

  void expect_trace(const Trace& trace, const Tensor& hidden, const std::string& form) {
    expect_close(model.logits(hidden), golden.tensor("logits"), golden.tolerance("logits"), form + " logits");
    if (golden.has("hidden.final"))
      expect_close(hidden, golden.tensor("hidden.final"), golden.tolerance("hidden"), form + " hidden.final");
    if (golden.has("hidden.0"))
      expect_equal(trace.embedded_BSD, golden.tensor("hidden.0"), form + " hidden.0");
    for (const LayerTrace& layer : trace.layers) {
      const std::string i = std::to_string(layer.layer), router = "router." + i, cache = "cache." + i;
      const std::string after = "hidden." + std::to_string(layer.layer + 1);
      if (golden.has(after))
        expect_close(layer.hidden_BSD, golden.tensor(after), golden.tolerance("hidden"), form + " " + after);
      if (golden.has(cache + ".latent")) {
        expect_close(layer.row.latent_BSC, golden.tensor(cache + ".latent"), golden.tolerance("cache"),
                     form + " " + cache);
        expect_close(layer.row.rope_key_BSR, golden.tensor(cache + ".k_rope"), golden.tolerance("cache"),
                     form + " " + cache);
      }
      ASSERT_EQ(layer.is_moe, golden.has(router + ".experts")) << router;
      if (!layer.is_moe) continue;
      expect_equal(layer.routing.expert_TA, golden.tensor(router + ".experts"),
                   form + " " + router + ".experts");
      expect_close(layer.logit_TE, golden.tensor(router + ".logits"), golden.tolerance("router"),
                   form + " " + router);
      expect_close(layer.routing.weight_TA, golden.tensor(router + ".weights"), golden.tolerance("router"),
                   form + " " + router);
    }
  }
};

TEST_P(Inference, PrefillGivesTheReferencesNumbersInBothForms) {
  NoGrad no_grad;
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    Trace trace;
    const Tensor hidden = model.forward(ids_BT, nullptr, &trace, form);
    expect_trace(trace, hidden, form == MlaForm::kExpanded ? "expanded" : "absorbed");
  }
}

TEST_P(Inference, GreedyDecodeFromTheLatentCacheGivesTheReferencesTokensAndLogits) {
  NoGrad no_grad;
  const Tensor tokens_BN = golden.tensor("greedy_tokens");
  const int64_t B = ids_BT.size(0), T = ids_BT.size(1), N = tokens_BN.size(1);
  LatentCache cache(model.config(), B, T + N, at::kFloat);
  Tensor logits_BW = model.logits(model.forward(ids_BT, &cache).select(1, T - 1));
  for (int64_t j = 0; j < N; ++j) {
    expect_equal(logits_BW.argmax(-1), tokens_BN.select(1, j), "token " + std::to_string(j));
    logits_BW = model.logits(model.forward(tokens_BN.narrow(1, j, 1), &cache).select(1, 0));
    expect_close(logits_BW, golden.tensor("decode_logits").select(1, j), golden.tolerance("logits"),
                 "step " + std::to_string(j));
  }
  EXPECT_EQ(cache.length(), T + N);
}

TEST_P(Inference, PromptsOfDifferentLengthsRunAloneGiveTheReferencesTokens) {
  if (!golden.has("ragged.tokens")) GTEST_SKIP() << "no ragged prompts in this case";
  NoGrad no_grad;
  const std::vector<int64_t> offsets = to_ints(golden.tensor("ragged.offsets"));
  const Tensor want_PN = golden.tensor("ragged.greedy_tokens");
  for (size_t p = 0; p + 1 < offsets.size(); ++p) {
    const auto row = static_cast<int64_t>(p);
    const int64_t length = offsets[p + 1] - offsets[p], N = want_PN.size(1);
    const Tensor prompt = golden.tensor("ragged.tokens").narrow(0, offsets[p], length).unsqueeze(0);
    LatentCache cache(model.config(), 1, length + N, at::kFloat);
    Tensor logits_W = model.logits(model.forward(prompt, &cache)[0][length - 1]);
    expect_close(logits_W, golden.tensor("ragged.last_logits")[row], golden.tolerance("logits"),
                 "prompt " + std::to_string(p));
    for (int64_t j = 0; j < N; ++j) {
      const Tensor token = logits_W.argmax(-1);
      EXPECT_EQ(token.item<int64_t>(), want_PN[row][j].item<int64_t>()) << "prompt " << p << " token " << j;
      logits_W = model.logits(model.forward(token.view({1, 1}), &cache)[0][0]);
    }
  }
}

// In chunks of any size, prefill equals the whole: the causal mask counts from the cached tokens.
TEST_P(Inference, ChunkedPrefillEqualsTheWhole) {
  NoGrad no_grad;
  const int64_t B = ids_BT.size(0), T = ids_BT.size(1);
  for (const int64_t chunk : {1, 5, 7}) {
    LatentCache cache(model.config(), B, T, at::kFloat);
    std::vector<Tensor> parts;
    for (int64_t at = 0; at < T; at += chunk)
      parts.push_back(model.logits(model.forward(ids_BT.narrow(1, at, std::min(chunk, T - at)), &cache)));
    expect_close(concat(parts, 1), golden.tensor("logits"), golden.tolerance("logits"),
                 "chunk " + std::to_string(chunk));
  }
}

TEST_P(Inference, GradientsOfEveryWeightAreTheReferences) {
  if (golden.names("grad.").empty()) GTEST_SKIP() << "no gradients in this case";
  std::vector<Tensor> tensors;
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
    tensors.push_back(w);
  });
  const int64_t T = ids_BT.size(1);
  const Tensor logits = model.logits(model.forward(ids_BT)).narrow(1, 0, T - 1).flatten(0, 1);
  const Tensor loss = cross_entropy(logits, ids_BT.narrow(1, 1, T - 1).flatten()).mean();
  loss.backward();
  expect_near(loss.item<double>(), golden.json().at("loss").get<double>(), golden.tolerance("loss"), "loss");

  size_t compared = 0;
  double squares = 0;
  for (const HfTensor& part : hf_tensors(model.config())) {
    if (part.copy || part.role == WeightRole::kBalanceBias) continue;
    Tensor grad = tensors[part.spec].grad();
    ASSERT_TRUE(grad.defined()) << part.hf_name;
    if (part.expert >= 0) grad = grad.select(0, part.expert);
    squares += grad.pow(2).sum().item<double>();
    if (!golden.has("grad." + part.hf_name)) continue;
    expect_close(grad, golden.tensor("grad." + part.hf_name), golden.tolerance("grad"), part.hf_name);
    ++compared;
  }
  EXPECT_EQ(compared, golden.names("grad.").size());
  expect_near(std::sqrt(squares), golden.json().at("grad_norm").get<double>(), golden.tolerance("grad_norm"),
              "grad_norm");
}

// expected.json, note of v3-bf16: bf16 flips some routing choices, so it is judged by its distance to fp32.
TEST_P(Inference, Bf16ComputeStaysAsCloseAsTheReferencesBf16) {
  if (!golden.json().contains("bf16_reference")) GTEST_SKIP() << "no bf16 reference in this case";
  NoGrad no_grad;
  const Json& reference = golden.json().at("bf16_reference");
  Trace trace;
  const Transformer bf16 = load_model(GetParam(), DType::kBF16);
  ASSERT_EQ(bf16.dtype(), at::kBFloat16);
  const Tensor difference =
      (bf16.logits(bf16.forward(ids_BT, nullptr, &trace)).to(at::kFloat) - golden.tensor("logits")).abs();
  EXPECT_LE(difference.median().item<double>(), 1.5 * reference.at("median_abs_diff").get<double>());

  Tensor clean_T = ids_BT.flatten().ge(0);
  for (const LayerTrace& layer : trace.layers) {
    if (!layer.is_moe) continue;
    const Tensor want = golden.tensor("router." + std::to_string(layer.layer) + ".experts");
    clean_T = clean_T.logical_and(layer.routing.expert_TA.eq(want).all(-1));
  }
  const double mean = difference.flatten(0, 1).mean(-1).masked_select(clean_T).mean().item<double>();
  EXPECT_LE(mean, 2.0 * reference.at("clean_mean_abs_diff").get<double>());
  EXPECT_GE(clean_T.sum().item<double>(), 0.75 * reference.at("clean_tokens").get<double>());
}

TEST_P(Inference, DequantisedWeightsRoundedToBf16GiveTheReferencesLogits) {
  if (!golden.has("logits_bf16_weights")) GTEST_SKIP() << "no such logits in this case";
  NoGrad no_grad;
  const Transformer rounded = in_f32(load_model(GetParam(), DType::kBF16));
  expect_close(rounded.logits(rounded.forward(ids_BT)), golden.tensor("logits_bf16_weights"),
               golden.tolerance("logits"), "logits");
}

INSTANTIATE_TEST_SUITE_P(Golden, Inference, testing::ValuesIn(golden_cases("input_ids", true)), case_name);

class Mtp : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Mtp, ModuleGivesTheReferencesNumbersAndGradients) {
  const GoldenCase golden(GetParam());
  Transformer model = load_model(GetParam(), DType::kF32);
  ASSERT_GE(model.config().mtp_depth, 1);
  std::vector<Tensor> tensors;
  for_each_weight(model.config(), model.weights(), [&](const WeightSpec& spec, Tensor& w) {
    if (spec.role != WeightRole::kBalanceBias) w.requires_grad_(true);
    tensors.push_back(w);
  });
  const Tensor x = golden.tensor("tokens");
  const int64_t T = x.size(1) - 2;
  Trace trace;
  const Tensor hidden = model.forward(x.narrow(1, 0, T), nullptr, &trace);
  const Tensor normed = model.mtp(0, hidden, x.narrow(1, 1, T), &trace);
  const Tensor logits = model.logits(hidden), mtp_logits = model.logits(normed);
  expect_close(hidden, golden.tensor("hidden.final"), golden.tolerance("hidden"), "hidden.final");
  expect_close(logits, golden.tensor("logits"), golden.tolerance("logits"), "logits");
  expect_close(trace.layers.back().hidden_BSD, golden.tensor("mtp.block_out"), golden.tolerance("hidden"),
               "block_out");
  expect_close(normed, golden.tensor("mtp.normed"), golden.tolerance("hidden"), "mtp.normed");
  expect_close(mtp_logits, golden.tensor("mtp_logits"), golden.tolerance("logits"), "mtp_logits");
  for (const LayerTrace& layer : trace.layers) {
    if (!layer.is_moe) continue;
    const std::string router = "router." + std::to_string(layer.layer);
    expect_equal(layer.routing.expert_TA, golden.tensor(router + ".experts"), router);
    expect_close(layer.routing.weight_TA, golden.tensor(router + ".weights"), golden.tolerance("router"),
                 router);
  }
  const Tensor main_loss = cross_entropy(logits.flatten(0, 1), x.narrow(1, 1, T).flatten()).mean();
  const Tensor mtp_loss = cross_entropy(mtp_logits.flatten(0, 1), x.narrow(1, 2, T).flatten()).mean();
  const Tensor total = main_loss + golden.json().at("mtp_lambda").get<double>() * mtp_loss;
  total.backward();
  for (const auto& [value, key] :
       {std::pair{main_loss, "main_loss"}, {mtp_loss, "mtp_loss"}, {total, "total_loss"}})
    expect_near(value.item<double>(), golden.json().at(key).get<double>(), golden.tolerance("loss"), key);
  for (const HfTensor& part : hf_tensors(model.config())) {
    if (part.copy || part.role == WeightRole::kBalanceBias) continue;
    Tensor grad = tensors[part.spec].grad();
    if (part.expert >= 0) grad = grad.select(0, part.expert);
    if (golden.has("grad." + part.hf_name))
      expect_close(grad, golden.tensor("grad." + part.hf_name), golden.tolerance("grad"), part.hf_name);
    const double norm = golden.json().at("grad_norms").at(part.hf_name).get<double>();
    expect_near(grad.norm().item<double>(), norm, golden.tolerance("grad_norm"), part.hf_name);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Mtp, testing::ValuesIn(golden_cases("mtp_logits", true)), case_name);

}  // namespace
}  // namespace hadal
