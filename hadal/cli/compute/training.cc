#include "hadal/cli/compute/training.h"

#include <unistd.h>

#include <cstdio>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/load.h"
#include "hadal/cli/compute/model_source.h"
#include "hadal/error.h"
#include "hadal/tokenizer/bpe_train.h"

namespace hadal {
namespace {

constexpr double kHeldOutShare = 0.1;
constexpr int64_t kHeldOutWindows = 64;

// One line that is rewritten on a terminal, a line every five seconds elsewhere.
class ProgressLine {
 public:
  void operator()(const TrainProgress& p) {
    const double gap = terminal_ ? 0.2 : 5.0;
    const bool last = p.step == p.steps;
    if (p.seconds - shown_ < gap && !last && p.step > 1) return;
    shown_ = p.seconds;
    char text[256];
    const int64_t left = p.steps > 0 ? static_cast<int64_t>(p.seconds / static_cast<double>(p.step) *
                                                            static_cast<double>(p.steps - p.step))
                                     : 0;
    std::snprintf(
        text, sizeof text,
        "step %5lld/%lld  loss %.3f  mtp %.3f  lr %.1e  grad %.2f  MaxVio %.2f  %s tok/s  left %lld:%02lld",
        static_cast<long long>(p.step), static_cast<long long>(p.steps), p.loss, p.mtp_loss, p.rate,
        p.grad_norm, p.max_violation, with_commas(static_cast<int64_t>(p.tokens_per_second)).c_str(),
        static_cast<long long>(left / 60), static_cast<long long>(left % 60));
    std::fprintf(stderr, terminal_ && !last ? "\r%s  " : terminal_ ? "\r%s  \n" : "%s\n", text);
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO);
  double shown_ = 0;
};

}  // namespace

Tokenizer learn_tokenizer(const std::string& text, int64_t vocab_size, const std::filesystem::path& out) {
  const std::string_view texts[] = {text};
  const TrainedTokenizer trained = train_tokenizer({.vocab_size = vocab_size}, texts);
  save_tokenizer(trained, out);
  return Tokenizer::load(out);
}

void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& out) {
  const std::filesystem::path folder = std::filesystem::is_directory(from) ? from : from.parent_path();
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    if (std::filesystem::exists(folder / file)) write_file(out / file, read_file(folder / file));
}

TrainedModel train_and_save(ModelConfig config, const Tokenizer& tokenizer, const std::string& text,
                            const TrainLoopConfig& loop, const std::filesystem::path& out) {
  if (tokenizer.vocab_size() > config.vocab_size)
    throw Error(ErrorCode::kInvalidConfig,
                cat("[cli.train] the tokenizer has ", tokenizer.vocab_size(), " tokens, vocab_size is ",
                    config.vocab_size, ". Raise vocab_size or learn a smaller tokenizer."));
  if (loop.length > config.max_positions)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[cli.train] --length is ", loop.length, ", the model's context is ",
                    config.max_positions, ". Choose a shorter length."));
  config.bos_id = tokenizer.bos_id().value_or(-1);
  config.eos_ids.clear();
  if (tokenizer.eos_id()) config.eos_ids.push_back(*tokenizer.eos_id());
  config.stored_dtype = DType::kF32;
  const std::vector<int32_t> ids = tokenizer.encode(text, /*parse_special=*/false);
  const TokenSplit tokens = split_tokens(ids, kHeldOutShare, loop.length + 1 + config.mtp_depth);
  std::fprintf(stderr, "%s bytes of text, %s tokens (%.2f bytes each), the last tenth held out\n",
               with_commas(static_cast<int64_t>(text.size())).c_str(),
               with_commas(static_cast<int64_t>(ids.size())).c_str(),
               static_cast<double>(text.size()) / static_cast<double>(ids.size()));

  TrainedModel result{.model = Transformer(config, random_weights(config, loop.seed))};
  result.before = evaluate(result.model, tokens.held_out, loop.length, kHeldOutWindows);
  const InterruptWatch watch;
  result.last = train(result.model, tokens, loop, ProgressLine(), &watch.flag());
  result.interrupted = watch.flag();
  result.after = evaluate(result.model, tokens.held_out, loop.length, kHeldOutWindows);
  save_model(out, config, result.model.weights());
  if (result.last.skipped > 0)
    std::fprintf(stderr, "%lld steps had a non-finite gradient and were left out\n",
                 static_cast<long long>(result.last.skipped));
  std::fprintf(stderr, "held-out loss %.3f before, %.3f after %lld steps (%.0f s, %s tokens/s)",
               result.before.loss, result.after.loss, static_cast<long long>(result.last.step),
               result.last.seconds, with_commas(static_cast<int64_t>(result.last.tokens_per_second)).c_str());
  if (config.mtp_depth > 0)
    std::fprintf(stderr, "; MTP guesses %.0f %% of the next tokens", 100 * result.after.mtp_acceptance);
  std::fprintf(stderr, "\nsaved to %s\n", out.c_str());
  return result;
}

}  // namespace hadal
