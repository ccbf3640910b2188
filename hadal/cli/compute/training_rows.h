// Where a run's rows come from: a text, tokenised at the start, or token files.
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
  std::string summary;  // lines of what there is, for the user
};

// `out`: where the tokenizer is put, or is already with `keep_tokenizer`. J: the model's MTP depth.
TrainingData open_training_data(const TrainConfig& config, const ModelConfig& model,
                                const std::filesystem::path& out, bool keep_tokenizer);

// "PATH" or "PATH=WEIGHT" of each source.
RowConfig row_config(const TrainConfig& config, int64_t extra);

// A batch of the reader as tensors.
TrainBatch to_batch(const RowBatch& rows);

}  // namespace hadal
