// The config.json presets of configs/, compiled in.
#pragma once
#include <string_view>

namespace hadal {

struct PresetText {
  std::string_view name, json;
};
extern const PresetText kPresetTexts[];
extern const int kNumPresets;

}  // namespace hadal
