// Prometheus text of a server: vLLM's metric names with our prefix, and what only this engine has.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "hadal/engine.h"

namespace hadal {

// Counts of values at or below bounds, Prometheus' form.
class BucketCounts {
 public:
  explicit BucketCounts(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void add(double value);
  void print(std::string& out, const std::string& name, const std::string& help) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;
  double sum_ = 0;
};

// What the server itself counts. One thread.
struct ServerMetrics {
  BucketCounts first_token_seconds{
      {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}};
  BucketCounts token_seconds{
      {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}};
  BucketCounts request_seconds{
      {0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480}};
  BucketCounts prompt_tokens{
      {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000}};
  BucketCounts answer_tokens{{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000}};
  std::map<std::string, int64_t> finished;  // by finish reason: stop, length, tool_calls, abort, error
  std::map<int, int64_t> responses;         // by HTTP status
  int64_t rejected = 0;                     // for a full queue
  int64_t connections = 0;                  // open
};

std::string metrics_text(const ServerMetrics& metrics, const EngineStats& engine, int64_t queued_requests,
                         const std::string& model);

}  // namespace hadal
