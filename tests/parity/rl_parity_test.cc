// The golden case `rl`: losses and gradients of GRPO's family, advantages, Bradley-Terry and DPO as TRL
// computes them. Runs, dimensions and constants are read from the files.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/posttrain/advantages.h"
#include "hadal/posttrain/policy_loss.h"
#include "hadal/posttrain/preference_loss.h"
#include "tests/support/golden.h"

namespace hadal {
namespace {

class RlCase {
 public:
  RlCase()
      : file_(golden_dir("rl") / "expected.safetensors"),
        json_(parse_json(read_file(golden_dir("rl") / "expected.json"), "rl/expected.json")) {}

  const Json& json() const { return json_; }
  bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  std::vector<int64_t> shape(const std::string& name) const { return file_.at(name).shape; }
  std::vector<double> values(const std::string& name) const {
    const StoredTensor& stored = file_.at(name);
    if (stored.type == ElementType::kI64) return read<int64_t>(stored);
    return stored.type == ElementType::kF64 ? read<double>(stored) : read<float>(stored);
  }
  // Golden README: max |got - want| <= atol + rtol max |want|.
  void expect_close(const std::vector<double>& got, const std::vector<double>& want,
                    const std::string& what) const {
    const Json& t = json_.at("tolerance").at("default");
    ASSERT_EQ(got.size(), want.size()) << what;
    double worst = 0, largest = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::abs(got[i] - want[i])), largest = std::max(largest, std::abs(want[i]));
      EXPECT_FALSE(std::isnan(got[i])) << what;
    }
    EXPECT_LE(worst, t.at("atol").get<double>() + t.at("rtol").get<double>() * largest) << what;
  }

 private:
  template <class T>
  static std::vector<double> read(const StoredTensor& stored) {
    std::vector<T> raw(stored.bytes.size() / sizeof(T));
    std::memcpy(raw.data(), stored.bytes.data(), stored.bytes.size());
    return {raw.begin(), raw.end()};
  }
  SafetensorsFile file_;
  Json json_;
};

PolicyLossConfig config_of(const RlCase& rl, const Json& run) {
  const std::string kind = run.at("loss_type"), level = run.at("level");
  PolicyLossConfig c{.eps_low = rl.json().at("epsilon"), .eps_high = run.at("eps_high")};
  c.kind = kind == "grpo"      ? LossKind::kGrpo
           : kind == "bnpo"    ? LossKind::kBnpo
           : kind == "dr_grpo" ? LossKind::kDrGrpo
           : kind == "cispo"   ? LossKind::kCispo
                               : LossKind::kDapo;
  c.level = level == "sequence" ? RatioLevel::kSequence : RatioLevel::kToken;
  c.delta = run.at("delta").is_null() ? 0 : run.at("delta").get<double>();
  c.beta = run.at("beta"), c.kl_ratio = run.at("correct_kl");
  c.max_length = rl.json().at("max_completion_length");
  return c;
}

// Rows [first, last) of a run's inputs.
struct Rows {
  std::vector<double> logp, old_logp, reference, advantage;
  std::vector<uint8_t> mask;
  std::vector<int64_t> begin;
  Rows(const RlCase& rl, bool with_reference, int64_t first, int64_t last) {
    const int64_t S = rl.shape("new_logps")[1];
    const auto part = [&](const std::string& name, int64_t width) {
      const std::vector<double> all = rl.values(name);
      return std::vector<double>(all.begin() + first * width, all.begin() + last * width);
    };
    logp = part("new_logps", S), old_logp = part("old_logps", S), advantage = part("advantages.group", 1);
    if (with_reference) reference = part("ref_logps", S);
    for (const double m : part("mask", S)) mask.push_back(m != 0);
    for (int64_t i = first; i <= last; ++i) begin.push_back((i - first) * S);
  }
  PolicyBatch batch() const { return {begin, logp, old_logp, reference, mask, advantage}; }
};

TEST(RlGolden, PolicyLossesAndGradientsAreTrls) {
  const RlCase rl;
  for (const auto& [name, run] : rl.json().at("grpo").items()) {
    const PolicyLossConfig config = config_of(rl, run);
    const int64_t rows = rl.shape("rewards")[0], micro = run.value("micro", 1);
    int64_t tokens = 0;
    for (const double m : rl.values("mask")) tokens += m != 0;
    double loss = 0;
    std::vector<double> gradient, token_loss;
    for (int64_t k = 0; k < micro; ++k) {
      const Rows inputs(rl, config.beta > 0, rows * k / micro, rows * (k + 1) / micro);
      const PolicyLoss got = policy_loss(config, inputs.batch(), {rows, tokens, micro});
      loss += got.loss;
      gradient.insert(gradient.end(), got.gradient.begin(), got.gradient.end());
      token_loss.insert(token_loss.end(), got.token_loss.begin(), got.token_loss.end());
    }
    rl.expect_close({loss}, {run.at("loss").get<double>()}, name + " loss");
    rl.expect_close(gradient, rl.values(name + ".grad"), name + ".grad");
    if (rl.has(name + ".token_loss"))
      rl.expect_close(token_loss, rl.values(name + ".token_loss"), name + ".token_loss");
  }
}

TEST(RlGolden, AdvantagesAreTrls) {
  const RlCase rl;
  const std::vector<double> rewards = rl.values("rewards");
  const int64_t G = rl.json().at("group_size");
  rl.expect_close(advantages(rewards, G, AdvantageKind::kGroup), rl.values("advantages.group"), "group");
  rl.expect_close(advantages(rewards, G, AdvantageKind::kBatch), rl.values("advantages.batch"), "batch");
  rl.expect_close(advantages(rewards, G, AdvantageKind::kNone), rl.values("advantages.none"), "none");
}

TEST(RlGolden, RewardsOfSeveralFunctionsCombineAsTrls) {
  const RlCase rl;
  const std::vector<double> parts = rl.values("multi.rewards_per_func"), weights = rl.values("multi.weights");
  const std::vector<double> want = rl.values("multi.rewards");
  std::vector<double> rewards;
  for (size_t i = 0; i < want.size(); ++i) {
    rewards.push_back(combine_rewards(std::span(parts).subspan(i * weights.size(), weights.size()), weights));
    EXPECT_EQ(std::isnan(rewards[i]), std::isnan(want[i])) << i;
    if (!std::isnan(want[i])) rl.expect_close({rewards[i]}, {want[i]}, "multi.rewards");
  }
  rl.expect_close(advantages(rewards, rl.json().at("group_size"), AdvantageKind::kGroup),
                  rl.values("multi.advantages.group"), "multi.advantages.group");
}

TEST(RlGolden, BradleyTerryIsTrls) {
  const RlCase rl;
  const auto chosen = rl.values("bt.chosen"), rejected = rl.values("bt.rejected");
  const auto margin = rl.values("bt.margin");
  for (const auto& [name, want] : rl.json().at("bradley_terry").items()) {
    const size_t at = name.find("center");
    const double center = at == std::string::npos ? 0 : std::stod(name.substr(at + 6));
    const bool with_margin = name.starts_with("margin");
    const PairLoss got =
        bradley_terry(chosen, rejected, with_margin ? margin : std::vector<double>(), center);
    rl.expect_close({got.loss}, {want.get<double>()}, name);
    rl.expect_close(got.chosen, rl.values("bt." + name + ".grad_chosen"), name + " chosen");
    rl.expect_close(got.rejected, rl.values("bt." + name + ".grad_rejected"), name + " rejected");
  }
}

// "robust.beta0.1.smooth0.1"
DpoConfig dpo_config(const std::string& name) {
  const std::string kind = name.substr(0, name.find('.'));
  DpoConfig c;
  c.kind = kind == "ipo"      ? DpoKind::kIpo
           : kind == "hinge"  ? DpoKind::kHinge
           : kind == "robust" ? DpoKind::kRobust
                              : DpoKind::kSigmoid;
  c.beta = std::stod(name.substr(name.find("beta") + 4));
  if (const size_t at = name.find("smooth"); at != std::string::npos)
    c.smoothing = std::stod(name.substr(at + 6));
  return c;
}

TEST(RlGolden, DpoIsTrls) {
  const RlCase rl;
  const auto policy = rl.values("dpo.policy_logps"), reference = rl.values("dpo.ref_logps");
  const auto mask = rl.values("dpo.mask");
  const auto rows = static_cast<size_t>(rl.shape("dpo.mask")[0]), S = mask.size() / rows;
  for (const auto& [name, want] : rl.json().at("dpo").items()) {
    const DpoConfig config = dpo_config(name);
    std::vector<double> sums(rows, 0), reference_sums(rows, 0), share(rows, 1);
    for (size_t i = 0; i < rows; ++i) {
      double tokens = 0;
      for (size_t t = i * S; t < (i + 1) * S; ++t) {
        if (mask[t] == 0) continue;
        sums[i] += policy[t], reference_sums[i] += reference[t], tokens += 1;
      }
      if (config.kind == DpoKind::kIpo) share[i] = 1 / tokens;
      sums[i] *= share[i], reference_sums[i] *= share[i];
    }
    const size_t half = rows / 2;
    const auto part = [&](const std::vector<double>& x, size_t at) { return std::span(x).subspan(at, half); };
    const PairLoss got =
        dpo(config, part(sums, 0), part(sums, half), part(reference_sums, 0), part(reference_sums, half));
    rl.expect_close({got.loss}, {want.get<double>()}, name);
    std::vector<double> gradient(mask.size());
    for (size_t t = 0; t < mask.size(); ++t) {
      const size_t i = t / S;
      gradient[t] = mask[t] * share[i] * (i < half ? got.chosen[i] : got.rejected[i - half]);
    }
    rl.expect_close(gradient, rl.values("dpo." + name + ".grad"), name + ".grad");
  }
}

}  // namespace
}  // namespace hadal
