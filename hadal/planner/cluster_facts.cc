#include "hadal/planner/cluster_facts.h"

#include <charconv>
#include <cmath>
#include <type_traits>

#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "[plan.facts] " + what);
}

const char* need(FactRange range) {
  switch (range) {
    case FactRange::kPositive:
      return "a number above 0";
    case FactRange::kNotNegative:
      return "a number of at least 0";
    case FactRange::kAtLeastOne:
      return "a number of at least 1";
    case FactRange::kShare:
      return "a share above 0, at most 1";
    case FactRange::kPart:
      return "a share from 0 to 1";
  }
  return "";
}

bool good(double x, FactRange range) {
  if (!std::isfinite(x) || x > 1e12) return false;
  if (range == FactRange::kAtLeastOne) return x >= 1;
  if (range == FactRange::kNotNegative) return x >= 0;
  if (range == FactRange::kPart) return x >= 0 && x <= 1;
  return x > 0 && (range == FactRange::kPositive || x <= 1);
}

}  // namespace

std::vector<std::string> hardware_names() {
  return {"h800", "h100"};
}

ClusterFacts cluster_facts(const std::string& hardware) {
  if (hardware == "h800") return {};
  if (hardware == "h100") {  // the same chip with all of its NVLink; its shares are taken from the H800
    ClusterFacts facts;
    facts.intra_gbps = 450;
    return facts;
  }
  throw Error(ErrorCode::kNotFound, cat("[plan.hardware] unknown hardware \"", hardware, "\"",
                                        did_you_mean(hardware, hardware_names()), ". Known: h800, h100."));
}

void set_fact(ClusterFacts& facts, std::string_view name, std::string_view value) {
  bool found = false;
  std::vector<std::string> names;
  facts.fields([&](const char* known, auto& place, FactRange range, const char*) {
    names.emplace_back(known);
    if (name != known) return;
    found = true;
    std::remove_reference_t<decltype(place)> parsed{};
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
    if (error != std::errc() || end != value.data() + value.size() ||
        !good(static_cast<double>(parsed), range))
      refuse(cat(known, ": got \"", value, "\", need ", need(range), "."));
    place = parsed;
  });
  if (!found) refuse(cat("unknown fact \"", name, "\"", did_you_mean(name, names), "."));
}

}  // namespace hadal
