#include "hadal/data/manifest.h"

#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr const char* kFormat = "hadal tokens";
constexpr int64_t kVersion = 1;

// Fields of one JSON object, with their names in errors.
struct Fields {
  const Json& object;
  const std::filesystem::path& path;
  std::string name;  // "train.shards[3]."

  [[noreturn]] void fail(const std::string& field, const std::string& what) const {
    throw Error(ErrorCode::kCorrupt, cat("[data.manifest] ", path.string(), ": ", name, field, ": ", what,
                                         ". Build the data set again."));
  }
  const Json& at(const std::string& field) const {
    const auto found = object.find(field);
    if (found == object.end()) fail(field, "missing");
    return *found;
  }
  int64_t integer(const std::string& field, int64_t low, int64_t high) const {
    const Json& value = at(field);
    if (!value.is_number_integer()) fail(field, "not an integer");
    const auto number = value.get<int64_t>();
    if (number < low || number > high) fail(field, cat("got ", number, ", need ", low, " to ", high));
    return number;
  }
  std::string text(const std::string& field) const {
    const Json& value = at(field);
    if (!value.is_string()) fail(field, "not a string");
    return value.get<std::string>();
  }
  Fields inside(const std::string& field) const {
    const Json& value = at(field);
    if (!value.is_object()) fail(field, "not an object");
    return {value, path, name + field + "."};
  }
};

ManifestPart read_part(const Fields& in) {
  const Json& shards = in.at("shards");
  if (!shards.is_array()) in.fail("shards", "not a list");
  ManifestPart part;
  for (size_t i = 0; i < shards.size(); ++i) {
    const Fields shard{shards[i], in.path, cat(in.name, "shards[", i, "].")};
    if (!shards[i].is_object()) shard.fail("", "not an object");
    const std::string file = shard.text("file");
    if (file.empty() || file.find('/') != std::string::npos || file == "..")
      shard.fail("file", cat("got \"", file, "\", need a name without folders"));
    part.shards.push_back({file, shard.integer("documents", 0, INT64_MAX),
                           shard.integer("tokens", 0, INT64_MAX), shard.text("sha256")});
  }
  return part;
}

Json to_json(const ManifestPart& part) {
  Json shards = Json::array();
  for (const ManifestShard& shard : part.shards)
    shards.push_back({{"file", shard.file},
                      {"documents", shard.documents},
                      {"tokens", shard.tokens},
                      {"sha256", shard.sha256}});
  return {{"documents", part.documents()}, {"tokens", part.tokens()}, {"shards", shards}};
}

}  // namespace

int64_t ManifestPart::documents() const {
  int64_t sum = 0;
  for (const ManifestShard& shard : shards) sum += shard.documents;
  return sum;
}

int64_t ManifestPart::tokens() const {
  int64_t sum = 0;
  for (const ManifestShard& shard : shards) sum += shard.tokens;
  return sum;
}

Manifest read_manifest(const std::filesystem::path& path) {
  const Json json = parse_json(read_file(path, size_t{1} << 28), path.string());
  const Fields root{json, path, ""};
  if (!json.is_object() || !json.contains("format") || json["format"] != kFormat)
    root.fail("format", cat("need \"", kFormat, "\""));
  root.integer("version", kVersion, kVersion);
  Manifest manifest;
  manifest.vocab_size = root.integer("vocab_size", 1, INT32_MAX);
  const int64_t last = manifest.vocab_size - 1;
  manifest.eos_id = static_cast<int32_t>(root.integer("eos_id", -1, last));
  if (!root.at("fim").is_null()) {
    const Fields fim = root.inside("fim");
    manifest.fim = {static_cast<int32_t>(fim.integer("begin", 0, last)),
                    static_cast<int32_t>(fim.integer("hole", 0, last)),
                    static_cast<int32_t>(fim.integer("end", 0, last))};
  }
  manifest.tokenizer_sha256 = root.text("tokenizer_sha256");
  manifest.train = read_part(root.inside("train"));
  manifest.held_out = read_part(root.inside("held_out"));
  if (!root.at("inputs").is_array()) root.fail("inputs", "not a list");
  for (const Json& input : json["inputs"])
    if (input.is_string()) manifest.inputs.push_back(input.get<std::string>());
  return manifest;
}

void write_manifest(const Manifest& manifest, const std::filesystem::path& path) {
  const FimIds& fim = manifest.fim;
  const Json fim_json =
      fim.known() ? Json{{"begin", fim.begin}, {"hole", fim.hole}, {"end", fim.end}} : Json(nullptr);
  const Json json = {{"format", kFormat},
                     {"version", kVersion},
                     {"vocab_size", manifest.vocab_size},
                     {"eos_id", manifest.eos_id},
                     {"fim", fim_json},
                     {"tokenizer_sha256", manifest.tokenizer_sha256},
                     {"train", to_json(manifest.train)},
                     {"held_out", to_json(manifest.held_out)},
                     {"inputs", manifest.inputs}};
  write_file(path, dump_json(json, 2) + "\n");
}

}  // namespace hadal
