#include "hadal/sandbox/sandbox.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <thread>

#include "hadal/base/file.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/sandbox/box_cgroup.h"
#include "hadal/sandbox/box_fault.h"
#include "hadal/sandbox/box_wire.h"
#include "hadal/sandbox/user_ids.h"
#include "hadal/sandbox/wall_trial.h"
#include "tests/support/error_of.h"
#include "tests/support/host_snapshot.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

SandboxSpec shell(const std::string& script) {
  SandboxSpec spec{.command = {"/bin/sh", "-c", script}, .readable = system_folders()};
  spec.environment = {"PATH=/usr/bin:/bin"};
  spec.limits.processes = 8;
  return spec;
}

std::string refusal_of(const SandboxSpec& spec) {
  return error_of([&] { run_sandboxed(spec); });
}

// Where the kernel cannot give the walls, every run must be refused with the reason; that is all there is to
// test.
class Sandbox : public testing::Test {
 protected:
  void SetUp() override {
    if (sandbox_refusal().empty()) return;
    EXPECT_NE(refusal_of(shell("true")).find("cannot give a wall"), std::string::npos);
    GTEST_SKIP() << sandbox_refusal();
  }
};

TEST_F(Sandbox, PassesInputOutputAndExitCode) {
  SandboxSpec spec = shell("cat; echo problem >&2; exit 3");
  spec.input = "a\nb";
  const SandboxResult result = run_sandboxed(spec);
  EXPECT_EQ(result.status, SandboxStatus::kNonZero);
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.out, "a\nb");
  EXPECT_EQ(result.err, "problem\n");
}

TEST_F(Sandbox, InputLongerThanAPipeNeitherHangsNorIsCut) {
  SandboxSpec spec = shell("sleep 0.05; wc -c; head -c 5 /dev/stdin 2>&1");
  spec.input = std::string(3 << 20, 'x');
  EXPECT_EQ(run_sandboxed(spec).out.substr(0, 8), "3145728\n");
}

TEST_F(Sandbox, HandsOverOutputAsItComes) {
  std::vector<std::string> parts;
  run_sandboxed(shell("echo one; sleep 0.2; echo two >&2"),
                [&](int stream, std::string_view text) { parts.push_back(cat(stream, ":", text)); });
  EXPECT_EQ(parts, (std::vector<std::string>{"1:one\n", "2:two\n"}));
}

TEST_F(Sandbox, AnExceptionOfTheReceiverEndsTheRun) {
  SandboxSpec spec = shell("echo go; sleep 1000");
  spec.limits.wall_seconds = 1000;
  EXPECT_THROW(run_sandboxed(spec, [](int, std::string_view) { throw std::runtime_error("enough"); }),
               std::runtime_error);
}

TEST_F(Sandbox, EndsAtTheWallLimitAndSaysSo) {
  SandboxSpec spec = shell("echo begun; sleep 1000");
  spec.limits.wall_seconds = 0.3;
  const SandboxResult result = run_sandboxed(spec);
  EXPECT_EQ(result.status, SandboxStatus::kTimeout);
  EXPECT_EQ(result.detail, "wall time is over");
  EXPECT_EQ(result.out, "begun\n");
  EXPECT_GE(result.wall_seconds, 0.3);
}

TEST_F(Sandbox, CountsTheCpuTimeOfAllProcesses) {
  SandboxSpec spec = shell("for i in 1 2 3; do (while :; do :; done) & done; wait");
  spec.limits.wall_seconds = 60;
  spec.limits.cpu_seconds = 0.3;
  const SandboxResult result = run_sandboxed(spec);
  EXPECT_EQ(result.status, SandboxStatus::kTimeout);
  EXPECT_EQ(result.detail, "CPU time is over");
  EXPECT_LT(result.cpu_seconds, 0.3 + 1);
}

TEST_F(Sandbox, CountsTheMemoryOfAllProcesses) {
  SandboxSpec spec = shell("for i in 1 2 3 4; do tail /dev/zero & done; wait");
  spec.limits.wall_seconds = 30, spec.limits.cpu_seconds = 20;
  spec.limits.memory_bytes = 100 << 20;
  const SandboxResult result = run_sandboxed(spec);
  EXPECT_EQ(result.status, SandboxStatus::kMemory) << result.detail;
  EXPECT_GT(result.peak_bytes, 100 << 20);
}

TEST_F(Sandbox, TooMuchOutputEndsTheRunOrIsCut) {
  SandboxSpec spec = shell("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; exit 5");
  spec.limits.output_bytes = 1000;
  EXPECT_EQ(run_sandboxed(spec).status, SandboxStatus::kOutput);
  spec.limits.cut_output = true;
  const SandboxResult cut = run_sandboxed(spec);
  EXPECT_EQ(cut.exit_code, 5);
  EXPECT_EQ(cut.out.size(), 1000u);
  EXPECT_EQ(cut.err.size(), 1000u);
  EXPECT_TRUE(cut.out_cut && cut.err_cut);
}

TEST_F(Sandbox, TellsSignalsAndForbiddenCallsApart) {
  const SandboxResult crash = run_sandboxed(shell("kill -SEGV $$"));
  EXPECT_EQ(crash.status, SandboxStatus::kSignal);
  EXPECT_EQ(crash.signal, SIGSEGV);
  const SandboxResult forbidden = run_sandboxed(shell("exec unshare -r true"));
  EXPECT_EQ(forbidden.status, SandboxStatus::kViolation);
}

TEST_F(Sandbox, FilesGoInAndPlainFilesComeOut) {
  SandboxSpec spec = shell("./double in > out; ls > names; chmod 000 secret 2>/dev/null; true");
  spec.files = {{"in", "abc"}, {"double", "#!/bin/sh\ncat $1 $1\n", true}, {"secret", "s"}};
  spec.artefacts = {"out", "names", "none"};
  const SandboxResult result = run_sandboxed(spec);
  EXPECT_EQ(result.artefacts.at("out"), "abcabc") << result.err;
  EXPECT_EQ(result.artefacts.at("names"), "double\nin\nnames\nout\nsecret\n");
  EXPECT_FALSE(result.artefacts.contains("none"));
}

TEST_F(Sandbox, InheritsNoEnvironmentAndNoDescriptor) {
  ::setenv("HADAL_TEST_SECRET", "secret", 1);
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);  // without close-on-exec
  SandboxSpec spec =
      shell("env; for i in 3 4 5 6 7 8 9; do (echo x >&$i) 2>/dev/null && echo open $i; done; pwd");
  EXPECT_EQ(run_sandboxed(spec).out, "PATH=/usr/bin:/bin\nPWD=/box\n/box\n");
  ::close(pipe[0]), ::close(pipe[1]);
}

TEST_F(Sandbox, ShowsNamedFoldersReadOnly) {
  const std::string folder = "/var/tmp";
  SandboxSpec spec = shell("ls -d /var/tmp; touch /var/tmp/new 2>/dev/null || echo read-only; ls /var");
  EXPECT_EQ(run_sandboxed(spec).out, "read-only\n");
  spec.readable.push_back(folder);
  EXPECT_EQ(run_sandboxed(spec).out, "/var/tmp\nread-only\ntmp\n");
}

TEST_F(Sandbox, OneProcessMeansOne) {
  SandboxSpec spec = shell("(echo forked); echo end");
  spec.limits.processes = 1;
  const SandboxResult result = run_sandboxed(spec);
  EXPECT_EQ(result.out.find("forked"), std::string::npos);
}

TEST_F(Sandbox, ACommandThatIsNotThereIsNoVerdict) {
  SandboxSpec spec = shell("true");
  spec.command = {"/box/none"};
  const SandboxResult result = run_sandboxed(spec);
  EXPECT_EQ(result.status, SandboxStatus::kInternal);
  EXPECT_NE(result.detail.find("cannot start /box/none: No such file"), std::string::npos) << result.detail;
}

TEST_F(Sandbox, FilesThatDoNotFitAreNoVerdict) {
  SandboxSpec spec = shell("true");
  spec.files = {{"big", std::string(8 << 20, 'x')}};
  spec.limits.tmp_bytes = 1;
  EXPECT_EQ(run_sandboxed(spec).status, SandboxStatus::kOk);  // they are no part of the program's share
}

TEST_F(Sandbox, RunsSideBySideDoNotMeet) {
  std::vector<std::thread> threads;
  std::vector<std::string> outs(6);
  for (size_t i = 0; i < outs.size(); ++i)
    threads.emplace_back([&, i] {
      SandboxSpec spec = shell("echo $0 > mine; sleep 0.2; cat mine; ls; kill -9 -1");
      spec.command.push_back(std::to_string(i));
      spec.limits.wall_seconds = 20;
      outs[i] = run_sandboxed(spec).out;
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < outs.size(); ++i) EXPECT_EQ(outs[i], cat(i, "\nmine\n"));
}

// Resident KiB of this process, and its children, dead ones that nobody waited for included.
int64_t resident_kib() {
  std::istringstream status(slurp("/proc/self/status"));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) return std::stoll(line.substr(6));
  return 0;
}
std::string children() {
  const std::string self = std::to_string(::getpid());
  return slurp("/proc/self/task/" + self + "/children");
}

// HADAL_FULL=1: 10,000 runs.
TEST_F(Sandbox, ManyRunsLeaveNothing) {
  const int runs = std::getenv("HADAL_FULL") ? 10'000 : 60;
  const auto run = [](int i) {
    SandboxSpec spec = shell(i % 4 == 1   ? "exec sleep 9"
                             : i % 4 == 2 ? "echo x > kept; kill -9 $$"
                                          : "cat; (sleep 9 &) ; exit 0");
    spec.input = "text", spec.artefacts = {"kept"};
    if (i % 4 == 1) spec.limits.wall_seconds = 0.02;
    return run_sandboxed(spec).status;
  };
  for (int i = 0; i < 20; ++i) run(i);  // what is made once
  const auto before = host_snapshot("sleep 9");
  [[maybe_unused]] const int64_t memory = resident_kib();
  for (int i = 0; i < runs; ++i) ASSERT_NE(run(i), SandboxStatus::kInternal) << i;
  EXPECT_EQ(host_snapshot("sleep 9"), before);
  EXPECT_EQ(children(), "");
#ifndef __SANITIZE_ADDRESS__  // which keeps freed memory for a while
  EXPECT_LT(resident_kib(), memory + 1024);
#endif
}

TEST(SandboxSpecs, ThatMakeNoSenseAreRefused) {
  SandboxSpec spec = shell("true");
  spec.command = {"sh"};
  EXPECT_NE(refusal_of(spec).find("absolute path"), std::string::npos);
  for (const char* name : {"", "..", "a/b"}) {
    spec = shell("true");
    spec.files = {{name, ""}};
    EXPECT_NE(refusal_of(spec).find("without a folder"), std::string::npos) << name;
  }
  spec = shell("true");
  spec.files = {{"a", ""}, {"a", ""}};
  EXPECT_NE(refusal_of(spec).find("two files"), std::string::npos);
  for (const char* path : {"etc", "/", "/usr/../etc", "/usr/", "/box"}) {
    spec = shell("true");
    spec.readable = {path};
    EXPECT_NE(refusal_of(spec).find("cannot show"), std::string::npos) << path;
  }
  spec = shell("true");
  spec.limits.wall_seconds = 0;
  EXPECT_NE(refusal_of(spec).find("wall and CPU time"), std::string::npos);
  spec = shell("true");
  spec.limits.memory_bytes = 0;
  EXPECT_NE(refusal_of(spec).find("a limit is 0"), std::string::npos);
}

TEST(SandboxWire, ARequestSurvivesTheTripAndACutOneIsRefused) {
  BoxRequest request{.spec = shell("x"), .probe = true};
  request.spec.input = std::string("a\0b", 3);
  request.spec.files = {{"name", "content", true}};
  request.spec.limits.tmp_files = 77;
  const std::string bytes = encode(request);
  EXPECT_EQ(encode(decode_request(bytes)), bytes);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(decode_request(std::string_view(bytes).substr(0, size)), Error) << size;
}

TEST(SandboxWire, ALengthBeyondTheMessageIsRefused) {
  std::string bytes(1, '\0');
  bytes += std::string(8, '\xFF');
  EXPECT_THROW(decode_request(bytes), Error);
}

TEST(BoxUser, IsItsOwnForRootAndTheCallersForOthers) {
  const std::string whole = "         0          0 4294967295\n";
  EXPECT_EQ(box_user(1000, 7, whole), 1000u);
  EXPECT_EQ(box_user(0, 7, whole), 1'600'000'007u);
  EXPECT_NE(box_user(0, 7, whole), box_user(0, 8, whole));
}

TEST(BoxUser, StaysWithinTheMapOfAContainer) {
  for (const uint32_t unique : {0u, 1u, 77u, 32768u, 4'000'000u}) {
    const uid_t user = box_user(0, unique, "0 100000 65536\n");
    EXPECT_GE(user, 32767u);
    EXPECT_LT(user, 65536u);
    EXPECT_NE(user, 65534u);
  }
  EXPECT_EQ(box_user(0, 5, "0 1000 1\n"), 0u);  // rootless: one id, the caller's
}

TEST(BoxCgroup, IsOnlyAFolderThatGivesMemoryAndPids) {
  const TemporaryFolder mount;
  const std::string mounts =
      cat("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / ", mount.path().string(), " rw - cgroup2 c rw\n");
  const std::string own = "4:memory:/other\n0::/mine\n";
  EXPECT_EQ(delegated_cgroup(own, mounts), "");  // no such folder
  std::filesystem::create_directory(mount / "mine");
  write_file(mount / "mine" / "cgroup.subtree_control", "cpu memory\n");
  EXPECT_EQ(delegated_cgroup(own, mounts), "");
  write_file(mount / "mine" / "cgroup.subtree_control", "cpu memory pids\n");
  EXPECT_EQ(delegated_cgroup(own, mounts), (mount / "mine").string());
  EXPECT_EQ(delegated_cgroup("4:memory:/other\n", mounts), "");
  EXPECT_EQ(delegated_cgroup(own, "1 0 8:1 / / rw - ext4 /dev/a rw\n"), "");
}

TEST(BoxCgroup, OneThatDoesNotBoundIsAFaultAndLeavesNothing) {
  const TemporaryFolder folder;  // no kernel behind it: the control files are missing
  EXPECT_THROW(BoxCgroup(folder.path().string(), {}), BoxFault);
  EXPECT_TRUE(folder.entries().empty());
  EXPECT_THROW(BoxCgroup("/no/such/folder", {}), BoxFault);
  BoxCgroup none("", {});
  EXPECT_FALSE(none.out_of_memory());
}

TEST(WallTrial, LinesBecomeWalls) {
  const std::vector<SandboxWall> walls = read_trial("files\t1\t1\town root\nlandlock\t0\t0\tnot here\n");
  ASSERT_EQ(walls.size(), 2u);
  EXPECT_TRUE(walls[0].stands && walls[0].needed);
  EXPECT_FALSE(walls[1].stands || walls[1].needed);
  EXPECT_EQ(walls[1].detail, "not here");
}

}  // namespace
}  // namespace hadal
