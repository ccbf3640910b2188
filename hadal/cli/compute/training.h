// What hadal train and hadal quickstart share.
#pragma once
#include <filesystem>
#include <string>

#include "hadal/model/transformer.h"
#include "hadal/tokenizer.h"
#include "hadal/train/loop.h"

namespace hadal {

constexpr int kInterruptedTrainExit = 75;  // saved after SIGINT or SIGTERM; run again to go on

struct TrainedModel {
  Transformer model;
  HeldOut before, after;
  TrainProgress last;
  bool interrupted = false;
};

// Encodes the text, trains a model of `config` from random weights with a progress line on stderr, and writes
// weights, config.json and `tokenizer`'s files to `out`.
TrainedModel train_and_save(ModelConfig config, const Tokenizer& tokenizer, const std::string& text,
                            const TrainLoopConfig& loop, const std::filesystem::path& out);

// A byte-level BPE of at most vocab_size tokens, learned from the text and saved in `out`.
Tokenizer learn_tokenizer(const std::string& text, int64_t vocab_size, const std::filesystem::path& out);

// Copies the tokenizer files of a folder (or beside a tokenizer.json) to `out`.
void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& out);

}  // namespace hadal
