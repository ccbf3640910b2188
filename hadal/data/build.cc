#include "hadal/data/build.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <thread>

#include "hadal/base/file.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/data/dataset_writer.h"
#include "hadal/data/document_forms.h"
#include "hadal/data/merged_tokens.h"
#include "hadal/data/ordered_work.h"
#include "hadal/error.h"
#include "hadal/tokenizer.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, cat("[data.build] ", what));
}

void check_shares(double held_out_share, int64_t shard_tokens) {
  if (!(held_out_share >= 0 && held_out_share < 1))
    refuse(cat("held-out share: got ", held_out_share, ", need 0 or more, below 1."));
  if (shard_tokens < 1) refuse(cat("tokens of a shard: got ", shard_tokens, ", need at least 1."));
}

fs::path tokenizer_file(const fs::path& path) {
  return fs::is_directory(path) ? path / "tokenizer.json" : path;
}

// Token ids of the three marks, in the spellings of the published tokenizers.
FimIds find_fim(const Tokenizer& tokenizer) {
  const char* const spellings[][3] = {{"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},
                                      {"<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"}};
  for (const auto& names : spellings) {
    const auto begin = tokenizer.token_to_id(names[0]), hole = tokenizer.token_to_id(names[1]),
               end = tokenizer.token_to_id(names[2]);
    if (begin && hole && end) return {*begin, *hole, *end};
  }
  return {};
}

DatasetFacts facts_of(const Tokenizer& tokenizer, const fs::path& path, const std::string& eos) {
  DatasetFacts facts;
  facts.vocab_size = tokenizer.vocab_size();
  facts.eos_id = tokenizer.eos_id().value_or(-1);
  if (!eos.empty()) {
    const auto id = tokenizer.token_to_id(eos);
    if (!id) refuse(cat("EOS \"", eos, "\" is not in ", path.string(), "."));
    facts.eos_id = *id;
  }
  facts.fim = find_fim(tokenizer);
  facts.tokenizer = sha256(MappedFile(tokenizer_file(path)).text());
  return facts;
}

// The data set explains itself: its tokenizer lies beside it. Copied before the manifest, which makes it one.
void copy_tokenizer(const fs::path& tokenizer, const fs::path& out) {
  const fs::path file = tokenizer_file(tokenizer);
  write_file(out / "tokenizer.json", MappedFile(file).text());
  const fs::path config = file.parent_path() / "tokenizer_config.json";
  if (fs::exists(config)) write_file(out / "tokenizer_config.json", MappedFile(config).text());
}

bool is_parquet(const MappedFile& file) {
  return file.path().extension() == ".parquet" || file.text().starts_with("PAR1");
}

struct Job {
  std::shared_ptr<const MappedFile> file;
  size_t input = 0;
  TextPiece piece;
};

struct Encoded {
  std::vector<int32_t> ids;
  std::vector<int64_t> ends;  // of each document in ids
  std::vector<bool> held_out;
};

// Pieces of all inputs, one file mapped at a time.
class Inputs {
 public:
  explicit Inputs(const BuildOptions& options) : options_(options) {}

  std::optional<Job> next() {
    TextPiece piece;
    while (!cutter_ || !cutter_->next(piece)) {
      if (index_ == options_.inputs.size()) return std::nullopt;
      file_ = std::make_shared<MappedFile>(options_.inputs[index_++]);
      if (is_parquet(*file_))
        throw Error(ErrorCode::kUnsupported, cat("[data.build] ", file_->path().string(),
                                                 ": Parquet is not read. Convert it to JSONL first."));
      cutter_.emplace(file_->text(), options_.split);
    }
    return Job{file_, index_ - 1, piece};
  }

 private:
  const BuildOptions& options_;
  std::shared_ptr<const MappedFile> file_;
  std::optional<PieceCutter> cutter_;
  size_t index_ = 0;
};

// The first byte of a character at or after `at`.
size_t character_border(std::string_view text, size_t at) {
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
  return at;
}

Encoded encode(const Job& job, const Tokenizer& tokenizer, const MergedTokens& merged,
               const BuildOptions& options) {
  Encoded out;
  const uint64_t merged_stream = substream(stream_id("data.merged"), job.input);
  const auto add = [&](std::string_view text, int64_t at, bool held_out) {
    std::vector<int32_t> ids = tokenizer.encode(text, /*parse_special=*/false);
    if (!held_out)
      ids = merged.split(std::move(ids), options.split_merged, options.seed,
                         substream(merged_stream, static_cast<uint64_t>(at)));
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.ends.push_back(static_cast<int64_t>(out.ids.size()));
    out.held_out.push_back(held_out);
  };
  const double share = options.held_out_share;
  const uint64_t stream = substream(stream_id("data.held_out"), job.input);
  for_each_document(
      job.piece, options.split, options.field, job.file->path(), [&](std::string_view text, int64_t at) {
        if (options.split != DocumentSplit::kFile)
          return add(text, at, uniform(options.seed, stream, static_cast<uint64_t>(at)) <= share);
        const auto size = static_cast<double>(text.size());
        const size_t cut = character_border(text, static_cast<size_t>(size - size * share));
        if (cut > 0) add(text.substr(0, cut), at, false);
        if (cut < text.size()) add(text.substr(cut), at, true);
      });
  return out;
}

// Takes documents out of a stream of tokens in which `separator` ends or starts them.
class DocumentCutter {
 public:
  DocumentCutter(int64_t separator, std::function<void(std::span<const int32_t>)> take)
      : separator_(separator), take_(std::move(take)) {}
  void push(std::span<const int32_t> ids) {
    for (const int32_t id : ids)
      if (id == separator_)
        end();
      else
        document_.push_back(id);
  }
  void end() {
    if (!document_.empty()) take_(document_);
    document_.clear();
  }

 private:
  int64_t separator_;
  std::function<void(std::span<const int32_t>)> take_;
  std::vector<int32_t> document_;
};

// Every document of the set, cut at `separator`.
void cut_documents(const DocumentSet& set, int64_t separator, int64_t vocab_size,
                   const std::function<void(std::span<const int32_t>)>& take) {
  DocumentCutter cutter(separator, take);
  std::vector<int32_t> ids(1 << 16);
  for (int64_t d = 0; d < set.size(); ++d) {
    const DocumentTokens tokens = set.at(d);
    for (int64_t at = 0; at < tokens.count; at += static_cast<int64_t>(ids.size())) {
      const int64_t count = std::min(tokens.count - at, static_cast<int64_t>(ids.size()));
      tokens.file->read(tokens.begin + at, count, ids.data(), vocab_size);
      cutter.push({ids.data(), static_cast<size_t>(count)});
    }
    cutter.end();
  }
}

int64_t largest_vocabulary(const OpenSource& source) {
  int64_t size = source.vocab_size;
  if (size > 0) return size;
  for (const DocumentSet* set : {&source.train, &source.held_out})
    for (const TokenFile& file : set->files()) size = std::max(size, file.largest_id() + 1);
  return size;
}

}  // namespace

Manifest build_dataset(const BuildOptions& options) {
  check_shares(options.held_out_share, options.shard_tokens);
  if (!(options.split_merged >= 0 && options.split_merged <= 1))
    refuse(cat("share of merged tokens: got ", options.split_merged, ", need 0 to 1."));
  if (options.inputs.empty()) refuse("no input files.");
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  DatasetFacts facts = facts_of(tokenizer, options.tokenizer, options.eos);
  facts.shard_tokens = options.shard_tokens;
  for (const fs::path& input : options.inputs) {
    MappedFile exists(input);  // a name mistyped last is noticed first
    facts.inputs.push_back(input.filename().string());
  }
  const MergedTokens merged(tokenizer);
  if (options.split_merged > 0 && merged.size() == 0)
    refuse(cat(options.tokenizer.string(),
               " has no tokens that join punctuation and line breaks, so there is ",
               "nothing to split. Leave out the share of merged tokens."));
  DatasetWriter writer(options.out, facts, options.overwrite);
  Inputs inputs(options);
  const int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  ordered_work<Job, Encoded>(
      options.workers > 0 ? options.workers : cores, [&] { return inputs.next(); },
      [&](const Job& job) { return encode(job, tokenizer, merged, options); },
      [&](Encoded encoded) {
        int64_t begin = 0;
        for (size_t i = 0; i < encoded.ends.size(); ++i) {
          const std::span<const int32_t> all(encoded.ids);
          const auto count = static_cast<size_t>(encoded.ends[i] - begin);
          writer.add(all.subspan(static_cast<size_t>(begin), count), encoded.held_out[i]);
          begin = encoded.ends[i];
        }
      });
  copy_tokenizer(options.tokenizer, options.out);
  return writer.finish();
}

Manifest convert_dataset(const ConvertDataOptions& options) {
  check_shares(options.held_out_share, options.shard_tokens);
  const OpenSource source = open_source(options.source, 0);
  if (source.format == "hadal") refuse(cat(options.source.string(), " is a data set of hadal's already."));
  DatasetFacts facts;
  if (!options.tokenizer.empty()) facts = facts_of(Tokenizer::load(options.tokenizer), options.tokenizer, "");
  if (options.vocab_size > 0) facts.vocab_size = options.vocab_size;
  if (facts.vocab_size == 0) facts.vocab_size = largest_vocabulary(source);
  if (source.format == "llm.c") facts.eos_id = source.vocab_size == 50257 ? 50256 : 128001;
  if (options.eos_id) facts.eos_id = *options.eos_id;
  if (facts.eos_id >= facts.vocab_size)
    refuse(cat("EOS: got ", facts.eos_id, ", need below the vocabulary, ", facts.vocab_size, "."));
  facts.shard_tokens = options.shard_tokens;
  facts.inputs = {options.source.filename().string()};
  DatasetWriter writer(options.out, facts, options.overwrite);
  const uint64_t stream = stream_id("data.held_out");
  const bool draw = source.held_out.size() == 0 && options.held_out_share > 0;
  uint64_t number = 0;
  cut_documents(source.train, facts.eos_id, facts.vocab_size, [&](std::span<const int32_t> ids) {
    writer.add(ids, draw && uniform(options.seed, stream, number++) <= options.held_out_share);
  });
  cut_documents(source.held_out, facts.eos_id, facts.vocab_size,
                [&](std::span<const int32_t> ids) { writer.add(ids, true); });
  if (!options.tokenizer.empty()) copy_tokenizer(options.tokenizer, options.out);
  return writer.finish();
}

}  // namespace hadal
