// Options of a reward from JSON, each looked up once; what is left over is an error.
#pragma once
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

class RewardOptions {
 public:
  RewardOptions(std::string reward, Json options) : reward_(std::move(reward)), left_(std::move(options)) {}

  double number(const char* key, double otherwise, double least, double most) {
    double value = otherwise;
    if (left_.contains(key)) {
      if (!left_[key].is_number())
        refuse(cat("\"", key, "\" is ", left_[key].type_name(), ", need a number."));
      value = left_[key].get<double>();
      left_.erase(key);
    }
    known_.push_back(key);
    if (!(value >= least && value <= most))
      refuse(cat("\"", key, "\" is ", value, ", need a number from ", least, " to ", most, "."));
    return value;
  }

  std::string word(const char* key, const std::string& otherwise, const std::vector<std::string>& allowed) {
    std::string value = otherwise;
    if (left_.contains(key)) {
      if (!left_[key].is_string()) refuse(cat("\"", key, "\" is ", left_[key].type_name(), ", need text."));
      value = left_[key].get<std::string>();
      left_.erase(key);
    }
    known_.push_back(key);
    for (const std::string& one : allowed)
      if (one == value) return value;
    refuse(cat("\"", key, "\" is \"", value, "\"", did_you_mean(value, allowed), "."));
  }

  // A text that must be there and not empty.
  std::string text(const char* key) {
    known_.push_back(key);
    if (!left_.contains(key)) refuse(cat("\"", key, "\" is missing. Write ", reward_, ":", key, ":weight."));
    if (!left_[key].is_string() || left_[key].get_ref<const std::string&>().empty())
      refuse(cat("\"", key, "\" is ", dump_json(left_[key]), ", need text."));
    const std::string value = left_[key].get<std::string>();
    left_.erase(key);
    return value;
  }

  // Call after the last option was read.
  void end() const {
    if (left_.empty()) return;
    const std::string key = left_.begin().key();
    refuse(cat("unknown option \"", key, "\"", did_you_mean(key, known_), "."));
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::kInvalidConfig, cat("[rewards.", reward_, "] ", what));
  }

  std::string reward_;
  Json left_;
  std::vector<std::string> known_;
};

}  // namespace hadal
