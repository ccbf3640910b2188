#include "hadal/checkpoint.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_set>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/index.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/error.h"

namespace hadal {
namespace fs = std::filesystem;

namespace {

constexpr const char* kIndexName = "model.safetensors.index.json";

Json read_index_json(const fs::path& path) {
  const std::string text = read_file(path, size_t{1} << 30);
  try {
    return parse_json(text, path.string());
  } catch (const Error& e) {
    const std::string what = e.what();
    throw Error(ErrorCode::kCorrupt, cat("[checkpoint.open] ", what.substr(what.find(' ') + 1),
                                         ". The shard index is damaged: copy or download it again."));
  }
}

bool plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

}  // namespace

CheckpointFiles find_checkpoint_files(const fs::path& path) {
  std::error_code ignored;
  CheckpointFiles found;
  if (fs::is_directory(path, ignored)) {
    found.folder = path;
    const fs::path single = path / "model.safetensors", index = path / kIndexName;
    if (fs::exists(index, ignored)) {
      found.index = index;
    } else if (fs::exists(single, ignored)) {
      found.files = {single};
    } else {
      throw Error(ErrorCode::kNotFound,
                  cat("[checkpoint.open] ", path.string(), ": neither model.safetensors nor ", kIndexName,
                      " is there. Give the folder that holds the weights."));
    }
    return found;
  }
  found.folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (path.extension() == ".json") {
    found.index = path;
  } else {
    found.files = {path};
  }
  return found;
}

ShardIndex read_index(const fs::path& path) {
  const Json root = read_index_json(path);
  const auto fail = [&](const auto&... parts) {
    throw Error(ErrorCode::kCorrupt, cat("[checkpoint.open] ", path.string(), ": ", parts...));
  };
  if (!root.is_object() || !root.contains("weight_map"))
    fail("weight_map is missing. This is not a shard index.");
  const Json& map = root["weight_map"];
  if (!map.is_object()) fail("weight_map is not an object of tensor names and files.");
  ShardIndex index;
  std::set<std::string> files;
  for (const auto& [tensor, file] : map.items()) {
    if (!file.is_string()) fail("weight_map field ", tensor, " is ", dump_json(file), ", need a file name.");
    const std::string name = file.get<std::string>();
    if (!plain_file_name(name))
      fail("weight_map field ", tensor, " names the file ", dump_json(file),
           ", need a plain name in the same folder.");
    files.insert(name);
    index.file_of.emplace_back(tensor, name);
  }
  if (files.empty()) fail("weight_map is empty.");
  index.files.assign(files.begin(), files.end());
  if (root.contains("metadata") && root["metadata"].is_object() && root["metadata"].contains("total_size")) {
    const Json& size = root["metadata"]["total_size"];
    const bool whole = size.is_number() && size.get<double>() >= 0 && size.get<double>() < 9e15;
    if (!whole) fail("metadata.total_size is ", dump_json(size), ", need a number of bytes.");
    index.total_size = static_cast<int64_t>(size.get<double>());
  }
  return index;
}

std::vector<std::string> check_index(const ShardIndex& index, const fs::path& path,
                                     const Checkpoint& checkpoint) {
  std::vector<std::string> problems;
  const auto problem = [&](const auto&... parts) {
    problems.push_back(cat("[checkpoint.open] ", path.string(), ": ", parts...));
  };
  const auto file_of = [&](const StoredTensor& tensor) { return index.files[tensor.shard]; };
  std::unordered_set<std::string_view> mapped;
  for (const auto& [name, file] : index.file_of) {
    mapped.insert(name);
    const StoredTensor* tensor = checkpoint.find(name);
    if (!tensor) {
      problem("weight_map puts ", name, " into ", file,
              ", which does not hold it. Index and shards are of different models.");
    } else if (file_of(*tensor) != file) {
      problem("weight_map puts ", name, " into ", file, ", but it is in ", file_of(*tensor), ".");
    }
  }
  int64_t bytes = 0;
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    bytes += static_cast<int64_t>(tensor->bytes.size());
    if (!mapped.count(tensor->name))
      problem("weight_map lacks ", tensor->name, ", which ", file_of(*tensor), " holds.");
  }
  if (problems.empty() && index.total_size >= 0 && index.total_size != bytes)
    problem("metadata.total_size is ", index.total_size, ", but the shards hold ", bytes,
            " bytes. Remake the index.");
  return problems;
}

Checkpoint open_checkpoint(const fs::path& path) {
  CheckpointFiles found = find_checkpoint_files(path);
  Checkpoint checkpoint;
  checkpoint.path_ = path;
  checkpoint.folder_ = found.folder;
  ShardIndex index;
  if (!found.index.empty()) {
    index = read_index(found.index);
    for (const std::string& name : index.files) {
      found.files.push_back(found.folder / name);
      std::error_code ignored;
      if (!fs::exists(found.files.back(), ignored))
        throw Error(ErrorCode::kNotFound, cat("[checkpoint.open] ", found.index.string(), ": shard ", name,
                                              " is missing. Copy or download it."));
    }
  }
  auto files = std::make_shared<std::vector<SafetensorsFile>>();
  for (size_t i = 0; i < found.files.size(); ++i) files->emplace_back(found.files[i], i);
  for (const SafetensorsFile& file : *files) {
    checkpoint.metadata_.insert(file.metadata().begin(), file.metadata().end());
    for (const StoredTensor& tensor : file.tensors()) {
      checkpoint.tensors_.push_back(&tensor);
      const auto [it, added] = checkpoint.by_name_.emplace(tensor.name, &tensor);
      if (!added)
        throw Error(ErrorCode::kCorrupt,
                    cat("[checkpoint.open] ", file.path().string(), ": tensor ", tensor.name, " is also in ",
                        (*files)[it->second->shard].path().string(), "."));
    }
  }
  checkpoint.files_ = std::move(files);
  if (!found.index.empty()) {
    const auto problems = check_index(index, found.index, checkpoint);
    if (!problems.empty()) throw Error(ErrorCode::kCorrupt, problems.front());
  }
  return checkpoint;
}

const StoredTensor* Checkpoint::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

const StoredTensor& Checkpoint::at(const std::string& name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  std::vector<std::string> names;
  for (const StoredTensor* tensor : tensors_) names.push_back(tensor->name);
  throw Error(ErrorCode::kNotFound, cat("[checkpoint.read] ", path_.string(), ": no tensor ", name,
                                        did_you_mean(name, names), "."));
}

fs::path Checkpoint::file(size_t shard) const {
  return files_->at(shard).path();
}

size_t Checkpoint::num_files() const {
  return files_->size();
}

}  // namespace hadal
