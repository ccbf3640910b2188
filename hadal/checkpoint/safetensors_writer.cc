#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "hadal/base/check.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr int64_t kAlignment = 64;  // of the data section

std::string shard_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  const auto five = [](size_t n) {
    const std::string digits = std::to_string(n);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  };
  return cat("model-", five(index + 1), "-of-", five(count), ".safetensors");
}

// Every check that can fail, before a file is created.
std::vector<TensorHead> checked(std::vector<TensorHead> heads) {
  std::set<std::string> names;
  for (const TensorHead& head : heads) {
    if (head.name == "__metadata__" || !is_utf8(head.name) || !names.insert(head.name).second)
      throw Error(ErrorCode::kInvalidArgument, cat("[checkpoint.write] tensor name \"", head.name,
                                                   "\" is reserved, not UTF-8 or given twice."));
    HADAL_CHECK(std::all_of(head.shape.begin(), head.shape.end(), [](int64_t n) { return n >= 0; }))
        << head.name;
  }
  const auto rank = [](const TensorHead& head) {  // smaller comes first
    return head.num_bytes() % kAlignment == 0 ? -kAlignment : -size_bytes(head.type);
  };
  std::stable_sort(heads.begin(), heads.end(),
                   [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return heads;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorHead> heads,
                                     const std::map<std::string, std::string>& metadata)
    : heads_(checked(std::move(heads))), file_(path) {
  Json header = Json::object();
  auto& object = header.get_ref<Json::object_t&>();  // names are known to differ: append without a search
  if (!metadata.empty()) object.Container::emplace_back("__metadata__", Json(metadata));
  for (const TensorHead& head : heads_) {
    const uint64_t begin = missing_;
    missing_ += static_cast<uint64_t>(head.num_bytes());
    object.Container::emplace_back(
        head.name,
        Json{{"dtype", name(head.type)}, {"shape", head.shape}, {"data_offsets", {begin, missing_}}});
  }
  std::string text = dump_json(header);
  const size_t past = (8 + text.size()) % kAlignment;
  text.append(past ? kAlignment - past : 0, ' ');
  if (text.size() > kMaxHeaderBytes)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[checkpoint.write] ", path.string(), ": the header would take ", text.size(),
                    " bytes, need at most ", kMaxHeaderBytes, ". Write more shards."));
  char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  file_.write(length, sizeof length);
  file_.write(text);
}

void SafetensorsWriter::write(const void* data, size_t size) {
  HADAL_CHECK(size <= missing_) << "more bytes than the heads announced";
  missing_ -= size;
  file_.write(data, size);
}

void SafetensorsWriter::finish() {
  HADAL_CHECK(missing_ == 0) << missing_ << " bytes of the announced tensors are missing";
  file_.commit();
}

std::vector<std::vector<TensorHead>> plan_shards(const std::vector<TensorHead>& heads, int64_t max_bytes) {
  std::vector<std::vector<TensorHead>> shards(1);
  int64_t used = 0;
  for (const TensorHead& head : heads) {
    const int64_t bytes = head.num_bytes();
    if (!shards.back().empty() && used + bytes > max_bytes) {
      shards.emplace_back();
      used = 0;
    }
    used += bytes;
    shards.back().push_back(head);
  }
  return shards;
}

void write_checkpoint(const std::filesystem::path& folder, const std::vector<TensorHead>& heads,
                      int64_t max_shard_bytes,
                      const std::function<void(const TensorHead&, SafetensorsWriter&)>& fill) {
  checked(heads);  // duplicates across shards
  const auto shards = plan_shards(heads, max_shard_bytes);
  std::map<std::string, std::string> weight_map;
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string file = shard_name(i, shards.size());
    SafetensorsWriter writer(folder / file, shards[i]);
    for (const TensorHead& head : writer.heads()) {
      fill(head, writer);
      total += head.num_bytes();
      weight_map.emplace(head.name, file);
    }
    writer.finish();
  }
  if (shards.size() == 1) return;
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", Json(weight_map)}};
  write_file(folder / "model.safetensors.index.json", dump_json(index, 2) + "\n");
}

}  // namespace hadal
