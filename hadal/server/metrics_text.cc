#include "hadal/server/metrics_text.h"

#include <algorithm>

#include "hadal/base/text.h"

namespace hadal {
namespace {

// One metric: its help and type, then lines of it.
class Metric {
 public:
  Metric(std::string& out, std::string name, const char* type, const char* help)
      : out_(out), name_("hadal:" + std::move(name)) {
    out_ += cat("# HELP ", name_, " ", help, "\n# TYPE ", name_, " ", type, "\n");
  }
  template <class Value>
  Metric& value(Value value, const std::string& labels = "") {
    out_ += cat(name_, labels.empty() ? "" : "{" + labels + "}", " ", value, "\n");
    return *this;
  }

 private:
  std::string& out_;
  std::string name_;
};

std::string label(const char* name, const std::string& value) {
  std::string out = cat(name, "=\"");
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + "\"";
}

void engine_part(std::string& out, const EngineStats& s, int64_t queued) {
  Metric(out, "num_requests_running", "gauge", "requests being computed").value(s.running);
  Metric(out, "num_requests_waiting", "gauge", "requests waiting for their first token").value(queued);
  Metric(out, "kv_cache_usage_perc", "gauge", "share of the latent cache's pages in use, 0 to 1")
      .value(s.pages > 0 ? static_cast<double>(s.pages_used) / static_cast<double>(s.pages) : 0.0);
  Metric(out, "cache_pages", "gauge", "pages of 64 tokens").value(s.pages);
  Metric(out, "cache_pages_used", "gauge", "pages that requests hold").value(s.pages_used);
  Metric(out, "cache_pages_cached", "gauge", "free pages whose prefix can be reused").value(s.pages_cached);
  Metric(out, "cache_bytes", "gauge", "memory of the latent cache").value(s.cache_bytes);
  Metric(out, "prompt_tokens_total", "counter", "prompt tokens, reused ones too").value(s.prompt_tokens);
  Metric(out, "generation_tokens_total", "counter", "tokens generated").value(s.generated_tokens);
  Metric(out, "prefix_cache_queries_total", "counter", "prompt tokens looked up in the prefix cache")
      .value(s.prompt_tokens);
  Metric(out, "prefix_cache_hits_total", "counter", "prompt tokens found there").value(s.reused_tokens);
  Metric(out, "spec_decode_num_draft_tokens_total", "counter", "tokens drafted by the MTP module")
      .value(s.drafted_tokens);
  Metric(out, "spec_decode_num_accepted_tokens_total", "counter", "drafts that stood")
      .value(s.accepted_tokens);
  Metric(out, "engine_steps_total", "counter", "steps of the engine").value(s.steps);
  Metric(out, "requests_cancelled_total", "counter", "requests whose client left or whose time was up")
      .value(s.cancelled_requests);
  Metric load(out, "expert_tokens_total", "counter", "tokens sent to each expert");
  for (size_t layer = 0; layer < s.expert_load.size(); ++layer)
    for (size_t e = 0; e < s.expert_load[layer].size(); ++e)
      load.value(s.expert_load[layer][e], cat("moe_layer=\"", layer, "\",expert=\"", e, "\""));
}

}  // namespace

void BucketCounts::add(double value) {
  ++counts_[static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin())];
  sum_ += value;
}

void BucketCounts::print(std::string& out, const std::string& name, const std::string& help) const {
  out += cat("# HELP hadal:", name, " ", help, "\n# TYPE hadal:", name, " histogram\n");
  int64_t total = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    total += counts_[i];
    const std::string bound = i < bounds_.size() ? cat(bounds_[i]) : "+Inf";
    out += cat("hadal:", name, "_bucket{le=\"", bound, "\"} ", total, "\n");
  }
  out += cat("hadal:", name, "_sum ", sum_, "\nhadal:", name, "_count ", total, "\n");
}

std::string metrics_text(const ServerMetrics& m, const EngineStats& engine, int64_t queued_requests,
                         const std::string& model) {
  std::string out;
  Metric(out, "model_info", "gauge", "the model served").value(1, label("model_name", model));
  engine_part(out, engine, queued_requests);
  m.first_token_seconds.print(out, "time_to_first_token_seconds", "from the request to its first token");
  m.token_seconds.print(out, "time_per_output_token_seconds", "between tokens of an answer, its mean");
  m.request_seconds.print(out, "e2e_request_latency_seconds", "from the request to its last token");
  m.prompt_tokens.print(out, "request_prompt_tokens", "prompt tokens of a request");
  m.answer_tokens.print(out, "request_generation_tokens", "tokens of an answer");
  Metric finished(out, "request_success_total", "counter", "answers by the reason they ended");
  for (const auto& [reason, count] : m.finished) finished.value(count, label("finished_reason", reason));
  Metric responses(out, "http_responses_total", "counter", "responses by status");
  for (const auto& [status, count] : m.responses) responses.value(count, cat("status=\"", status, "\""));
  Metric(out, "requests_rejected_total", "counter", "requests refused for a full queue").value(m.rejected);
  Metric(out, "http_connections", "gauge", "open connections").value(m.connections);
  return out;
}

}  // namespace hadal
