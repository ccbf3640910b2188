#include "hadal/posttrain/reward_model.h"

#include <nlohmann/json.hpp>
#include <numeric>

#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/engine/open_network.h"
#include "hadal/error.h"
#include "hadal/posttrain/chat_data.h"

namespace hadal {
namespace {

constexpr int64_t kBatchTokens = 1024;  // of one forward pass, or one sequence
constexpr const char* kCardFile = "reward_model.json";

}  // namespace

std::string reward_card_json(const RewardCard& card) {
  Json out{{"mean", card.mean}, {"deviation", card.deviation}, {"held_out_pairs", card.pairs}};
  if (card.pairs > 0) out["accuracy"] = card.accuracy;
  if (!card.chat_template.empty()) out["chat_template"] = card.chat_template;
  return dump_json(out, 1) + "\n";
}

RewardCard read_reward_card(const std::filesystem::path& folder) {
  RewardCard card;
  const std::filesystem::path file = folder / kCardFile;
  if (!std::filesystem::exists(file)) return card;
  const Json json = parse_json(read_file(file, 1 << 20), file.string());
  try {
    card.mean = json.at("mean"), card.deviation = json.at("deviation");
    card.pairs = json.value("held_out_pairs", int64_t{0}), card.accuracy = json.value("accuracy", 0.0);
    card.chat_template = json.value("chat_template", "");
  } catch (const std::exception& e) {
    throw Error(ErrorCode::kCorrupt, cat("[posttrain.reward_model] ", file.string(), ": ", e.what(),
                                         ". Remove the file: scores are then not normalised."));
  }
  if (!(card.deviation > 0))
    throw Error(ErrorCode::kCorrupt, cat("[posttrain.reward_model] ", file.string(), ": deviation is ",
                                         card.deviation, ", need more than 0."));
  return card;
}

RewardModel RewardModel::open(const std::filesystem::path& folder, int threads) {
  RewardModel model(open_network(folder, Purpose::kReward), threads);
  model.card_ = read_reward_card(folder);
  model.tokenizer_ = Tokenizer::load(folder);
  model.format_ = chat_format(*model.tokenizer_, model.card_.chat_template);
  return model;
}

RewardModel::RewardModel(NetworkWeights weights, int threads)
    : pool_(std::make_unique<WorkerPool>(threads)),
      network_(std::make_unique<Network>(std::move(weights), *pool_)) {
  HADAL_CHECK(network_->config().scores && network_->weights().score) << "these weights have no score";
}

std::vector<double> RewardModel::score(std::span<const std::vector<int32_t>> sequences) {
  std::vector<double> out(sequences.size());
  const ModelConfig& model = config();
  for (const auto& ids : sequences) {
    if (ids.empty() || std::ssize(ids) > model.max_positions)
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[posttrain.reward_model] an answer with its prompt has ", ids.size(),
                      " tokens, need 1 to the model's context, ", model.max_positions, "."));
    for (const int32_t id : ids)
      if (id < 0 || id >= model.vocab_size)
        throw Error(ErrorCode::kInvalidArgument, cat("[posttrain.reward_model] token ", id,
                                                     " is not below vocab_size ", model.vocab_size, "."));
  }
  for (size_t begin = 0; begin < sequences.size();) {
    size_t end = begin;
    int64_t tokens = 0;
    do tokens += std::ssize(sequences[end++]);
    while (end < sequences.size() && tokens + std::ssize(sequences[end]) <= kBatchTokens);
    score_some(sequences.subspan(begin, end - begin), std::span(out).subspan(begin, end - begin));
    begin = end;
  }
  return out;
}

void RewardModel::score_some(std::span<const std::vector<int32_t>> sequences, std::span<double> out) {
  const ModelConfig& model = config();
  std::vector<int32_t> ids, pages;
  std::vector<size_t> first_page;
  for (const auto& sequence : sequences) {
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    first_page.push_back(pages.size());
    pages.resize(pages.size() + (sequence.size() + kPageTokens - 1) / kPageTokens);
  }
  std::iota(pages.begin(), pages.end(), 0);
  std::vector<SequenceRows> rows;
  for (size_t i = 0; i < sequences.size(); ++i)
    rows.push_back({0, std::ssize(sequences[i]), std::span(pages).subspan(first_page[i])});
  LatentPages storage(model.mla, model.num_layers, std::ssize(pages), CacheFormat::kF32);
  const float* hidden = network_->forward(ids, rows, storage);
  const float* score = network_->weights().score;
  const auto D = static_cast<size_t>(model.width);
  for (size_t i = 0, last = 0; i < sequences.size(); ++i) {
    last += sequences[i].size();
    const float* row = hidden + (last - 1) * D;
    for (size_t d = 0; d < D; ++d) out[i] += static_cast<double>(row[d]) * static_cast<double>(score[d]);
  }
}

}  // namespace hadal
