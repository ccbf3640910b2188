#include "hadal/train/train_state.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/checkpoint/load.h"
#include "hadal/checkpoint/names.h"
#include "hadal/checkpoint/safetensors.h"
#include "hadal/config/weight_specs.h"
#include "hadal/error.h"
#include "hadal/tensor/make.h"

namespace hadal {
namespace {

constexpr int kFormat = 1;

// The same tensors, each through f.
ModelWeights mapped(const ModelConfig& config, const ModelWeights& weights, auto&& f) {
  ModelWeights from = weights, to;  // handles: nothing is copied
  to.part = weights.part;
  std::vector<Tensor> tensors;
  for_each_weight(config, from,
                  [&](const WeightSpec&, Tensor& tensor) { tensors.push_back(f(tensor.detach())); });
  size_t next = 0;
  for_each_weight(config, to, [&](const WeightSpec&, Tensor& tensor) { tensor = tensors[next++]; });
  return to;
}

void fill(const ModelConfig& config, ModelWeights& into, const ModelWeights& from) {
  NoGrad no_grad;
  ModelWeights source = from;
  std::vector<Tensor> tensors;
  for_each_weight(config, source, [&](const WeightSpec&, Tensor& tensor) { tensors.push_back(tensor); });
  size_t next = 0;
  for_each_weight(config, into, [&](const WeightSpec&, Tensor& tensor) { tensor.copy_(tensors[next++]); });
}

ElementType element_type_of(const Tensor& moment) {
  return moment.scalar_type() == at::kBFloat16 ? ElementType::kBF16 : ElementType::kF32;
}

Json counters_json(const TrainCounters& c, int64_t optimizer_steps) {
  Json loads = Json::object();
  for (const auto& [layer, load] : c.load_since) loads[std::to_string(layer)] = load;
  return {{"format", kFormat},
          {"step", c.step},
          {"planned_steps", c.planned_steps},
          {"probe_steps", c.probe_steps},
          {"probe_seconds", c.probe_seconds},
          {"tokens", c.tokens},
          {"next_row", c.next_row},
          {"workers", c.workers},
          {"skipped", c.skipped},
          {"skips_in_a_row", c.skips_in_a_row},
          {"rollbacks", c.rollbacks},
          {"optimizer_steps", optimizer_steps},
          {"seconds", c.seconds},
          {"finished", c.finished},
          {"data", c.data},
          {"more", c.more},
          {"load_since", loads}};
}

Json read_state(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "state.json";
  Json state = parse_json(read_file(path), path.string());
  if (!state.is_object() || state.value("format", 0) != kFormat)
    throw Error(ErrorCode::kUnsupported,
                cat("[train.restore] ", path.string(), ": format ", state.value("format", 0), ", need ",
                    kFormat, ". It is of another version of hadal."));
  return state;
}

TrainCounters counters_of(const Json& state, const std::filesystem::path& folder) {
  try {
    TrainCounters c;
    c.step = state.at("step"), c.planned_steps = state.at("planned_steps"), c.tokens = state.at("tokens");
    c.next_row = state.at("next_row"), c.skipped = state.at("skipped");
    c.skips_in_a_row = state.at("skips_in_a_row"), c.rollbacks = state.at("rollbacks");
    c.workers = state.value("workers", int64_t{0});
    c.probe_steps = state.value("probe_steps", int64_t{0});
    c.probe_seconds = state.value("probe_seconds", 0.0);
    c.seconds = state.at("seconds"), c.finished = state.at("finished");
    c.data = state.at("data").get<std::string>();
    c.more = state.value("more", "");
    for (const auto& [layer, load] : state.at("load_since").items())
      c.load_since[std::stoll(layer)] = load.get<std::vector<int64_t>>();
    return c;
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::kCorrupt,
                cat("[train.restore] ", (folder / "state.json").string(), ": ", e.what(), "."));
  }
}

}  // namespace

WeightAverage::WeightAverage(const Transformer& model, double decay)
    : decay_(decay),
      weights_(mapped(model.config(), model.weights(), [](const Tensor& x) { return x.clone(); })) {}

void WeightAverage::update(const Transformer& model) {
  NoGrad no_grad;
  ModelWeights now = model.weights();
  std::vector<Tensor> tensors;
  for_each_weight(model.config(), now, [&](const WeightSpec&, Tensor& tensor) { tensors.push_back(tensor); });
  size_t next = 0;
  for_each_weight(model.config(), weights_, [&](const WeightSpec& spec, Tensor& mean) {
    const Tensor& weight = tensors[next++];
    if (spec.role == WeightRole::kBalanceBias) {
      mean.copy_(weight);
    } else {
      mean.lerp_(weight, 1 - decay_);
    }
  });
}

TrainSnapshot take_snapshot(const TrainCounters& counters, const Transformer& model, AdamW& optimizer,
                            WeightAverage* average, bool copy) {
  return take_snapshot(counters, model, optimizer.num_steps(), optimizer.moments(), average, copy);
}

TrainSnapshot take_snapshot(const TrainCounters& counters, const Transformer& model, int64_t optimizer_steps,
                            const std::vector<AdamW::Moments>& moments, WeightAverage* average, bool copy) {
  NoGrad no_grad;
  const auto take = [copy](const Tensor& x) { return !x.is_cpu() ? x.cpu() : copy ? x.clone() : x; };
  TrainSnapshot s{.counters = counters, .config = model.config()};
  s.weights = mapped(s.config, model.weights(), take);
  for (const auto& [name, tensor] : named_moments(moments)) s.moments.emplace_back(name, take(tensor));
  s.optimizer_steps = optimizer_steps;
  if (average) s.average = mapped(s.config, average->weights(), take);
  return s;
}

std::vector<std::pair<std::string, Tensor>> named_moments(const std::vector<AdamW::Moments>& moments) {
  std::vector<std::pair<std::string, Tensor>> named;
  for (const AdamW::Moments& each : moments) {
    const bool whole = each.m.sizes() == at::IntArrayRef(each.shape);
    const std::string name =
        whole ? each.name : cat(each.name, "[", each.begin, ":", each.begin + each.m.numel(), "]");
    named.emplace_back("m." + name, each.m);
    named.emplace_back("v." + name, each.v);
  }
  return named;
}

void write_moments(const std::filesystem::path& path,
                   const std::vector<std::pair<std::string, Tensor>>& moments) {
  std::vector<TensorHead> heads;
  std::map<std::string, Tensor> by_name;
  for (const auto& [name, tensor] : moments) {
    heads.push_back({name, element_type_of(tensor), tensor.sizes().vec()});
    by_name[name] = tensor;
  }
  SafetensorsWriter writer(path, heads);
  for (const TensorHead& head : writer.heads()) {
    const Tensor& tensor = by_name.at(head.name);
    writer.write(tensor.data_ptr(), tensor.nbytes());
  }
  writer.finish();
}

void write_counters(const std::filesystem::path& folder, const TrainCounters& counters,
                    int64_t optimizer_steps) {
  write_file(folder / "state.json", dump_json(counters_json(counters, optimizer_steps), 1) + "\n");
}

void write_train_state(const std::filesystem::path& folder, const TrainSnapshot& s) {
  save_model(folder, s.config, s.weights);
  if (s.average) save_model(folder / "ema", s.config, *s.average);
  if (s.reference) save_model(folder / "reference", s.config, *s.reference);
  write_moments(folder / "optimizer.safetensors", s.moments);
  write_counters(folder, s.counters, s.optimizer_steps);
}

ModelWeights restore_reference(const std::filesystem::path& folder, const ModelConfig& config) {
  return load_weights(config, open_checkpoint(folder / "reference"), DType::kF32);
}

ModelWeights copy_of(const ModelConfig& config, const ModelWeights& weights) {
  NoGrad no_grad;
  return mapped(config, weights, [](const Tensor& x) { return x.clone(); });
}

TrainCounters read_counters(const std::filesystem::path& folder) {
  return counters_of(read_state(folder), folder);
}

namespace {

// The moments of a checkpoint, whoever wrote which elements.
class MomentFiles {
 public:
  explicit MomentFiles(const std::filesystem::path& folder) : folder_(folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string file = entry.path().filename().string();
      if (!file.starts_with("optimizer") || !file.ends_with(".safetensors")) continue;
      files_.push_back(std::make_unique<SafetensorsFile>(entry.path()));
      for (const StoredTensor& stored : files_.back()->tensors()) add(stored);
    }
  }

  // Elements [begin, begin + into.numel()) of a weight of this shape.
  void read(const std::string& name, const std::vector<int64_t>& shape, int64_t begin, Tensor& into) const {
    if (!into.is_cpu()) {
      Tensor host = empty(into.sizes(), into.scalar_type());
      read(name, shape, begin, host);
      into.copy_(host);
      return;
    }
    const int64_t end = begin + into.numel();
    const auto bytes = into.element_size();
    int64_t found = 0;
    const auto pieces = pieces_.find(name);
    if (pieces != pieces_.end())
      for (const Piece& piece : pieces->second) {
        const StoredTensor& stored = *piece.stored;
        if (stored.type != element_type_of(into) || (piece.whole && stored.shape != shape))
          throw Error(ErrorCode::kInvalidConfig,
                      cat("[train.restore] ", folder_.string(), ": ", stored.name, " is ",
                          hadal::name(stored.type), " ", shape_text(stored.shape), ", the model needs ",
                          shape_text(shape), ". Is the checkpoint of this model?"));
        const int64_t first = std::max(begin, piece.begin), last = std::min(end, piece.end);
        if (first >= last) continue;
        std::memcpy(static_cast<char*>(into.data_ptr()) + (first - begin) * bytes,
                    stored.bytes.data() + (first - piece.begin) * bytes,
                    static_cast<size_t>((last - first) * bytes));
        found += last - first;
      }
    if (found != end - begin)
      throw Error(ErrorCode::kInvalidConfig,
                  cat("[train.restore] ", folder_.string(), ": of ", name, " there are ", found, " of ",
                      end - begin, " elements. Is the checkpoint of this model, and whole?"));
  }

 private:
  struct Piece {
    int64_t begin, end;
    bool whole;
    const StoredTensor* stored;
  };

  void add(const StoredTensor& stored) {
    int64_t values = 1;
    for (const int64_t size : stored.shape) values *= size;
    const size_t bracket = stored.name.find('[');
    const bool whole = bracket == std::string::npos;
    const int64_t begin = whole ? 0 : std::atoll(stored.name.c_str() + bracket + 1);
    pieces_[stored.name.substr(0, bracket)].push_back({begin, begin + values, whole, &stored});
  }

  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, std::vector<Piece>> pieces_;
};

// What a rank has of the weights in a model folder.
ModelWeights load_share(const std::filesystem::path& folder, const Transformer& model) {
  const WeightShare& all = model.share();
  const WeightShare experts{.expert_rank = all.expert_rank, .expert_ranks = all.expert_ranks},
      cut{.tensor_rank = all.tensor_rank, .tensor_ranks = all.tensor_ranks};
  const ModelConfig& config = model.config();
  return cut_to(
      config, load_weights(config, open_checkpoint(folder), DType::kF32, model.weights().part, experts), cut);
}

// Of a matrix that several ranks have parts of, this one's part; of others what `moments` says.
void read_part(const MomentFiles& files, const std::string& name, const AdamW::Moments& moments,
               const WeightSpec& spec, const WeightShare& share, Tensor& into) {
  if (share.tensor_ranks == 1 || !spec.cut()) return files.read(name, moments.shape, moments.begin, into);
  Tensor whole = empty(spec.shape, into.scalar_type());
  files.read(name, spec.shape, 0, whole);
  const WeightPart part = part_of(spec, share);
  const Tensor mine = whole.narrow(part.dim, part.begin, part.size).reshape({-1});
  into.copy_(mine.narrow(0, moments.begin, into.numel()).view(into.sizes()));
}

}  // namespace

TrainCounters restore(const std::filesystem::path& folder, Transformer& model,
                      const std::vector<AdamW*>& optimizers, WeightAverage* average) {
  const Json state = read_state(folder);
  const TrainCounters counters = counters_of(state, folder);
  const ModelConfig& config = model.config();
  fill(config, model.weights(), load_share(folder, model));
  if (average) {
    const std::filesystem::path from = std::filesystem::exists(folder / "ema") ? folder / "ema" : folder;
    fill(config, average->weights(), load_share(from, model));
  }
  const MomentFiles files(folder);
  std::map<std::string, WeightSpec> specs;
  for (const WeightSpec& spec : weight_specs(config)) specs.emplace(spec.name, spec);
  for (AdamW* optimizer : optimizers) {
    for (AdamW::Moments& moments : optimizer->moments()) {
      const WeightSpec& spec = specs.at(moments.name);
      read_part(files, "m." + moments.name, moments, spec, model.share(), moments.m);
      read_part(files, "v." + moments.name, moments, spec, model.share(), moments.v);
    }
    optimizer->set_num_steps(state.value("optimizer_steps", int64_t{0}));
  }
  return counters;
}

}  // namespace hadal
