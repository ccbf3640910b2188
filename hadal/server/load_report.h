// Figures of a load: how fast, how many, how many in time.
#pragma once
#include <string>
#include <vector>

#include "hadal/base/json.h"
#include "hadal/server/http_load.h"

namespace hadal {

struct LoadSlo {
  double first_seconds = 2;    // to the first token
  double token_seconds = 0.2;  // between tokens, the answer's mean
};

struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0;
};
// By nearest rank; 0 of none.
Percentiles percentiles(std::vector<double> values);

struct LoadReport {
  int64_t requests = 0, answered = 0, rejected = 0;
  int64_t lost = 0;   // neither answered whole, nor rejected, nor left by the client
  int64_t wrong = 0;  // not the text that was expected
  int64_t left = 0;
  Percentiles first, token, whole, rejection;   // seconds; of answered requests, and of rejected ones
  double prompt_tokens = 0, answer_tokens = 0;  // means
  // Of the time in which requests began, counting answers that ended in it.
  double requests_per_second = 0, tokens_per_second = 0, good_per_second = 0;
};

// `expected`: texts by body; empty: not compared.
LoadReport report_load(const LoadOutcome& outcome, const LoadSlo& slo,
                       const std::vector<std::string>& expected = {});

Json to_json(const LoadReport& report);

// Bodies of requests with prompts of about `words` words, different in their first word on; each has its
// seed.
struct LoadBody {
  int64_t words = 64, answer_tokens = 64;
  uint64_t seed = 0;
  bool stream = true;
  std::string model;  // "": not said
  double temperature = 1;
};
std::vector<std::string> load_bodies(const LoadBody& body, int64_t count);

}  // namespace hadal
