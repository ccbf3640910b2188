#include "hadal/cli/flags.h"
#include "hadal/cli/options.h"
#include "hadal/tokenizer.h"

namespace hadal {
namespace {

void tokenizer_and_json(CLI::App& app, TokenizerOptions& o) {
  file_flag(app, "TOKENIZER", o.tokenizer, "tokenizer.json or the folder that holds it")->required();
  json_flag(app, o.json);
}

}  // namespace

void add_tokenizer_encode(CLI::App& app, TokenizerOptions& o) {
  tokenizer_and_json(app, o);
  app.add_option("TEXT", o.text, "text to encode; none: from --file")->type_name("TEXT");
  file_flag(app, "--file", o.file, "file with the text; -: stdin");
  app.add_flag("--plain", o.plain, "special tokens spelled in the text are plain text");
  app.add_flag("--bos", o.bos, "add BOS and EOS as the tokenizer asks for");
}

void add_tokenizer_decode(CLI::App& app, TokenizerOptions& o) {
  tokenizer_and_json(app, o);
  const auto refuse = [](const std::string& text) -> std::string {
    int32_t id = 0;
    return parse_number(text, id) && id >= 0 ? "" : cat("got \"", text, "\", need a token id");
  };
  app.add_option("ID", o.ids, "token ids; none: from --file")->type_name("N")->check(refuse, "");
  file_flag(app, "--file", o.file, "file with token ids; -: stdin");
  app.add_flag("--skip-special", o.skip_special, "leave out special tokens");
}

void add_tokenizer_info(CLI::App& app, TokenizerOptions& o) {
  tokenizer_and_json(app, o);
}

void add_tokenizer_chat(CLI::App& app, TokenizerOptions& o) {
  tokenizer_and_json(app, o);
  file_flag(app, "--messages", o.messages, "JSON file: [{\"role\": ..., \"content\": ...}]; -: stdin")
      ->required();
  choice_flag(app, "--template", o.chat_template, "chat format instead of the tokenizer's own",
              ChatTemplate::names());
  app.add_flag("--no-generation-prompt", o.no_generation_prompt, "do not open the assistant's turn");
  app.add_flag("--thinking", o.thinking, "v3.1: open the turn with <think>");
  app.add_flag("--ids", o.as_ids, "print token ids instead of the text");
}

void add_tokenizer_train(CLI::App& app, TokenizerTrainOptions& o) {
  app.add_option("--data", o.data, "UTF-8 text; may be given several times")
      ->type_name("FILE")
      ->allow_extra_args(false)
      ->required();
  file_flag(app, "--out", o.out, "folder for tokenizer.json and tokenizer_config.json", "DIR")->required();
  choice_flag(app, "--kind", o.kind, "byte-level BPE, bytes, or characters", {"bpe", "byte", "char"});
  count_flag(app, "--vocab-size", o.vocab_size, "bpe: tokens in all");
  count_flag(app, "--min-pair-count", o.min_pair_count, "bpe: rarer pairs are not merged");
  app.add_option("--special", o.special, "one more special token; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  json_flag(app, o.json);
}

}  // namespace hadal
