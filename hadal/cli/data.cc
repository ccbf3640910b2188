#include <algorithm>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/data/build.h"
#include "hadal/data/document_set.h"
#include "hadal/data/story_text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

std::string part_text(const char* name, int64_t documents, int64_t tokens, size_t files) {
  return cat("  ", name, with_commas(documents), " documents, ", with_commas(tokens), " tokens, ", files,
             files == 1 ? " file\n" : " files\n");
}

void print_written(const DataOptions& options, const Manifest& manifest) {
  if (options.json) {
    const auto part = [](const ManifestPart& p) {
      return Json{{"documents", p.documents()}, {"tokens", p.tokens()}, {"shards", p.shards.size()}};
    };
    print(dump_json({{"out", options.out},
                     {"vocab_size", manifest.vocab_size},
                     {"eos_id", manifest.eos_id},
                     {"train", part(manifest.train)},
                     {"held_out", part(manifest.held_out)}}) +
          "\n");
    return;
  }
  const ManifestPart &train = manifest.train, &held_out = manifest.held_out;
  print(cat("wrote ", options.out, "\n",
            part_text("train     ", train.documents(), train.tokens(), train.shards.size()),
            part_text("held out  ", held_out.documents(), held_out.tokens(), held_out.shards.size())));
  if (manifest.eos_id < 0) print("  no EOS: documents follow each other without a token between them\n");
}

Json part_json(const DocumentSet& set) {
  Json files = Json::array();
  for (const TokenFile& file : set.files())
    files.push_back({{"file", file.path().string()},
                     {"documents", file.num_documents()},
                     {"tokens", file.num_tokens()},
                     {"token_bytes", file.token_bytes()}});
  return {{"documents", set.size()}, {"tokens", set.tokens()}, {"files", files}};
}

}  // namespace

int run_data_build(const DataOptions& options) {
  BuildOptions build;
  build.out = options.out;
  build.tokenizer = options.tokenizer;
  build.inputs.assign(options.inputs.begin(), options.inputs.end());
  if (options.format == "jsonl" && options.split != "file")
    throw Error(ErrorCode::kInvalidArgument,
                "[cli.data] --split-documents is for text: of jsonl, each line is a document. Leave it out.");
  build.split = parse_document_split(options.format == "jsonl" ? "jsonl" : options.split);
  build.field = options.field;
  build.shard_tokens = options.shard_tokens;
  build.held_out_share = options.held_out;
  build.seed = options.seed;
  build.split_merged = options.split_merged;
  build.eos = options.eos;
  build.workers = options.workers;
  build.overwrite = options.overwrite;
  print_written(options, build_dataset(build));
  return 0;
}

int run_data_convert(const DataOptions& options) {
  ConvertDataOptions convert;
  convert.source = options.path;
  convert.out = options.out;
  convert.tokenizer = options.tokenizer;
  if (options.eos_id >= 0)
    convert.eos_id = static_cast<int32_t>(std::min<int64_t>(options.eos_id, INT32_MAX));
  convert.vocab_size = options.vocab_size;
  convert.shard_tokens = options.shard_tokens;
  convert.held_out_share = options.held_out;
  convert.seed = options.seed;
  convert.overwrite = options.overwrite;
  print_written(options, convert_dataset(convert));
  return 0;
}

int run_data_stories(const DataOptions& options) {
  write_file(options.out, story_text(options.seed, options.bytes));
  return 0;
}

int run_data_info(const DataOptions& options) {
  const OpenSource source = open_source(options.path, 0);
  if (options.json) {
    print(dump_json({{"path", options.path},
                     {"format", source.format},
                     {"vocab_size", source.vocab_size},
                     {"eos_id", source.eos_id},
                     {"fim", source.fim.known()},
                     {"tokenizer_sha256", source.tokenizer_sha256},
                     {"train", part_json(source.train)},
                     {"held_out", part_json(source.held_out)}}) +
          "\n");
    return 0;
  }
  print(cat(options.path, ": ", source.format, "\n",
            part_text("train      ", source.train.size(), source.train.tokens(), source.train.files().size()),
            part_text("held out   ", source.held_out.size(), source.held_out.tokens(),
                      source.held_out.files().size()),
            "  vocabulary ", source.vocab_size > 0 ? with_commas(source.vocab_size) : "not stated", ", EOS ",
            source.eos_id >= 0 ? std::to_string(source.eos_id) : "none", ", FIM tokens ",
            source.fim.known() ? "known" : "unknown", "\n  tokenizer  ",
            source.tokenizer_sha256.empty() ? "unknown" : "sha256 " + source.tokenizer_sha256, "\n"));
  return 0;
}

int run_data_verify(const DataOptions& options) {
  const OpenSource source = open_source(options.path, 0);
  int64_t files = 0, tokens = 0;
  for (const DocumentSet* set : {&source.train, &source.held_out})
    for (const TokenFile& file : set->files()) {
      file.verify(source.vocab_size > 0 ? source.vocab_size : INT32_MAX);
      ++files, tokens += file.num_tokens();
    }
  if (options.json)
    print(dump_json({{"path", options.path}, {"files", files}, {"tokens", tokens}, {"ok", true}}) + "\n");
  else
    print(cat(options.path, ": ", files, files == 1 ? " file, " : " files, ", with_commas(tokens),
              " tokens, all right",
              source.format == "hadal" ? "" : " (this format carries no hash: only ids were checked)", "\n"));
  return 0;
}

}  // namespace hadal
