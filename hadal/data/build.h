// From text to a data set, and from other trainers' token files. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "hadal/data/document_reader.h"
#include "hadal/data/manifest.h"

namespace hadal {

struct BuildOptions {
  std::filesystem::path out;        // folder; also gets a copy of the tokenizer
  std::filesystem::path tokenizer;  // tokenizer.json or its folder
  std::vector<std::filesystem::path> inputs;
  DocumentSplit split = DocumentSplit::kFile;
  std::string field = "text";      // kJsonl
  int64_t shard_tokens = 1 << 25;  // about, per shard: documents are not cut
  // Never trained on: this share of the documents, drawn by (seed, file, byte); with kFile, the end of each
  // file. [0, 1)
  double held_out_share = 0;
  uint64_t seed = 0;
  double split_merged = 0;  // share of the tokens to train on that MergedTokens splits, drawn alike; [0, 1]
  std::string eos;          // token put between documents; "": the tokenizer's own EOS, if it has one
  int64_t workers = 0;      // threads; 0: as many as cores. The result does not depend on it.
  bool overwrite = false;
};

// Special tokens spelled in the text are plain text: a document cannot forge an EOS. Memory: two shards and,
// per worker, some pieces of a MiB or one document, whichever is more. Throws invalid_argument, not_found,
// corrupt (naming file and byte), exhausted.
Manifest build_dataset(const BuildOptions& options);

struct ConvertDataOptions {
  std::filesystem::path source, out;
  std::filesystem::path tokenizer;  // that made the tokens, if known; else "": no FIM, no check
  std::optional<int32_t> eos_id;    // separates documents in the source; llm.c: known
  int64_t vocab_size = 0;           // 0: the tokenizer's, the format's, or the largest id + 1
  int64_t shard_tokens = 1 << 25;
  double held_out_share = 0;  // of the documents, where the source has no validation files
  uint64_t seed = 0;
  bool overwrite = false;
};

// llm.c, nanoGPT and Megatron files as a data set: documents are cut at EOS, which is left out (rows get it
// back when read).
Manifest convert_dataset(const ConvertDataOptions& options);

}  // namespace hadal
