#include "hadal/cli/compute/training_rows.h"

#include <charconv>
#include <cstdio>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/input.h"
#include "hadal/data/merged_tokens.h"
#include "hadal/data/token_windows.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "hadal/tokenizer/bpe_train.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

// A byte-level BPE of at most vocab_size tokens, learned from the text and saved in `out`.
Tokenizer learn_tokenizer(const std::string& text, int64_t vocab_size, const fs::path& out) {
  const std::string_view texts[] = {text};
  save_tokenizer(train_tokenizer({.vocab_size = vocab_size}, texts), out);
  return Tokenizer::load(out);
}

// The ids to train on, shared with whoever reads them.
std::shared_ptr<const std::vector<int32_t>> split_merged(const Tokenizer& tokenizer,
                                                         const std::vector<int32_t>& ids,
                                                         const TrainConfig& config) {
  const double rate = config.data.split_merged;
  if (rate == 0) return std::make_shared<const std::vector<int32_t>>(ids);
  const MergedTokens merged(tokenizer);
  if (merged.size() == 0)
    throw Error(ErrorCode::kInvalidConfig,
                cat("[cli.train] data.split_merged is ", rate, ", but no token of this tokenizer joins ",
                    "punctuation and line breaks. Set it to 0."));
  return std::make_shared<const std::vector<int32_t>>(
      merged.split(ids, rate, config.run.seed, /*document=*/0));
}

void read_from(const RowSource& source, TrainRows& rows) {
  rows.fingerprint = source.fingerprint();
  rows.read = [source](int64_t first, int64_t n) {
    RowBatch batch;
    source.read(first, n, batch);
    return to_batch(batch);
  };
}

TrainingData text_data(const TrainConfig& config, const ModelConfig& model, const fs::path& out,
                       bool keep_tokenizer) {
  TrainingData data;
  const std::string text = read_text(config.data.text);
  if (!config.data.tokenizer.empty()) {
    data.tokenizer = copy_tokenizer(config.data.tokenizer, out);
  } else if (keep_tokenizer && fs::exists(out / "tokenizer.json")) {
    data.tokenizer = Tokenizer::load(out);
  } else {
    data.tokenizer = learn_tokenizer(text, model.vocab_size, out);
  }
  check_fits(*data.tokenizer, model);
  const std::vector<int32_t> ids = data.tokenizer->encode(text, /*parse_special=*/false);
  const int64_t X = config.batch.length + 1 + model.mtp_depth;
  TokenSplit tokens = split_tokens(ids, config.data.held_out_share, X);
  char line[200];
  std::snprintf(
      line, sizeof line, "%s bytes of text, %s tokens (%.2f bytes each), the last %.0f %% held out\n",
      with_commas(static_cast<int64_t>(text.size())).c_str(),
      with_commas(static_cast<int64_t>(ids.size())).c_str(),
      static_cast<double>(text.size()) / static_cast<double>(ids.size()), 100 * config.data.held_out_share);
  data.summary = line;
  data.rows.held_out_NX = spread_windows(tokens.held_out, config.eval.windows, X);
  RowConfig rows = row_config(config, model.mtp_depth);
  rows.sources = {{.path = config.data.text, .ids = split_merged(*data.tokenizer, tokens.train, config)}};
  rows.held_out_share = 0;
  rows.vocab_size = model.vocab_size;
  read_from(open_rows(rows), data.rows);
  return data;
}

// What packing by best fit leaves empty.
std::string filler_text(double share) {
  char text[40] = "";
  if (share > 0) std::snprintf(text, sizeof text, ", %.2f %% filler", 100 * share);
  return text;
}

TrainingData source_data(const TrainConfig& config, const ModelConfig& model, const fs::path& out) {
  TrainingData data;
  RowConfig rows = row_config(config, model.mtp_depth);
  rows.vocab_size = model.vocab_size;
  const RowSource source = open_rows(rows);
  const std::string from = !config.data.tokenizer.empty() ? config.data.tokenizer : source.tokenizer();
  if (!from.empty()) {
    data.tokenizer = copy_tokenizer(from, out);
    check_fits(*data.tokenizer, model);
  }
  for (const SourceInfo& one : source.sources()) {
    char share[40];
    std::snprintf(share, sizeof share, "%.1f", 100 * one.share);
    data.summary += cat(one.path, " (", one.format, "): ", with_commas(one.tokens_per_epoch),
                        " tokens an epoch, ", share, " % of the rows", filler_text(one.filler), "\n");
  }
  read_from(source, data.rows);
  data.rows_per_epoch = source.rows_per_epoch();
  const HeldOutRows held_out = open_held_out_rows(rows);
  std::vector<Tensor> whole, starts;  // a short row at a source's end is left out of the fixed set
  for (const int64_t row : held_out.spread(config.eval.windows)) {
    RowBatch batch;
    held_out.read(row, 1, batch);
    if (!batch.valid.empty() && batch.valid[0] != batch.length) continue;
    const TrainBatch row_of = to_batch(batch);
    whole.push_back(row_of.window_BX);
    if (row_of.segment_start_BX.defined()) starts.push_back(row_of.segment_start_BX);
  }
  if (!whole.empty()) data.rows.held_out_NX = concat(whole, 0);
  if (!starts.empty()) data.rows.held_out_start_NX = concat(starts, 0);
  return data;
}

}  // namespace

Tokenizer copy_tokenizer(const fs::path& from, const fs::path& out) {
  Tokenizer tokenizer = Tokenizer::load(from);
  const fs::path folder = fs::is_directory(from) ? from : from.parent_path();
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    if (fs::exists(folder / file) && !(fs::exists(out / file) && fs::equivalent(folder / file, out / file)))
      write_file(out / file, read_file(folder / file));
  return tokenizer;
}

void check_fits(const Tokenizer& tokenizer, const ModelConfig& model) {
  if (tokenizer.vocab_size() > model.vocab_size)
    throw Error(ErrorCode::kInvalidConfig,
                cat("[cli.train] the tokenizer has ", tokenizer.vocab_size(), " tokens, vocab_size is ",
                    model.vocab_size, ". Raise vocab_size or learn a smaller tokenizer."));
}

RowConfig row_config(const TrainConfig& config, int64_t extra) {
  RowConfig rows{.length = config.batch.length,
                 .extra = extra,
                 .seed = config.run.seed,
                 .fim_rate = config.data.fim_rate,
                 .mask_documents = config.data.mask_documents,
                 .packing = config.data.packing == "best_fit" ? Packing::kBestFit : Packing::kStream,
                 .held_out_share = config.data.held_out_share};
  for (const std::string& text : config.data.sources) {
    SourceConfig source{.path = text};
    const size_t cut = text.rfind('=');
    if (cut != std::string::npos) {
      const char *begin = text.data() + cut + 1, *end = text.data() + text.size();
      const auto [stop, error] = std::from_chars(begin, end, source.weight);
      if (error == std::errc() && stop == end) {
        source.path = text.substr(0, cut);
      } else {
        source.weight = 0;
      }
    }
    rows.sources.push_back(source);
  }
  return rows;
}

TrainBatch to_batch(const RowBatch& rows) {
  const auto tensor = [&](const std::vector<int32_t>& values) {
    return from_ids(values).view({rows.rows, rows.length});
  };
  return {tensor(rows.ids), rows.segment_start.empty() ? Tensor() : tensor(rows.segment_start), Tensor(),
          rows.piece_start.empty() ? Tensor() : tensor(rows.piece_start)};
}

TrainingData open_training_data(const TrainConfig& config, const ModelConfig& model, const fs::path& out,
                                bool keep_tokenizer) {
  TrainingData data = !config.data.chat.empty()          ? chat_data(config, model, out)
                      : !config.data.preferences.empty() ? preference_data(config, model, out)
                      : config.data.text.empty()         ? source_data(config, model, out)
                                                         : text_data(config, model, out, keep_tokenizer);
  if (data.tokenizer) data.rows.token_bytes = token_byte_lengths(*data.tokenizer, model.vocab_size);
  return data;
}

}  // namespace hadal
