#include "hadal/cli/flags.h"
#include "hadal/cli/options.h"

namespace hadal {
namespace {

void set_flags(CLI::App& app, DataOptions& o) {
  count_flag(app, "--shard-tokens", o.shard_tokens, "start a new shard beyond this; documents are not cut");
  number_flag(
      app, "--held-out", o.held_out, "share never trained on", [](double x) { return x >= 0 && x < 1; },
      "a number of at least 0, below 1");
  count_or_zero_flag(app, "--seed", o.seed, "of the choice of held-out documents and split tokens");
  app.add_flag("--overwrite", o.overwrite, "replace a data set that is there");
  json_flag(app, o.json);
}

void path(CLI::App& app, DataOptions& o) {
  file_flag(app, "PATH", o.path, "folder or manifest of a data set, or a token file")->required();
  json_flag(app, o.json);
}

}  // namespace

void add_data_build(CLI::App& app, DataOptions& o) {
  file_flag(app, "OUT", o.out, "folder to write", "DIR")->required();
  file_flag(app, "--tokenizer", o.tokenizer, "tokenizer.json or its folder")->required();
  app.add_option("--input", o.inputs, "file to read; may be given several times")
      ->type_name("FILE")
      ->required();
  choice_flag(app, "--format", o.format, "of the input", {"text", "jsonl"});
  app.add_option("--field", o.field, "jsonl: the field with the text")
      ->type_name("NAME")
      ->capture_default_str();
  choice_flag(app, "--split-documents", o.split, "text: what is a document; jsonl: each line is",
              {"file", "blank-line", "line"});
  app.add_option("--eos", o.eos, "token between documents; default: the tokenizer's own")->type_name("TOKEN");
  number_flag(
      app, "--split-merged", o.split_merged,
      "share of the tokens of punctuation and line breaks that is split in two (V3)",
      [](double x) { return x >= 0 && x <= 1; }, "a number from 0 to 1");
  count_or_zero_flag(app, "--workers", o.workers, "threads; 0: all cores");
  set_flags(app, o);
}

void add_data_convert(CLI::App& app, DataOptions& o) {
  file_flag(app, "SOURCE", o.path, "llm.c or nanoGPT .bin, Megatron .idx, or a folder of .bin files")
      ->required();
  file_flag(app, "OUT", o.out, "folder to write", "DIR")->required();
  file_flag(app, "--tokenizer", o.tokenizer, "that made the tokens; its EOS separates documents");
  count_or_zero_flag(app, "--eos", o.eos_id, "id that separates documents in SOURCE")->default_str("");
  count_or_zero_flag(app, "--vocab-size", o.vocab_size, "0: what is known, or the largest id + 1");
  set_flags(app, o);
}

void add_data_stories(CLI::App& app, DataOptions& o) {
  file_flag(app, "--out", o.out, "text file to write")->required();
  count_flag(app, "--bytes", o.bytes, "of text, or a little more");
  count_or_zero_flag(app, "--seed", o.seed, "of the stories");
}

void add_data_info(CLI::App& app, DataOptions& o) {
  path(app, o);
}

void add_data_verify(CLI::App& app, DataOptions& o) {
  path(app, o);
}

}  // namespace hadal
