// hadal eval: what a model is worth on a text or on token files.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "hadal/base/clock.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/input.h"
#include "hadal/cli/output.h"
#include "hadal/data/document_set.h"
#include "hadal/data/rows.h"
#include "hadal/engine/evaluate.h"
#include "hadal/engine/open_network.h"
#include "hadal/error.h"

namespace hadal {
namespace {

// Of `count` things at most `most` (0: all), at even distances.
std::vector<int64_t> spread(int64_t count, int64_t most) {
  const int64_t n = most > 0 ? std::min(most, count) : count;
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < n; ++i) chosen.push_back(n == 1 ? 0 : (count - 1) * i / (n - 1));
  return chosen;
}

// Rows of T + 1 + J tokens that predict every token but the first once; the last one is shorter.
void add_text(TextEvaluation& sum, const EvalOptions& o, const Tokenizer& tokenizer, int64_t T, int64_t J) {
  const std::vector<int32_t> ids = tokenizer.encode(read_text(o.data), /*parse_special=*/false);
  const auto n = static_cast<int64_t>(ids.size());
  if (n < 2 + J)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.eval] ", o.data, " has ", n, " tokens, need at least ", 2 + J, "."));
  for (const int64_t row : spread((n - 1 - J + T - 1) / T, o.rows))
    sum.add({ids.begin() + row * T, ids.begin() + std::min(n, row * T + T + 1 + J)});
}

void add_sources(TextEvaluation& sum, const EvalOptions& o, int64_t T, const ModelConfig& model) {
  const RowConfig rows{
      .sources = {{.path = o.data}}, .length = T, .extra = model.mtp_depth, .vocab_size = model.vocab_size};
  const HeldOutRows held_out = open_held_out_rows(rows);
  RowBatch batch;
  if (held_out.rows() > 0) {
    for (const int64_t row : o.rows > 0 ? held_out.spread(o.rows) : spread(held_out.rows(), 0)) {
      held_out.read(row, 1, batch);
      const int64_t real = batch.valid.empty() ? batch.length : batch.valid[0];
      sum.add({batch.ids.begin(), batch.ids.begin() + real});
    }
    return;
  }
  const RowSource source = open_rows(rows);
  for (const int64_t row : spread(source.rows_per_epoch(), o.rows)) {
    source.read(row, 1, batch);
    sum.add(batch.ids);
  }
}

// Rows that begin where documents do, cut at T: what best_fit packing trains on.
void add_documents(TextEvaluation& sum, const EvalOptions& o, int64_t T, const ModelConfig& model) {
  const OpenSource source = open_source(o.data, 0);
  const DocumentSet& set = source.held_out.size() > 0 ? source.held_out : source.train;
  int64_t added = 0;
  for (const int64_t document : spread(set.size(), o.rows)) {
    const DocumentTokens tokens = set.at(document);
    const int64_t most = T + 1 + model.mtp_depth, count = std::min(tokens.count, most);
    std::vector<int32_t> ids(static_cast<size_t>(count));
    tokens.file->read(tokens.begin, count, ids.data(), model.vocab_size);
    if (count < most && source.eos_id >= 0) ids.push_back(source.eos_id);
    if (std::ssize(ids) < 2 + model.mtp_depth) continue;
    sum.add(std::move(ids));
    ++added;
  }
  if (added == 0)
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.eval] ", o.data, " has no document of ",
                                                 2 + model.mtp_depth, " tokens. Leave --by-document out."));
}

void print_result(const EvalOptions& o, const TextScore& found, const std::vector<PositionLoss>& positions,
                  double seconds) {
  if (o.json) {
    Json out{{"model", o.model}, {"data", o.data}, {"tokens", found.targets}, {"loss", found.loss}};
    out["perplexity"] = std::exp(found.loss);
    if (found.bits_per_byte) out["bits_per_byte"] = *found.bits_per_byte, out["bytes"] = found.bytes;
    out["mtp_acceptance"] = found.mtp_acceptance;
    if (found.max_vio) out["max_vio"] = *found.max_vio;
    for (const PositionLoss& p : positions)
      out["positions"].push_back({{"begin", p.begin}, {"end", p.end}, {"loss", p.loss}});
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
  for (const PositionLoss& p : positions)
    line(cat("loss at ", p.begin, " to ", p.end - 1).c_str(), "%.4f", p.loss);
}

}  // namespace

int run_eval(const EvalOptions& o) {
  if (!o.task.empty()) return run_eval_tasks(o);
  if (o.data.empty())
    throw Error(ErrorCode::kInvalidArgument, "[cli.eval] nothing to evaluate on. Give --data or --task.");
  const double start = now_seconds();
  WorkerPool pool(static_cast<int>(o.threads));
  Network network(open_network(o.model), pool);
  const ModelConfig& config = network.config();
  const int64_t T = o.length > 0 ? o.length : std::min<int64_t>(512, config.max_positions);
  if (T > config.max_positions)
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.eval] --length is ", T, ", the model's context is ",
                                                 config.max_positions, ". Choose a shorter length."));
  std::optional<Tokenizer> tokenizer;
  if (std::filesystem::exists(std::filesystem::path(o.model) / "tokenizer.json"))
    tokenizer = Tokenizer::load(o.model);
  std::vector<int64_t> bytes;
  if (tokenizer) bytes = token_byte_lengths(*tokenizer, config.vocab_size);
  TextEvaluation sum(network, choose_cache_format(o.cache_dtype, network.weights()), T, bytes);
  if (o.by_document && !is_token_data(o.data))
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.eval] --by-document: ", o.data, " is a text, need ",
                                                 "token shards. Make them with hadal data build."));
  if (o.by_document) {
    add_documents(sum, o, T, config);
  } else if (is_token_data(o.data)) {
    add_sources(sum, o, T, config);
  } else if (tokenizer) {
    add_text(sum, o, *tokenizer, T, config.mtp_depth);
  } else {
    throw Error(ErrorCode::kNotFound,
                cat("[cli.eval] ", o.model, " has no tokenizer.json, so a text cannot be ",
                    "read. Give token files."));
  }
  const TextScore found = sum.result();
  print_result(o, found, o.positions > 0 ? sum.by_position(o.positions) : std::vector<PositionLoss>(),
               now_seconds() - start);
  return 0;
}

}  // namespace hadal
