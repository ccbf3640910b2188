#include "hadal/server/load_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

namespace hadal {
namespace {

constexpr const char* kWords[] = {
    "river", "stone", "bridge", "winter", "letter", "garden", "window", "copper", "silver", "music",  "paper",
    "salt",  "north", "harbor", "candle", "forest", "engine", "mirror", "number", "orange", "planet", "quiet",
    "road",  "sail",  "table",  "under",  "valley", "water",  "yellow", "zero",   "answer", "before"};

double share_of(int64_t part, double seconds) {
  return seconds > 0 ? static_cast<double>(part) / seconds : 0;
}

Json to_json(const Percentiles& p) {
  return {{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}};
}

}  // namespace

Percentiles percentiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto rank = [&](double p) {
    const auto i = static_cast<size_t>(std::ceil(p * static_cast<double>(values.size())));
    return values[std::max<size_t>(i, 1) - 1];
  };
  return {.p50 = rank(0.5), .p90 = rank(0.9), .p99 = rank(0.99)};
}

LoadReport report_load(const LoadOutcome& outcome, const LoadSlo& slo,
                       const std::vector<std::string>& expected) {
  LoadReport report;
  std::vector<double> first, token, whole, rejection;
  int64_t in_time = 0, good = 0, tokens = 0, all_tokens = 0, prompt_tokens = 0;
  for (const RequestRecord& r : outcome.records) {
    ++report.requests;
    if (r.left) {
      ++report.left;
    } else if (r.rejected()) {
      ++report.rejected, rejection.push_back(r.end - r.due);
    } else if (!r.answered()) {
      ++report.lost;
    } else {
      ++report.answered;
      if (!expected.empty() && r.text != expected[static_cast<size_t>(r.body)]) ++report.wrong;
      first.push_back(r.first_seconds()), whole.push_back(r.end - r.due);
      if (r.tokens > 1) token.push_back(r.token_seconds());
      prompt_tokens += r.prompt_tokens, all_tokens += r.tokens;
      if (r.end > outcome.seconds) continue;
      ++in_time, tokens += r.tokens;
      good += r.first_seconds() <= slo.first_seconds && r.token_seconds() <= slo.token_seconds;
    }
  }
  report.first = percentiles(std::move(first)), report.token = percentiles(std::move(token));
  report.whole = percentiles(std::move(whole)), report.rejection = percentiles(std::move(rejection));
  report.prompt_tokens = share_of(prompt_tokens, static_cast<double>(report.answered));
  report.answer_tokens = share_of(all_tokens, static_cast<double>(report.answered));
  report.requests_per_second = share_of(in_time, outcome.seconds);
  report.tokens_per_second = share_of(tokens, outcome.seconds);
  report.good_per_second = share_of(good, outcome.seconds);
  return report;
}

Json to_json(const LoadReport& r) {
  Json out{{"requests", r.requests}, {"answered", r.answered}, {"rejected", r.rejected}};
  out["lost"] = r.lost, out["wrong"] = r.wrong, out["left"] = r.left;
  out["first_token_seconds"] = to_json(r.first);
  out["token_seconds"] = to_json(r.token);
  out["request_seconds"] = to_json(r.whole);
  out["rejection_seconds"] = to_json(r.rejection);
  out["prompt_tokens"] = r.prompt_tokens, out["answer_tokens"] = r.answer_tokens;
  out["requests_per_second"] = r.requests_per_second, out["tokens_per_second"] = r.tokens_per_second;
  out["good_per_second"] = r.good_per_second;
  return out;
}

std::vector<std::string> load_bodies(const LoadBody& body, int64_t count) {
  std::vector<std::string> bodies;
  for (int64_t i = 0; i < count; ++i) {
    std::mt19937_64 random(body.seed * 1000003 + static_cast<uint64_t>(i));
    std::string prompt = std::to_string(random() % 1000000);
    for (int64_t w = 1; w < body.words; ++w)
      prompt += std::string(" ") + kWords[random() % std::size(kWords)];
    Json json{{"prompt", prompt}, {"max_tokens", body.answer_tokens}, {"ignore_eos", true}};
    json["temperature"] = body.temperature, json["seed"] = random() % 2147483648;
    if (!body.model.empty()) json["model"] = body.model;
    json["stream"] = body.stream;
    if (body.stream) json["stream_options"] = {{"include_usage", true}};
    bodies.push_back(dump_json(json));
  }
  return bodies;
}

}  // namespace hadal
