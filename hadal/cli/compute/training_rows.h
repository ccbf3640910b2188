// Where a run's rows come from: a text, tokenised at the start, token files, or chats.
#pragma once
#include <filesystem>
#include <optional>

#include "hadal/config/train_config.h"
#include "hadal/data/rows.h"
#include "hadal/tokenizer.h"
#include "hadal/train/loop.h"

namespace hadal {

struct TrainingData {
  std::optional<Tokenizer> tokenizer;
  TrainRows rows;
  std::string summary;         // lines of what there is, for the user
  int64_t rows_per_epoch = 0;  // 0: not known
  // What else belongs to the trained model, written into its folder, and lines about it; may be empty.
  std::function<std::string(const Transformer& model, const std::filesystem::path& out)> finish;
};

// `out`: where the tokenizer is put, or is already with `keep_tokenizer`. J: the model's MTP depth.
TrainingData open_training_data(const TrainConfig& config, const ModelConfig& model,
                                const std::filesystem::path& out, bool keep_tokenizer);

// Rows of data.chat (chat_rows.cc).
TrainingData chat_data(const TrainConfig& config, const ModelConfig& model, const std::filesystem::path& out);

// Rows of data.preferences (preference_training.cc).
TrainingData preference_data(const TrainConfig& config, const ModelConfig& model,
                             const std::filesystem::path& out);

// The tokenizer of a run that begins with a model, copied to `out`. Throws invalid_config if it does not fit.
Tokenizer start_tokenizer(const TrainConfig& config, const ModelConfig& model,
                          const std::filesystem::path& out);

// Copies the tokenizer files of a folder (or beside a tokenizer.json) to `out`.
Tokenizer copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& out);
// Throws invalid_config if the model's vocabulary is too small for it.
void check_fits(const Tokenizer& tokenizer, const ModelConfig& model);

// "PATH" or "PATH=WEIGHT" of each source.
RowConfig row_config(const TrainConfig& config, int64_t extra);

// A batch of the reader as tensors.
TrainBatch to_batch(const RowBatch& rows);

}  // namespace hadal
