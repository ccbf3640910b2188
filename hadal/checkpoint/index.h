// The files of a checkpoint: model.safetensors, or shards named by model.safetensors.index.json.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "hadal/checkpoint.h"

namespace hadal {

struct CheckpointFiles {
  std::filesystem::path folder;
  std::filesystem::path index;               // empty: no index
  std::vector<std::filesystem::path> files;  // empty if there is an index
};

// What `path` (folder, file or index) stands for. Throws not_found.
CheckpointFiles find_checkpoint_files(const std::filesystem::path& path);

struct ShardIndex {
  std::vector<std::pair<std::string, std::string>> file_of;  // tensor, shard; as in the file
  std::vector<std::string> files;                            // sorted; plain names, never a path
  int64_t total_size = -1;                                   // -1: not stated
};

// Throws corrupt: bad JSON, bad fields, shard names that lead out of the folder.
ShardIndex read_index(const std::filesystem::path& path);

// Does the index agree with the tensors found? One whole error text per difference.
std::vector<std::string> check_index(const ShardIndex& index, const std::filesystem::path& path,
                                     const Checkpoint& checkpoint);

}  // namespace hadal
