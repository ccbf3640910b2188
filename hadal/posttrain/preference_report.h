// How far a reward model agrees with preferences, over all and by what kind they are. Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hadal/posttrain/preference_data.h"
#include "hadal/posttrain/reward_model.h"

namespace hadal {

struct PreferenceShare {
  std::string name;
  int64_t pairs = 0;
  double accuracy = 0;  // share with chosen above rejected; ties are wrong
};

struct PreferenceReport {
  PreferenceShare all{"all"};
  double loss = 0;  // Bradley-Terry, without margins
  double chosen_mean = 0, rejected_mean = 0;
  double mean = 0, deviation = 1, least = 0, most = 0;  // of all scores; deviation is never 0
  std::vector<PreferenceShare> domains;                 // by name; empty unless there is one
  // Where the chosen answer is the shorter one by more than a tenth of the longer, of about the same length,
  // the longer one: a model that goes by length shows here.
  std::vector<PreferenceShare> lengths;
};

// At least one pair.
PreferenceReport preference_report(RewardModel& model, std::span<const Preference> pairs);

// A table for people.
std::string report_text(const PreferenceReport& report);
std::string report_json(const PreferenceReport& report);

}  // namespace hadal
