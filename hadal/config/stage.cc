#include "hadal/config/stage.h"

#include <charconv>
#include <numeric>
#include <sstream>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

Stage whole_model(const ModelConfig& config) {
  return {.first_layer = 0, .last_layer = config.num_layers, .has_embedding = true, .has_head = true};
}

bool holds(const ModelConfig& config, const Stage& stage, const WeightSpec& spec) {
  if (spec.role == WeightRole::kEmbedding) return stage.has_embedding;
  if (spec.layer < 0 || spec.layer >= config.num_layers) return stage.has_head;
  return spec.layer >= stage.first_layer && spec.layer < stage.last_layer;
}

std::vector<Stage> stages_of_sizes(const std::vector<int64_t>& layers) {
  std::vector<Stage> stages;
  int64_t first = 0;
  for (const int64_t n : layers) {
    stages.push_back({.first_layer = first, .last_layer = first + n});
    first += n;
  }
  stages.front().has_embedding = true;
  stages.back().has_head = true;
  return stages;
}

std::vector<Stage> listed_stages(const ModelConfig& config, int64_t stages, const std::string& layers) {
  std::vector<int64_t> sizes;
  std::istringstream parts(layers);
  for (std::string part; std::getline(parts, part, ',');) {
    int64_t n = 0;
    std::from_chars(part.data(), part.data() + part.size(), n);
    sizes.push_back(n);
  }
  const int64_t sum = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  if (static_cast<int64_t>(sizes.size()) != stages || sum != config.num_layers)
    throw Error(ErrorCode::kInvalidConfig,
                cat("[config.stages] parallel.layers is \"", layers, "\": ", sizes.size(), " stages of ", sum,
                    " layers, need ", stages, " stages of ", config.num_layers,
                    ". Leave it empty for a balanced split."));
  return stages_of_sizes(sizes);
}

}  // namespace hadal
