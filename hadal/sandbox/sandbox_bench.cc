// What a run costs beside the program itself: a program that does nothing, run over and over.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "hadal/base/clock.h"
#include "hadal/sandbox/sandbox.h"

namespace {

void measure(const char* what, const hadal::SandboxSpec& spec, int runs) {
  std::vector<double> ms;
  for (int i = 0; i < runs; ++i) {
    const double begin = hadal::now_seconds();
    const hadal::SandboxResult result = hadal::run_sandboxed(spec);
    if (result.status != hadal::SandboxStatus::kOk) {
      std::printf("%s: %s\n", what, result.detail.c_str());
      return;
    }
    ms.push_back((hadal::now_seconds() - begin) * 1e3);
  }
  std::sort(ms.begin(), ms.end());
  const auto at = [&](double share) {
    return ms[static_cast<size_t>(share * static_cast<double>(ms.size() - 1))];
  };
  std::printf("{\"run\": \"%s\", \"runs\": %d, \"median_ms\": %.2f, \"p90_ms\": %.2f, \"p99_ms\": %.2f}\n",
              what, runs, at(0.5), at(0.9), at(0.99));
}

}  // namespace

int main() {
  if (const std::string& refusal = hadal::sandbox_refusal(); !refusal.empty()) {
    std::printf("%s\n", refusal.c_str());
    return 1;
  }
  hadal::SandboxSpec one{.command = {"/usr/bin/true"}, .readable = hadal::system_folders()};
  measure("one process", one, 300);
  hadal::SandboxSpec several = one;
  several.limits.processes = 16;
  measure("up to 16 processes", several, 300);
}
