#include "hadal/engine/stop_strings.h"

#include <algorithm>
#include <utility>

#include "hadal/error.h"

namespace hadal {

StopStrings::StopStrings(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    if (stop.empty())
      throw Error(ErrorCode::kInvalidArgument,
                  "[stop_strings.new] an empty stop string would stop every text. Leave it out.");
    std::vector<size_t> border(stop.size(), 0);
    for (size_t i = 1, k = 0; i < stop.size(); ++i) {
      while (k > 0 && stop[i] != stop[k]) k = border[k - 1];
      if (stop[i] == stop[k]) ++k;
      border[i] = k;
    }
    patterns_.push_back({std::move(stop), std::move(border), 0});
  }
}

std::string StopStrings::push(std::string_view piece) {
  if (stopped_) return "";
  for (const char byte : piece) {
    held_ += byte;
    for (Pattern& p : patterns_) {
      while (p.state > 0 && p.text[p.state] != byte) p.state = p.border[p.state - 1];
      if (p.text[p.state] == byte) ++p.state;
      if (p.state == p.text.size() && p.text.size() > matched_.size()) matched_ = p.text;
    }
    if (!matched_.empty()) {
      stopped_ = true;
      held_.resize(held_.size() - matched_.size());
      return std::exchange(held_, "");
    }
  }
  size_t keep = 0;
  for (const Pattern& p : patterns_) keep = std::max(keep, p.state);
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopStrings::finish() {
  for (Pattern& p : patterns_) p.state = 0;
  return std::exchange(held_, "");
}

}  // namespace hadal
