// Why a run of reinforcement learning learns nothing, said while it goes on. Torch-free.
#pragma once
#include <string>
#include <vector>

#include "hadal/report/metrics.h"

namespace hadal {

// What is wrong with a step, each with what to try; `first` is the run's first step.
std::vector<std::string> alarms(const ValuesRecord& step, const ValuesRecord& first);

}  // namespace hadal
