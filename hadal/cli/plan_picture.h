// The picture of a plan: memory of each rank by part, and what every rank does when.
#pragma once
#include <string>

#include "hadal/planner/cluster_plan.h"

namespace hadal {

// A whole SVG document. A long step is drawn with fewer micro-batches, and says so.
std::string plan_svg(const ClusterPlan& plan, const ClusterFacts& facts, const std::string& title);

}  // namespace hadal
