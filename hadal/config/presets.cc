#include "hadal/config/presets.h"

#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/config/hf_config.h"
#include "hadal/error.h"

namespace hadal {

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (int i = 0; i < kNumPresets; ++i) names.emplace_back(kPresetTexts[i].name);
  return names;
}

ModelConfig preset(const std::string& name) {
  for (int i = 0; i < kNumPresets; ++i) {
    if (kPresetTexts[i].name != name) continue;
    const std::string source = "preset " + name;
    return parse_config(parse_json(kPresetTexts[i].json, source), source);
  }
  std::string known;
  for (const std::string& each : preset_names()) known += (known.empty() ? "" : ", ") + each;
  throw Error(ErrorCode::kNotFound, cat("[config.preset] no preset \"", name, "\"",
                                        did_you_mean(name, preset_names()), ": need one of ", known, "."));
}

}  // namespace hadal
