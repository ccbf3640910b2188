#include "hadal/data/dataset_writer.h"

#include <algorithm>
#include <cstdio>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

bool is_ours(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".tokens") || name.find(".tokens.partial-") != std::string::npos ||
         name == "manifest.json" || name == "tokenizer.json" || name == "tokenizer_config.json";
}

// Removes what an earlier build left, and nothing else.
void make_room(const fs::path& folder, bool overwrite) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::kUnavailable,
                cat("[data.build] ", folder.string(), ": cannot create this folder: ", error.message(), "."));
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!is_ours(entry.path()))
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[data.build] ", folder.string(), " holds \"", entry.path().filename().string(),
                      "\", which is no part of a data set. Choose an empty folder."));
    old.push_back(entry.path());
  }
  if (fs::exists(folder / "manifest.json") && !overwrite)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[data.build] ", folder.string(), " holds a data set. Add --overwrite to replace it."));
  fs::remove(folder / "manifest.json", error);  // first: from here on it is no data set
  for (const fs::path& file : old) fs::remove(file, error);
}

}  // namespace

DatasetWriter::DatasetWriter(fs::path folder, const DatasetFacts& facts, bool overwrite)
    : folder_(std::move(folder)), facts_(facts) {
  make_room(folder_, overwrite);
  manifest_.vocab_size = facts.vocab_size;
  manifest_.eos_id = facts.eos_id;
  manifest_.fim = facts.fim;
  if (facts.tokenizer != Sha256Digest{}) manifest_.tokenizer_sha256 = hex(facts.tokenizer);
  manifest_.inputs = facts.inputs;
}

void DatasetWriter::add(std::span<const int32_t> ids, bool held_out) {
  if (ids.empty()) return;
  Part& part = held_out ? held_out_ : train_;
  part.ids.insert(part.ids.end(), ids.begin(), ids.end());
  part.begins.push_back(static_cast<int64_t>(part.ids.size()));
  if (static_cast<int64_t>(part.ids.size()) >= facts_.shard_tokens) flush(part);
}

void DatasetWriter::flush(Part& part) {
  if (part.ids.empty()) return;
  char name[64];
  std::snprintf(name, sizeof name, "%s-%06zu.tokens", part.name, part.written->shards.size());
  const ShardHeader facts{
      .vocab_size = facts_.vocab_size, .eos_id = facts_.eos_id, .tokenizer = facts_.tokenizer};
  const ShardHeader header = write_shard(folder_ / name, part.begins, part.ids, facts);
  part.written->shards.push_back({name, header.documents, header.tokens, hex(header.content)});
  part.begins.assign(1, 0);
  part.ids.clear();
}

Manifest DatasetWriter::finish() {
  flush(train_);
  flush(held_out_);
  if (manifest_.train.shards.empty())
    throw Error(ErrorCode::kInvalidArgument,
                cat("[data.build] nothing to train on: got ", manifest_.held_out.documents(),
                    " documents, all held out. Need more text, or a smaller held-out share."));
  write_manifest(manifest_, folder_ / "manifest.json");
  return manifest_;
}

}  // namespace hadal
