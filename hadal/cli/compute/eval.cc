// hadal eval: what a model is worth on a text or on token files.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/compute/compute.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/cli/compute/training.h"
#include "hadal/cli/compute/training_rows.h"
#include "hadal/cli/input.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"
#include "hadal/train/evaluate.h"

namespace hadal {
namespace {

// Of `count` things at most `most` (0: all), at even distances.
std::vector<int64_t> spread(int64_t count, int64_t most) {
  const int64_t n = most > 0 ? std::min(most, count) : count;
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < n; ++i) chosen.push_back(n == 1 ? 0 : (count - 1) * i / (n - 1));
  return chosen;
}

// Hands rows of one length on together, some thousand tokens at a time: one by one they would mostly wait.
class Batches {
 public:
  explicit Batches(Evaluation& sum) : sum_(sum) {}
  void add(const Tensor& row_BX) {
    constexpr int64_t kTokens = 4096;
    if (!rows_.empty() && rows_[0].size(1) != row_BX.size(1)) flush();
    rows_.push_back(row_BX);
    if (static_cast<int64_t>(rows_.size()) * row_BX.size(1) >= kTokens) flush();
  }

  void flush() {
    if (!rows_.empty()) sum_.add(concat(rows_, 0));
    rows_.clear();
  }

 private:
  Evaluation& sum_;
  std::vector<Tensor> rows_;
};

// Rows of T + 1 + J tokens that predict every token but the first once; the last one is shorter.
void add_text(Evaluation& sum, const EvalOptions& o, const Tokenizer& tokenizer, int64_t T, int64_t J) {
  const std::vector<int32_t> ids = tokenizer.encode(read_text(o.data), /*parse_special=*/false);
  const auto n = static_cast<int64_t>(ids.size());
  if (n < 2 + J)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.eval] ", o.data, " has ", n, " tokens, need at least ", 2 + J, "."));
  Batches batches(sum);
  for (const int64_t row : spread((n - 1 - J + T - 1) / T, o.rows)) {
    const int64_t begin = row * T, end = std::min(n, begin + T + 1 + J);
    batches.add(from_ids(std::span(ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)))
                    .unsqueeze(0));
  }
  batches.flush();
}

void add_sources(Evaluation& sum, const EvalOptions& o, int64_t T, const ModelConfig& model) {
  TrainConfig config;
  config.batch.length = T, config.data.held_out_share = 0, config.data.sources = {o.data};
  RowConfig rows = row_config(config, model.mtp_depth);
  rows.vocab_size = model.vocab_size;
  const HeldOutRows held_out = open_held_out_rows(rows);
  RowBatch batch;
  Batches batches(sum);
  if (held_out.rows() > 0) {
    for (const int64_t row : o.rows > 0 ? held_out.spread(o.rows) : spread(held_out.rows(), 0)) {
      held_out.read(row, 1, batch);
      const int64_t real = batch.valid.empty() ? batch.length : batch.valid[0];
      if (real >= 2 + model.mtp_depth) batches.add(to_batch(batch).window_BX.narrow(1, 0, real));
    }
    batches.flush();
    return;
  }
  const RowSource source = open_rows(rows);
  for (const int64_t row : spread(source.rows_per_epoch(), o.rows)) {
    source.read(row, 1, batch);
    batches.add(to_batch(batch).window_BX);
  }
  batches.flush();
}

void print_result(const EvalOptions& o, const HeldOut& found, double seconds) {
  if (o.json) {
    Json out{{"model", o.model}, {"data", o.data}, {"tokens", found.targets}, {"loss", found.loss}};
    out["perplexity"] = std::exp(found.loss);
    if (found.bits_per_byte) out["bits_per_byte"] = *found.bits_per_byte, out["bytes"] = found.bytes;
    out["mtp_acceptance"] = found.mtp_acceptance;
    if (found.max_vio) out["max_vio"] = *found.max_vio;
    out["seconds"] = seconds;
    print(dump_json(out, 1) + "\n");
    return;
  }
  const auto line = [](const char* name, const char* format, double value) {
    char text[120];
    const int n = std::snprintf(text, sizeof text, "%-24s", name);
    std::snprintf(text + n, sizeof text - static_cast<size_t>(n), format, value);
    print(std::string(text) + "\n");
  };
  line("tokens predicted", "%.0f", static_cast<double>(found.targets));
  line("loss", "%.4f nats a token", found.loss);
  line("perplexity", "%.3f", std::exp(found.loss));
  if (found.bits_per_byte) line("bits per byte", "%.4f", *found.bits_per_byte);
  for (size_t k = 0; k < found.mtp_acceptance.size(); ++k)
    line(cat("MTP guesses, depth ", k + 1).c_str(), "%.1f %% are the main model's",
         100 * found.mtp_acceptance[k]);
  if (found.max_vio) line("MaxVio", "%.3f", *found.max_vio);
}

}  // namespace

int run_eval(const EvalOptions& o) {
  use_threads(o.threads);
  const auto start = std::chrono::steady_clock::now();
  const Transformer model = open_model(o.model, o.dtype);
  const ModelConfig& config = model.config();
  const int64_t T = o.length > 0 ? o.length : std::min<int64_t>(512, config.max_positions);
  if (T > config.max_positions)
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.eval] --length is ", T, ", the model's context is ",
                                                 config.max_positions, ". Choose a shorter length."));
  const std::optional<Tokenizer> tokenizer = open_tokenizer(o.model);
  std::vector<int64_t> bytes;
  if (tokenizer) bytes = token_byte_lengths(*tokenizer, config.vocab_size);
  Evaluation sum(model, bytes);
  if (is_token_data(o.data)) {
    add_sources(sum, o, T, config);
  } else if (tokenizer) {
    add_text(sum, o, *tokenizer, T, config.mtp_depth);
  } else {
    throw Error(ErrorCode::kNotFound,
                cat("[cli.eval] ", o.model, " has no tokenizer.json, so a text cannot be ",
                    "read. Give token files."));
  }
  print_result(o, sum.result(),
               std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return 0;
}

}  // namespace hadal
