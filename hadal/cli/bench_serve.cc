// hadal bench serve: load for a running server, this one or another that speaks the OpenAI API.
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "hadal/base/clock.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/input.h"
#include "hadal/cli/interrupt.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"
#include "hadal/server/load_report.h"

namespace hadal {
namespace {

// Memory and open files of the server's process, a sample a second.
class ProcessWatch {
 public:
  explicit ProcessWatch(int64_t pid) : pid_(pid) {
    if (pid_ > 0) thread_ = std::thread([this] { run(); });
  }
  ~ProcessWatch() {
    over_ = true;
    if (thread_.joinable()) thread_.join();
  }

  struct Sample {
    double mebibytes = 0;
    int64_t files = 0;
  };
  Sample now() const {
    Sample sample;
    const std::string folder = cat("/proc/", pid_);
    int64_t size = 0, resident = 0;
    std::ifstream(folder + "/statm") >> size >> resident;
    sample.mebibytes = static_cast<double>(resident * ::sysconf(_SC_PAGESIZE)) / (1 << 20);
    std::error_code error;
    for (auto it = std::filesystem::directory_iterator(folder + "/fd", error);
         !error && it != std::filesystem::directory_iterator(); it.increment(error))
      ++sample.files;
    return sample;
  }
  Json end() {
    over_ = true;
    if (!thread_.joinable()) return nullptr;
    thread_.join();
    samples_.push_back(now());
    Json rss = Json::array();
    double most = 0;
    const size_t step = std::max<size_t>(1, samples_.size() / 20);
    for (size_t i = 0; i < samples_.size(); ++i) {
      most = std::max(most, samples_[i].mebibytes);
      if (i % step == 0 || i + 1 == samples_.size())
        rss.push_back(std::round(samples_[i].mebibytes * 10) / 10);
    }
    return {{"rss_mib", rss},
            {"rss_mib_most", std::round(most * 10) / 10},
            {"files_before", samples_.front().files},
            {"files_after", samples_.back().files}};
  }

 private:
  void run() {
    double next = now_seconds();
    while (!over_) {
      if (now_seconds() >= next) samples_.push_back(now()), next += 1;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  const int64_t pid_;
  std::atomic<bool> over_{false};
  std::vector<Sample> samples_;
  std::thread thread_;
};

// -1: the server has no such metric.
double metric(const std::string& text, const std::string& name) {
  const size_t at = text.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::strtod(text.c_str() + at + name.size() + 2, nullptr);
}

// What hadal serve holds once its work is done; null from another server.
Json metrics_at_rest(const LoadTarget& target) {
  std::string text;
  for (int i = 0; i < 100; ++i) {
    text = http_get(target, "/metrics");
    if (metric(text, "hadal:cache_pages_used") <= 0 && metric(text, "hadal:http_connections") <= 1) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (metric(text, "hadal:cache_pages") < 0) return nullptr;
  return {{"pages_used", metric(text, "hadal:cache_pages_used")},
          {"requests_running", metric(text, "hadal:num_requests_running")},
          {"requests_waiting", metric(text, "hadal:num_requests_waiting")},
          {"connections", metric(text, "hadal:http_connections")}};
}

class ServeBench {
 public:
  explicit ServeBench(const BenchServeOptions& o) : o_(o), target_(load_target(o.url)), watch_(o.pid) {
    if (!o.api_key_file.empty()) target_.api_key = one_line(read_text(o.api_key_file));
    while (target_.api_key.ends_with(' ')) target_.api_key.pop_back();
  }

  // The exit code: 1 if an answer was lost or wrong.
  int run() {
    make_bodies();
    if (o_.verify) expect();
    print(
        "load            req/s  tokens/s   good/s  rejected   first token ms        per token ms      "
        "whole answer ms      rejection ms\n");
    print(
        "                                                p50   p90   p99      p50   p90   p99     p50    "
        "p90    p99    p50   p90   p99\n");
    LoadPlan closed = plan();
    if (o_.rate == 0 || !o_.loads.empty()) {
      if (o_.disconnects > 0) closed.leave = true, closed.requests = o_.disconnects, closed.seconds = 1e9;
      measure(cat(o_.streams, " streams"), closed);
    }
    if (o_.rate > 0) measure(cat(o_.rate, "/s"), open_plan(o_.rate));
    const double peak = peak_;
    for (const double load : o_.loads)
      if (!interrupt_.flag()) measure(cat(load, " x peak"), open_plan(load * peak));
    return end();
  }

 private:
  LoadPlan plan() const {
    LoadPlan plan{.bodies = bodies_, .stream = !o_.whole, .streams = o_.streams, .seconds = o_.seconds};
    plan.timeout_seconds = o_.timeout_seconds, plan.seed = o_.seed, plan.keep_text = o_.verify;
    plan.leave_seconds = o_.leave_seconds;
    plan.slow_clients = o_.slow_clients, plan.slow_seconds = 0.2;
    plan.slow_warm_seconds = 25;  // their answers are made by then
    return plan;
  }
  LoadPlan open_plan(double rate) const {
    LoadPlan open = plan();
    open.rate = rate;
    return open;
  }

  // Prompts of about as many tokens as asked: the words are counted by the server once.
  void make_bodies() {
    LoadBody body{.words = 200, .answer_tokens = 1, .seed = o_.seed, .stream = !o_.whole, .model = o_.model};
    LoadPlan probe{.bodies = load_bodies(body, 1), .stream = body.stream, .streams = 1, .seconds = 60};
    probe.requests = 1;
    http_get(target_, "/health");  // throws if nobody is there
    const LoadOutcome outcome = run_load(target_, probe, &interrupt_.flag());
    if (outcome.records.empty() || !outcome.records[0].answered())
      throw Error(
          ErrorCode::kUnavailable,
          cat("[bench.serve] ", o_.url, " does not answer /v1/completions: status ",
              outcome.records.empty() ? 0 : outcome.records[0].status, ". Check the URL and --model."));
    const double tokens_per_word =
        std::max<double>(1, static_cast<double>(outcome.records[0].prompt_tokens)) / 200;
    body.words = std::max<int64_t>(1, std::llround(static_cast<double>(o_.prompt_tokens) / tokens_per_word));
    body.answer_tokens = o_.answer_tokens;
    bodies_ = load_bodies(body, o_.prompts);
  }

  // Each prompt's answer, alone.
  void expect() {
    LoadPlan alone = plan();
    alone.streams = 1, alone.requests = o_.prompts, alone.seconds = 1e9, alone.slow_clients = 0;
    const LoadOutcome outcome = run_load(target_, alone, &interrupt_.flag());
    expected_.resize(bodies_.size());
    size_t answered = 0;
    for (const RequestRecord& r : outcome.records)
      if (r.answered()) expected_[static_cast<size_t>(r.body)] = r.text, ++answered;
    if (answered != bodies_.size())
      throw Error(ErrorCode::kUnavailable, cat("[bench.serve] alone, the server answered ", answered, " of ",
                                               bodies_.size(), " prompts. See its log."));
  }

  void measure(const std::string& name, const LoadPlan& plan) {
    const LoadOutcome outcome = run_load(target_, plan, &interrupt_.flag());
    const LoadReport r = report_load(outcome, {o_.slo_first_ms / 1e3, o_.slo_token_ms / 1e3}, expected_);
    if (plan.rate == 0) peak_ = r.requests_per_second;
    bad_ += r.lost + r.wrong;
    char text[400];
    const auto ms = [](const Percentiles& p, int width) {
      char out[60];
      std::snprintf(out, sizeof out, " %*.*f %*.*f %*.*f", width, width > 5 ? 0 : 1, p.p50 * 1e3, width,
                    width > 5 ? 0 : 1, p.p90 * 1e3, width, width > 5 ? 0 : 1, p.p99 * 1e3);
      return std::string(out);
    };
    std::snprintf(
        text, sizeof text, "%-14s %6.1f %9.1f %8.1f %8.1f%% %s  %s %s  %s\n", name.c_str(),
        r.requests_per_second, r.tokens_per_second, r.good_per_second,
        100.0 * static_cast<double>(r.rejected) / std::max<double>(1, static_cast<double>(r.requests)),
        ms(r.first, 6).c_str(), ms(r.token, 5).c_str(), ms(r.whole, 6).c_str(), ms(r.rejection, 5).c_str());
    print(text);
    if (r.lost + r.wrong + r.left > 0)
      print(cat("               ", r.lost, " lost, ", r.wrong, " wrong, ", r.left, " left by the client\n"));
    flush_output();
    Json row = to_json(r);
    row["load"] = name, row["seconds"] = outcome.seconds, row["rate"] = plan.rate;
    row["slow_bytes"] = outcome.slow_answers;
    rows_.push_back(std::move(row));
  }

  int end() {
    Json server = metrics_at_rest(target_);
    Json process = watch_.end();
    if (!server.is_null())
      print(cat("server at rest: ", server["pages_used"].get<double>(), " pages in use, ",
                server["connections"].get<double>(), " connections (one is this question's)\n"));
    if (!process.is_null())
      print(cat("its process: ", dump_json(process["rss_mib"]), " MiB over time, ",
                process["files_before"].get<int64_t>(), " open files before, ",
                process["files_after"].get<int64_t>(), " after\n"));
    print(dump_json(Json{{"url", o_.url},
                         {"streams", o_.streams},
                         {"prompts", o_.prompts},
                         {"stream", !o_.whole},
                         {"verified", o_.verify},
                         {"slow_clients", o_.slow_clients},
                         {"slo_first_ms", o_.slo_first_ms},
                         {"slo_token_ms", o_.slo_token_ms},
                         {"loads", rows_},
                         {"server", server},
                         {"process", process}}) +
          "\n");
    return interrupt_.flag() ? 130 : bad_ > 0 ? 1 : 0;
  }

  const BenchServeOptions& o_;
  LoadTarget target_;
  const InterruptWatch interrupt_;
  ProcessWatch watch_;
  std::vector<std::string> bodies_, expected_;
  double peak_ = 0;
  int64_t bad_ = 0;
  Json rows_ = Json::array();
};

}  // namespace

int run_bench_serve(const BenchServeOptions& o) {
  return ServeBench(o).run();
}

}  // namespace hadal
