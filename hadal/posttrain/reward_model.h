// A reward model: the layers of a language model and one number read off the last token (R1 report 3.1:
// DeepSeek-R1's architecture with a reward head). It judges a prompt with all that was written in answer to
// it, reasoning first. Torch-free; the kernels are those of inference.
//
// FOLDER/: config.json of the architecture DeepseekV3ForSequenceClassification with one label,
// model.safetensors with "score.weight" [1, D] and neither head nor MTP modules, the tokenizer, and
// reward_model.json.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hadal/network/network.h"
#include "hadal/tokenizer.h"

namespace hadal {

// reward_model.json: what is known about a reward model besides its weights.
struct RewardCard {
  double mean = 0, deviation = 1;  // of its scores on held-out answers
  int64_t pairs = 0;               // held out; 0: nothing was measured
  double accuracy = 0;             // share of them in which the chosen answer scores higher
  std::string chat_template;       // by name; "": the tokenizer's own, or none
};
std::string reward_card_json(const RewardCard& card);
// Of the folder; as default if it has none. Throws corrupt.
RewardCard read_reward_card(const std::filesystem::path& folder);

class RewardModel {
 public:
  // Throws unsupported for a language model, and what open_network() and Tokenizer::load() throw.
  static RewardModel open(const std::filesystem::path& folder, int threads = 0);
  // Over weights that lie elsewhere, such as a trainer's: their owners are kept.
  RewardModel(NetworkWeights weights, int threads);

  // Scores of token sequences, as they are. A score depends neither on the others nor on the threads. Throws
  // invalid_argument for one that is empty or longer than the context.
  std::vector<double> score(std::span<const std::vector<int32_t>> sequences);
  // (score - mean) / deviation: comparable over reward models, to be summed with other rewards.
  double normalised(double score) const { return (score - card_.mean) / card_.deviation; }

  const ModelConfig& config() const { return network_->config(); }
  const RewardCard& card() const { return card_; }
  const std::optional<Tokenizer>& tokenizer() const { return tokenizer_; }
  const std::optional<ChatTemplate>& format() const { return format_; }

 private:
  void score_some(std::span<const std::vector<int32_t>> sequences, std::span<double> out);
  std::unique_ptr<WorkerPool> pool_;
  std::unique_ptr<Network> network_;
  RewardCard card_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> format_;
};

}  // namespace hadal
