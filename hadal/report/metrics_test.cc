#include "hadal/report/metrics.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>

#include "hadal/base/file.h"
#include "hadal/error.h"
#include "tests/support/temporary_folder.h"

namespace hadal {
namespace {

StepRecord step_record(int64_t step) {
  return {.step = step,
          .tokens = 10 * step,
          .loss = 1.0 / static_cast<double>(step),
          .mtp_loss = {.1, 2e-300},
          .balance_loss = 1e-4,
          .lr = 3e-4,
          .grad_norm = .7,
          .max_vio = 1.5,
          .skipped = 0};
}
RunRecord run_record() {
  return {.name = "a \"b\"\n<c>",
          .model = "tiny",
          .parameters = 12'345,
          .machine = "Ein Prozessor, 中",
          .seed = UINT64_MAX,
          .num_experts = 8,
          .peak_flops = 1.5e11};
}

void write_run(const std::filesystem::path& folder, int64_t from, int64_t to) {
  MetricsWriter writer(folder);
  writer.truncate_after(from - 1);
  writer.begin(run_record());
  for (int64_t step = from; step <= to; ++step) {
    writer.add(step_record(step));
    if (step % 2 == 0) writer.add(EvalRecord{step, 1.25, 1.75, {.5}, {}, .75});
    if (step % 2 == 0) writer.add(LoadRecord{step, {{1, {step, 3}}, {2, {0, 4}}}});
    writer.add(ValuesRecord{"rl", step, {{"reward", .25}, {"rewards/a/mean", NAN}}});
    writer.add(TimingRecord{step, .5, 20, {}, {{"rollout", .125}}});
  }
}

template <class Call>
std::string error_of(ErrorCode code, Call call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

void append_raw(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::app | std::ios::binary) << text;
}

TEST(Metrics, EveryFieldReadsBackAsWritten) {
  const TemporaryFolder folder;
  write_run(folder.path(), 1, 4);
  const RunMetrics run = read_run(folder.path());
  EXPECT_EQ(run.run, run_record());
  EXPECT_EQ(run.name, run_record().name);
  ASSERT_EQ(run.steps.size(), 4u);
  EXPECT_EQ(run.steps[2], step_record(3));
  ASSERT_EQ(run.evals.size(), 2u);
  EXPECT_EQ(run.evals[1], (EvalRecord{4, 1.25, 1.75, {.5}, {}, .75}));
  ASSERT_EQ(run.loads.size(), 2u);
  EXPECT_EQ(run.loads[1], (LoadRecord{4, {{1, {4, 3}}, {2, {0, 4}}}}));
  ASSERT_EQ(run.timings.size(), 4u);
  EXPECT_EQ(run.timings[3], (TimingRecord{4, .5, 20, {}, {{"rollout", .125}}}));
  ASSERT_EQ(run.values.size(), 4u);
  EXPECT_EQ(run.values[2].step, 3);
  EXPECT_EQ(run.values[2].get("reward"), .25);
  EXPECT_TRUE(std::isnan(*run.values[2].get("rewards/a/mean")));
  EXPECT_EQ(run.values[2].get("other"), std::nullopt);
  EXPECT_TRUE(run.notes.empty());
}

TEST(Metrics, StepLineIsTheDocumentedJson) {
  EXPECT_EQ(to_line(step_record(1)),
            R"({"kind":"step","step":1,"tokens":10,"loss":1.0,"mtp_loss":[0.1,2e-300],"balance_loss":1e-04,)"
            R"("lr":3e-04,"grad_norm":0.7,"max_vio":1.5,"skipped":0})");
  EXPECT_EQ(to_line(TimingRecord{2, .25, 1e6, .5}),
            R"({"step":2,"seconds":0.25,"tokens_per_second":1e+06,"mfu":0.5})");
}

TEST(Metrics, RealNumbersReadBackToTheSameBits) {
  const TemporaryFolder folder;
  std::vector<double> values = {0.0,
                                -0.0,
                                5e-324,
                                std::numeric_limits<double>::max(),
                                12345678901234567890.0,
                                1e22,
                                123456789.0,
                                std::nan(""),
                                INFINITY,
                                -INFINITY};
  for (uint64_t i = 0; values.size() < 20'000; ++i) {  // all exponents and signs
    const uint64_t bits = i * 0x9E3779B97F4A7C15u ^ i << 17;
    double value;
    std::memcpy(&value, &bits, 8);
    if (std::isfinite(value)) values.push_back(value);
  }
  {
    MetricsWriter writer(folder.path());
    writer.add(StepRecord{.step = 1, .mtp_loss = values});
  }
  const std::vector<double> read = read_run(folder.path()).steps.at(0).mtp_loss;
  ASSERT_EQ(read.size(), values.size());
  for (size_t i = 0; i < values.size(); ++i)
    if (std::isnan(values[i]))
      EXPECT_TRUE(std::isnan(read[i]));
    else
      EXPECT_EQ(std::memcmp(&read[i], &values[i], 8), 0) << values[i];
}

TEST(Metrics, AResumedRunWritesTheBytesOfAnUnbrokenOne) {
  const TemporaryFolder whole, broken;
  write_run(whole.path(), 1, 9);
  for (int64_t resumed_at = 0; resumed_at <= 8; ++resumed_at) {
    write_run(broken.path(), 1, 8);
    append_raw(broken / "metrics.jsonl", to_line(step_record(9)).substr(0, 17 * resumed_at));  // torn
    write_run(broken.path(), resumed_at + 1, 9);
    for (const char* file : {"metrics.jsonl", "timing.jsonl"})
      EXPECT_EQ(read_file(broken / file), read_file(whole / file)) << file << " " << resumed_at;
  }
}

TEST(Metrics, TruncationAtAnyByteOfTheLastLinesLosesNoWholeLine) {
  const TemporaryFolder folder;
  write_run(folder.path(), 1, 3);
  const std::string whole = read_file(folder / "metrics.jsonl");
  for (size_t size = whole.size() - 250; size <= whole.size(); ++size) {
    std::filesystem::resize_file(folder / "metrics.jsonl", size);
    const RunMetrics run = read_run(folder.path());
    const std::string kept = whole.substr(0, whole.substr(0, size).rfind('\n') + 1);
    EXPECT_EQ(run.notes.size(), kept.size() == size ? 0u : 1u);
    {
      MetricsWriter writer(folder.path());
      EXPECT_EQ(read_file(folder / "metrics.jsonl"), kept);
      EXPECT_EQ(writer.last_step(), run.steps.empty() ? -1 : run.steps.back().step);
    }
    std::ofstream(folder / "metrics.jsonl", std::ios::trunc) << whole;
  }
}

TEST(Metrics, AFullDiskLeavesNoTornLine) {
  const TemporaryFolder folder;
  MetricsWriter writer(folder.path());
  writer.add(step_record(1));
  const std::string before = read_file(folder / "metrics.jsonl");
  // A limit on file sizes, half a line away, stands in for the disk.
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit tight = old;
  tight.rlim_cur = before.size() + 20;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  std::string what;
  try {
    writer.add(step_record(2));
  } catch (const Error& e) {
    what = e.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(what.find("metrics.jsonl"), std::string::npos) << what;
  EXPECT_EQ(read_file(folder / "metrics.jsonl"), before);
  writer.add(step_record(2));  // space again
  EXPECT_EQ(read_run(folder.path()).steps.size(), 2u);
}

TEST(Metrics, ASecondWriterIsRefused) {
  const TemporaryFolder folder;
  MetricsWriter writer(folder.path());
  const std::string what = error_of(ErrorCode::kUnavailable, [&] { MetricsWriter second(folder.path()); });
  EXPECT_NE(what.find("another process writes it"), std::string::npos) << what;
}

TEST(Metrics, StepsThatFallAreABugOfTheCaller) {
  const TemporaryFolder folder;
  MetricsWriter writer(folder.path());
  writer.add(step_record(5));
  const std::string what = error_of(ErrorCode::kInternal, [&] { writer.add(step_record(4)); });
  EXPECT_NE(what.find("truncate_after"), std::string::npos) << what;
}

TEST(Metrics, BadLinesAreNamedWithFileAndLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{\"kind\":\"step\",", "byte"},
      {"[]", "no JSON object"},
      {"{\"step\":3}", "\"kind\" is missing"},
      {"{\"kind\":\"step\",\"step\":3,\"lr\":1.0,\"grad_norm\":1.0}", "\"loss\" is missing"},
      {"{\"kind\":\"step\",\"step\":3,\"loss\":\"x\",\"lr\":1.0,\"grad_norm\":1.0}", "\"loss\" holds \"x\""},
      {"{\"kind\":\"step\",\"step\":-3,\"loss\":1.0}", "\"step\" is -3"},
      {"{\"kind\":\"eval\",\"step\":1,\"loss\":1.0}", "step 1 behind step 2"},
      {"{\"kind\":\"load\",\"step\":3,\"layers\":[{\"layer\":1,\"load\":[1.5]}]}", "\"load\" holds 1.5"}};
  for (const auto& [line, what] : cases) {
    const TemporaryFolder folder;
    write_run(folder.path(), 1, 2);  // seven lines
    append_raw(folder / "metrics.jsonl", line + "\n");
    const std::string error = error_of(ErrorCode::kCorrupt, [&] { read_run(folder.path()); });
    EXPECT_NE(error.find("metrics.jsonl line 8: "), std::string::npos) << error;
    EXPECT_NE(error.find(what), std::string::npos) << error;
  }
}

TEST(Metrics, AFolderThatIsNoRunIsNamed) {
  const TemporaryFolder folder;
  EXPECT_NE(error_of(ErrorCode::kNotFound, [&] { read_run(folder.path()); }).find("no metrics.jsonl"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorCode::kNotFound, [&] { read_run(folder / "gone"); }).find("gone"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorCode::kNotFound, [&] { MetricsWriter w(folder / "gone"); }).find("gone"),
            std::string::npos);
}

TEST(Metrics, UnknownKindsAndFieldsAreSkipped) {
  const TemporaryFolder folder;
  append_raw(folder / "metrics.jsonl",
             "{\"kind\":\"later\",\"x\":1}\n"
             "{\"kind\":\"step\",\"step\":1,\"loss\":2,\"lr\":0.1,\"grad_norm\":null,\"new\":[1]}\n");
  const RunMetrics run = read_run(folder / "metrics.jsonl");
  ASSERT_EQ(run.steps.size(), 1u);
  EXPECT_EQ(run.steps[0].loss, 2);
  EXPECT_TRUE(std::isnan(run.steps[0].grad_norm));
  EXPECT_EQ(run.notes.size(), 1u);
  EXPECT_EQ(run.name, folder.path().filename().string());
}

}  // namespace
}  // namespace hadal
