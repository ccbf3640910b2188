// manifest.json of a data set: which shards there are and what made them. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/data/document_set.h"

namespace hadal {

struct ManifestShard {
  std::string file;  // beside the manifest
  int64_t documents = 0, tokens = 0;
  std::string sha256;  // as in the shard's header
};

struct ManifestPart {
  std::vector<ManifestShard> shards;
  int64_t documents() const;
  int64_t tokens() const;
};

struct Manifest {
  int64_t vocab_size = 0;
  int32_t eos_id = -1;
  FimIds fim;
  std::string tokenizer_sha256;  // of tokenizer.json; "": unknown
  ManifestPart train, held_out;
  std::vector<std::string> inputs;  // for people: what it was made from
};

// Throws not_found, corrupt (naming the field).
Manifest read_manifest(const std::filesystem::path& path);
void write_manifest(const Manifest& manifest, const std::filesystem::path& path);

}  // namespace hadal
