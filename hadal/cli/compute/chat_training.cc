// Rows of chats to learn from (data.chat).
#include <algorithm>
#include <cstdio>

#include "hadal/base/text.h"
#include "hadal/cli/compute/training_rows.h"
#include "hadal/error.h"
#include "hadal/posttrain/chat_data.h"
#include "hadal/posttrain/chat_rows.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

Tensor flags(const ChatRowBatch& batch) {
  std::vector<int32_t> wide(batch.trained.begin(), batch.trained.end());
  return from_ids(wide).view({batch.rows, batch.length}).to(at::kBool);
}

TrainBatch to_batch(const ChatRowBatch& batch) {
  const auto tensor = [&](const std::vector<int32_t>& values) {
    return from_ids(values).view({batch.rows, batch.length});
  };
  return {tensor(batch.ids), tensor(batch.segment_start), Tensor(), Tensor(), flags(batch)};
}

// The last share of the samples.
std::vector<TrainedTokens> split_off(std::vector<TrainedTokens>& samples, double share) {
  const auto n = static_cast<int64_t>(share * static_cast<double>(samples.size()));
  std::vector<TrainedTokens> out(samples.end() - n, samples.end());
  samples.resize(samples.size() - static_cast<size_t>(n));
  return out;
}

std::string summary_of(const ChatData& chats, const ChatRows& rows, int64_t held_out) {
  char line[240];
  std::snprintf(
      line, sizeof line,
      "%s samples, %s tokens, %.0f %% of them learned; %s rows an epoch, %.0f %% full; %s samples "
      "held out\n",
      with_commas(static_cast<int64_t>(chats.samples.size())).c_str(), with_commas(chats.tokens).c_str(),
      100.0 * static_cast<double>(chats.trained_tokens) /
          static_cast<double>(std::max<int64_t>(1, chats.tokens)),
      with_commas(rows.rows_per_epoch()).c_str(), 100 * rows.filled(), with_commas(held_out).c_str());
  std::string out = line;
  if (chats.cut > 0) out += cat(chats.cut, " samples were longer than a row and are cut (batch.length)\n");
  if (chats.dropped > 0) out += cat(chats.dropped, " samples had nothing left to learn and are left out\n");
  return out;
}

void keep_held_out(std::vector<TrainedTokens> samples, const TrainConfig& config, int64_t extra,
                   TrainRows& into) {
  if (samples.empty()) return;
  const ChatRows rows(std::move(samples), config.batch.length, extra, 0);
  const TrainBatch batch = to_batch(rows.read_plain(0, std::min(config.eval.windows, rows.rows_per_epoch())));
  into.held_out_NX = batch.window_BX, into.held_out_start_NX = batch.segment_start_BX;
  into.held_out_trained_NX = batch.trained_BX;
}

}  // namespace

Tokenizer start_tokenizer(const TrainConfig& config, const ModelConfig& model,
                          const std::filesystem::path& out) {
  const std::string from = !config.data.tokenizer.empty() ? config.data.tokenizer : config.model.start;
  if (from.empty())
    throw Error(ErrorCode::kInvalidConfig,
                "[cli.train] chats and preferences need a tokenizer: data.tokenizer is empty and model.start "
                "too. Name one.");
  Tokenizer tokenizer = copy_tokenizer(from, out);
  check_fits(tokenizer, model);
  return tokenizer;
}

TrainingData chat_data(const TrainConfig& config, const ModelConfig& model,
                       const std::filesystem::path& out) {
  TrainingData data;
  data.tokenizer = start_tokenizer(config, model, out);
  const auto format = chat_format(*data.tokenizer, config.data.chat_template);
  const int64_t longest = config.batch.length + 1;
  ChatData chats = read_chat_data(config.data.chat, *data.tokenizer, format, longest);
  std::vector<TrainedTokens> held_out =
      config.data.held_out.empty()
          ? split_off(chats.samples, config.data.held_out_share)
          : read_chat_data(config.data.held_out, *data.tokenizer, format, longest).samples;
  if (chats.samples.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.train] ", config.data.chat, " has nothing to learn. Raise batch.length or look at ",
                    "the assistant's turns."));
  const auto rows =
      std::make_shared<const ChatRows>(chats.samples, config.batch.length, model.mtp_depth, config.run.seed);
  data.rows_per_epoch = rows->rows_per_epoch();
  data.summary = summary_of(chats, *rows, std::ssize(held_out));
  data.rows.fingerprint = chats.fingerprint;
  data.rows.read = [rows](int64_t first, int64_t n) { return to_batch(rows->read(first, n)); };
  keep_held_out(std::move(held_out), config, model.mtp_depth, data.rows);
  return data;
}

}  // namespace hadal
