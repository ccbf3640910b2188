// Hostile programs: each ends in time, breaks no wall, and leaves the host as it was.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "hadal/base/clock.h"
#include "tests/support/attack_table.h"
#include "tests/support/host_snapshot.h"

namespace hadal {
namespace {

constexpr double kSlackSeconds = 0.5;  // past the wall limit, for building and removing the box

std::string mark() {
  return "attack" + std::to_string(::getpid());
}

// What went wrong, "" if nothing did.
std::string fault_of(const AttackCase& attack, bool& late) {
  const double begin = now_seconds();
  const SandboxResult result = run_sandboxed(attack.spec);
  late = now_seconds() - begin > attack.spec.limits.wall_seconds + kSlackSeconds;
  if (result.status == SandboxStatus::kInternal) return "the box failed: " + result.detail;
  if (result.out.find("BROKE") != std::string::npos || result.err.find("BROKE") != std::string::npos)
    return result.out.substr(0, 300) + result.err.substr(0, 300);
  if (attack.no_artefact && !result.artefacts.empty()) return "the artefact came out";
  return "";
}

// Two at a time, as workers would. A run that was late on a busy machine gets a second chance.
void expect_contained(const std::vector<AttackCase>& attacks) {
  const auto before = host_snapshot(mark());
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  const auto work = [&] {
    for (size_t i; (i = next++) < attacks.size();) {
      bool late = false, late_again = false;
      std::string fault = fault_of(attacks[i], late);
      if (fault.empty() && late) fault = fault_of(attacks[i], late_again);
      if (fault.empty() && late_again) fault = "it ended late";
      const std::lock_guard lock(mutex);
      EXPECT_EQ(fault, "") << attacks[i].name;
    }
  };
  std::thread other(work);
  work();
  other.join();
  EXPECT_EQ(host_snapshot(mark()), before);
}

class Attacks : public testing::Test {
 protected:
  void SetUp() override {
    if (!sandbox_refusal().empty()) GTEST_SKIP() << sandbox_refusal();
  }
};

TEST_F(Attacks, OfCompiledProgramsAreContained) {
  const std::vector<AttackCase> attacks = compiled_attacks(mark());
  ASSERT_GE(attacks.size(), 2 * 120u);
  expect_contained(attacks);
}

TEST_F(Attacks, OfShellScriptsAreContained) {
  expect_contained(script_attacks("shell", mark()));
}

TEST_F(Attacks, OfPythonProgramsAreContained) {
  if (::access("/usr/bin/python3", X_OK) != 0) GTEST_SKIP() << "no /usr/bin/python3";
  expect_contained(script_attacks("python", mark()));
}

TEST_F(Attacks, OnTheCompilerAreContained) {
  if (::access("/usr/bin/g++", X_OK) != 0) GTEST_SKIP() << "no /usr/bin/g++";
  expect_contained(script_attacks("compile", mark()));
}

}  // namespace
}  // namespace hadal
