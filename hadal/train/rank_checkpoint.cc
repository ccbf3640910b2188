#include "hadal/train/rank_checkpoint.h"

#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/load.h"
#include "hadal/error.h"
#include "hadal/parallel/peer_lost.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

std::string file_of(const char* what, const Comm& comm) {
  const auto five = [](int64_t n) {
    const std::string digits = std::to_string(n);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  };
  return cat(what, "-", five(comm.rank() + 1), "-of-", five(comm.size()), ".safetensors");
}

// A file of the weights that this rank writes: those that no lower rank has.
ModelFile write_owned(const RankLayout& ranks, const fs::path& folder, const ModelConfig& config,
                      const ModelWeights& weights) {
  ModelWeights owned = weights;  // handles
  for_each_weight(config, owned, [&](const WeightSpec& spec, Tensor& tensor) {
    if (!ranks.owns(config, spec)) tensor = Tensor();
  });
  return save_model_file(folder, file_of("model", *ranks.all()), config, owned, ranks.share());
}

Json json_of(const ModelFile& file) {
  return {{"file", file.file}, {"tensors", file.tensors}, {"bytes", file.bytes}};
}

ModelFile model_file_of(const Json& json) {
  return {json.at("file"), json.at("tensors").get<std::vector<std::string>>(), json.at("bytes")};
}

// What each rank's act() says; an error of one is the result's "error" on all.
std::vector<Json> said_by_all(Comm& comm, const std::function<Json()>& act) {
  Json mine;
  try {
    mine = act();
  } catch (const PeerLost&) {
    throw;
  } catch (const std::exception& e) {
    mine = {{"error", cat("rank ", comm.rank(), ": ", e.what())}};
  }
  std::vector<Json> all;
  for (const std::string& text : all_gather_bytes(comm, dump_json(mine)))
    all.push_back(parse_json(text, "a rank's report"));
  return all;
}

std::string first_error(const std::vector<Json>& all) {
  for (const Json& one : all)
    if (one.contains("error")) return one.at("error");
  return "";
}

// This rank's files of a checkpoint.
Json write_files(const RankLayout& ranks, const fs::path& folder, const Transformer& model,
                 std::vector<ModelPart>& parts, WeightAverage* average) {
  Comm& all = *ranks.all();
  std::vector<std::string> files;
  const auto write_model = [&](const std::string& below, const ModelWeights& weights) {
    fs::create_directories(folder / below);
    ModelFile file = write_owned(ranks, folder / below, model.config(), weights);
    if (!file.tensors.empty()) files.push_back(below + file.file);
    return json_of(file);
  };
  Json said{{"model", write_model("", model.weights())}};
  if (average) said["ema"] = write_model("ema/", average->weights());
  std::vector<AdamW::Moments> moments;
  for (ModelPart& part : parts)
    if (part.optimizer.layout().ranks() > 1 || part.owned)
      for (const AdamW::Moments& each : part.optimizer.moments()) moments.push_back(each);
  if (!moments.empty()) {
    files.push_back(file_of("optimizer", all));
    write_moments(folder / files.back(), named_moments(moments));
  }
  said["files"] = parse_json(manifest_entries(folder, files), "files");
  return said;
}

}  // namespace

void save_by_ranks(const RankLayout& ranks, CheckpointStore* store, const TrainCounters& counters,
                   const Transformer& model, std::vector<ModelPart>& parts, WeightAverage* average) {
  Comm& all = *ranks.all();
  const std::vector<Json> places =
      said_by_all(all, [&] { return Json(store ? store->begin(counters.step).string() : ""); });
  std::string error = first_error(places);
  std::vector<Json> said;
  if (error.empty()) {
    const fs::path folder = places.front().get<std::string>();
    said = said_by_all(all, [&] { return write_files(ranks, folder, model, parts, average); });
    error = first_error(said);
  }
  if (!store) return;
  if (error.empty()) {
    try {
      const fs::path folder = places.front().get<std::string>();
      Json files = Json::object();
      for (const char* which : {"model", "ema"}) {
        std::vector<ModelFile> written;
        for (const Json& one : said)
          if (one.contains(which)) written.push_back(model_file_of(one.at(which)));
        if (!written.empty())
          save_model_index(std::string(which) == "ema" ? folder / "ema" : folder, model.config(), written);
      }
      for (const Json& one : said) files.update(one.at("files"));
      return store->publish(counters, parts.front().optimizer.num_steps(), dump_json(files));
    } catch (const std::exception& e) {
      error = e.what();
    }
  }
  store->abandon(counters.step, error);
}

void save_model_by_ranks(const RankLayout& ranks, const fs::path& folder, const ModelConfig& config,
                         const ModelWeights& weights) {
  Comm& all = *ranks.all();
  const auto together = [&](const std::function<Json()>& act) {
    const std::vector<Json> said = said_by_all(all, act);
    if (const std::string error = first_error(said); !error.empty())
      throw Error(ErrorCode::kUnavailable, error);
    return said;
  };
  together([&]() -> Json {
    if (all.rank() == 0) fs::create_directories(folder);
    return "";
  });
  const std::vector<Json> said =
      together([&] { return json_of(write_owned(ranks, folder, config, weights)); });
  together([&]() -> Json {
    if (all.rank() != 0) return "";
    std::vector<ModelFile> files;
    for (const Json& one : said) files.push_back(model_file_of(one));
    save_model_index(folder, config, files);
    return "";
  });
}

}  // namespace hadal
