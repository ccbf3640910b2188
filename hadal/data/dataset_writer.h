// A data set on disk as it grows: documents in, shards and manifest out. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "hadal/data/manifest.h"

namespace hadal {

struct DatasetFacts {
  int64_t vocab_size = 0;
  int32_t eos_id = -1;
  FimIds fim;
  Sha256Digest tokenizer{};         // zero: unknown
  int64_t shard_tokens = 1 << 25;   // a shard is written when it has as many
  std::vector<std::string> inputs;  // for people
};

// Shards appear whole; manifest.json comes last, so a folder without one is no data set. Memory: two shards.
class DatasetWriter {
 public:
  // `folder` is created. Throws invalid_argument if it holds anything but the shards of a build that did not
  // finish (which are removed); with `overwrite`, a data set there goes too.
  DatasetWriter(std::filesystem::path folder, const DatasetFacts& facts, bool overwrite);

  // Empty documents are left out. Throws invalid_argument for an id outside the vocabulary (at the latest
  // when the shard is written).
  void add(std::span<const int32_t> ids, bool held_out);

  // Throws invalid_argument if there is nothing to train on.
  Manifest finish();

 private:
  struct Part {
    const char* name;
    ManifestPart* written;
    std::vector<int64_t> begins = {0};
    std::vector<int32_t> ids;
  };
  void flush(Part& part);

  std::filesystem::path folder_;
  DatasetFacts facts_;
  Manifest manifest_;
  Part train_{"train", &manifest_.train}, held_out_{"held-out", &manifest_.held_out};
};

}  // namespace hadal
