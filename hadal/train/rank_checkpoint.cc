#include "hadal/train/rank_checkpoint.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/load.h"
#include "hadal/error.h"
#include "hadal/parallel/peer_lost.h"
#include "hadal/tensor/make.h"
#include "hadal/train/rank_sum.h"

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

// Of a cut matrix the whole, from all ranks of tensor parallelism.
Tensor joined(Comm& tensor, const WeightSpec& spec, const Tensor& part) {
  const Tensor mine = part.detach().contiguous();
  const std::vector<std::string> all =
      all_gather_bytes(tensor, {static_cast<const char*>(mine.data_ptr()), mine.nbytes()});
  std::vector<Tensor> parts;
  for (int64_t r = 0; r < tensor.size(); ++r) {
    const WeightShare share{.tensor_rank = r, .tensor_ranks = tensor.size()};
    parts.push_back(empty(shape_of(spec, share), mine.scalar_type()));
    std::memcpy(parts.back().data_ptr(), all[static_cast<size_t>(r)].data(), parts.back().nbytes());
  }
  return concat(parts, part_of(spec, {.tensor_ranks = tensor.size()}).dim);
}

// What this rank writes, those of tensor parallelism together: what no lower rank has.
struct Owned {
  ModelWeights weights;  // undefined where others write
  std::optional<ModelWeights> average;
  std::vector<AdamW::Moments> moments;
};

ModelWeights owned_weights(const RankLayout& ranks, const ModelConfig& config, const ModelWeights& weights) {
  ModelWeights owned = weights;  // handles
  for_each_weight(config, owned, [&](const WeightSpec& spec, Tensor& tensor) {
    const bool owns = ranks.owns(config, spec);
    if (owns && ranks.tensor() && spec.cut()) tensor = joined(*ranks.tensor(), spec, tensor);
    if (!owns || ranks.share().tensor_rank > 0) tensor = Tensor();
  });
  return owned;
}

// What a rank has of its weights' moments, from all that share them out (ZeRO-1).
std::vector<AdamW::Moments> gathered(ModelPart& part) {
  if (part.optimizer.layout().ranks() == 1) return part.optimizer.moments();
  std::vector<AdamW::Moments> all;
  std::vector<Tensor> m, v, whole_m, whole_v;
  for (AdamW::Moments& each : part.optimizer.moments()) m.push_back(each.m), v.push_back(each.v);
  for (const TrainedWeight& weight : part.optimizer.weights()) {
    const auto sizes = weight.values.sizes();
    const auto type = part.optimizer.moment_type();
    all.push_back({weight.name, weight.shape, weight.begin, empty(sizes, type), empty(sizes, type)});
    whole_m.push_back(all.back().m), whole_v.push_back(all.back().v);
  }
  gather_parts(*part.replicas, part.optimizer.layout(), m, whole_m);
  gather_parts(*part.replicas, part.optimizer.layout(), v, whole_v);
  return all;
}

std::vector<AdamW::Moments> owned_moments(const RankLayout& ranks, const ModelConfig& config,
                                          std::vector<ModelPart>& parts) {
  std::map<std::string, WeightSpec> specs;
  for (const WeightSpec& spec : weight_specs(config)) specs.emplace(spec.name, spec);
  const auto is_cut = [&](const AdamW::Moments& each) { return ranks.tensor() && specs.at(each.name).cut(); };
  std::vector<AdamW::Moments> moments;
  for (ModelPart& part : parts) {
    // Whose elements are nobody's run: put together by the owner.
    for (AdamW::Moments each : ranks.tensor() ? gathered(part) : std::vector<AdamW::Moments>()) {
      if (!part.owned || !is_cut(each)) continue;
      const WeightSpec& spec = specs.at(each.name);
      each.m = joined(*ranks.tensor(), spec, each.m), each.v = joined(*ranks.tensor(), spec, each.v);
      if (ranks.share().tensor_rank == 0) moments.push_back(std::move(each));
    }
    if (ranks.share().tensor_rank > 0 || (part.optimizer.layout().ranks() == 1 && !part.owned)) continue;
    for (const AdamW::Moments& each : part.optimizer.moments())
      if (!is_cut(each)) moments.push_back(each);
  }
  return moments;
}

ModelFile write_owned(const RankLayout& ranks, const fs::path& folder, const ModelConfig& config,
                      const ModelWeights& owned) {
  const WeightShare all = ranks.share();
  return save_model_file(folder, file_of("model", *ranks.all()), config, owned,
                         {.expert_rank = all.expert_rank, .expert_ranks = all.expert_ranks});
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
Json write_files(const RankLayout& ranks, const fs::path& folder, const ModelConfig& config,
                 const Owned& owned) {
  Comm& all = *ranks.all();
  std::vector<std::string> files;
  const auto write_model = [&](const std::string& below, const ModelWeights& weights) {
    fs::create_directories(folder / below);
    ModelFile file = write_owned(ranks, folder / below, config, weights);
    if (!file.tensors.empty()) files.push_back(below + file.file);
    return json_of(file);
  };
  Json said{{"model", write_model("", owned.weights)}};
  if (owned.average) said["ema"] = write_model("ema/", *owned.average);
  if (!owned.moments.empty()) {
    files.push_back(file_of("optimizer", all));
    write_moments(folder / files.back(), named_moments(owned.moments));
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
    Owned owned{.weights = owned_weights(ranks, model.config(), model.weights()),
                .moments = owned_moments(ranks, model.config(), parts)};
    if (average) owned.average = owned_weights(ranks, model.config(), average->weights());
    said = said_by_all(all, [&] { return write_files(ranks, folder, model.config(), owned); });
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
  const ModelWeights owned = owned_weights(ranks, config, weights);
  const std::vector<Json> said = together([&] { return json_of(write_owned(ranks, folder, config, owned)); });
  together([&]() -> Json {
    if (all.rank() != 0) return "";
    std::vector<ModelFile> files;
    for (const Json& one : said) files.push_back(model_file_of(one));
    save_model_index(folder, config, files);
    return "";
  });
}

}  // namespace hadal
