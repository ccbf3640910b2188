// What a training run tells about itself: RUN/metrics.jsonl (a function of the configuration and nothing
// else, so that a resumed run writes the same bytes as an unbroken one) and RUN/timing.jsonl (the clock).
// One JSON object per line. Real numbers are printed in the shortest form that reads back to the same double;
// NaN and infinities as the strings "NaN", "Infinity", "-Infinity", which JSON has no numbers for.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hadal/report/line_file.h"

namespace hadal {

// The first line of metrics.jsonl. Empty text, 0 and empty lists mean "not stated" and are left out.
struct RunRecord {
  std::string name;               // for legends; not stated: the folder's name
  std::string model;              // preset or configuration, e.g. "tiny"
  int64_t parameters = 0;         // trained values, MTP included
  int64_t active_parameters = 0;  // of them, used by one token
  std::string machine;            // e.g. the CPU
  int64_t threads = 0;            // used for computing
  std::string dtype;              // of the computation, e.g. "bf16"
  uint64_t seed = 0;              // always written
  int64_t planned_steps = 0;      // of the whole run
  int64_t tokens_per_step = 0;    // at the end of any batch ramp
  int64_t num_experts = 0;        // E, routed, per MoE layer
  int64_t top_k = 0;              // A
  std::string version;            // of hadal
  double peak_flops = 0;          // measured GEMM peak that MFU refers to, FLOP/s
  bool operator==(const RunRecord&) const = default;
};

// One optimiser step, skipped ones included. `step` counts from 1: steps done with this one.
struct StepRecord {
  int64_t step = 0;
  int64_t tokens = 0;            // trained on so far, this step included
  double loss = 0;               // main model, nats per valid target
  std::vector<double> mtp_loss;  // per MTP depth, unweighted; empty: no MTP
  double balance_loss = 0;       // weighted sum of the auxiliary losses
  double lr = 0;
  double grad_norm = 0;           // before clipping
  std::optional<double> max_vio;  // mean over the MoE layers; none: a dense model
  int64_t skipped = 0;            // steps left out so far (non-finite), this one included
  bool operator==(const StepRecord&) const = default;
};

// A measurement on held-out data after `step` steps (0: before training).
struct EvalRecord {
  int64_t step = 0;
  double loss = 0;                      // nats a token
  std::optional<double> bits_per_byte;  // none: bytes of the text unknown
  std::vector<double> mtp_acceptance;   // per MTP depth, share of drafts the main model agrees with
  std::optional<double> max_vio;        // none: a dense model
  std::optional<double> accuracy;       // share of the targets that are the likeliest token
  bool operator==(const EvalRecord&) const = default;
};

// Tokens sent to each routed expert since the last such record.
struct LayerLoad {
  int64_t layer = 0;          // index among all layers, MTP layers behind the main ones
  std::vector<int64_t> load;  // [E]
  bool operator==(const LayerLoad&) const = default;
};
struct LoadRecord {
  int64_t step = 0;
  std::vector<LayerLoad> layers;  // MoE layers only, ascending
  bool operator==(const LoadRecord&) const = default;
};

// A step of post-training, or a measurement after it, as named numbers.
struct ValuesRecord {
  std::string kind;  // "rl": of a step; "rl_eval": on held-out tasks
  int64_t step = 0;
  std::vector<std::pair<std::string, double>> values;
  std::optional<double> get(std::string_view name) const;
  bool operator==(const ValuesRecord&) const = default;
};

// A line of timing.jsonl.
struct TimingRecord {
  int64_t step = 0;
  double seconds = 0;                                 // wall time of this step
  double tokens_per_second = 0;                       // of this step
  std::optional<double> mfu;                          // share of the peak, 0 to 1; none: no peak known
  std::vector<std::pair<std::string, double>> parts;  // seconds of the parts of a step
  bool operator==(const TimingRecord&) const = default;
};

// A record as its line, without the line break.
std::string to_line(const RunRecord& record);
std::string to_line(const StepRecord& record);
std::string to_line(const EvalRecord& record);
std::string to_line(const LoadRecord& record);
std::string to_line(const ValuesRecord& record);
std::string to_line(const TimingRecord& record);

// Both files of a run. Not thread-safe. Steps never fall from line to line: smaller ones are a bug of the
// caller (internal).
//   fresh run:   MetricsWriter m(folder); m.begin(run); for each step { m.add(step_record); m.add(timing); }
//   checkpoint:  m.sync() before the checkpoint of that step is published
//   resume:      MetricsWriter m(folder); m.truncate_after(step of the checkpoint); m.begin(run); ...
class MetricsWriter {
 public:
  explicit MetricsWriter(
      const std::filesystem::path& run_folder);  // creates the files; the folder must exist

  void begin(const RunRecord& record);  // written if metrics.jsonl is empty, else nothing happens
  void add(const StepRecord& record);
  void add(const EvalRecord& record);
  void add(const LoadRecord& record);
  void add(const ValuesRecord& record);
  void add(const TimingRecord& record);
  void sync();
  void truncate_after(int64_t step);  // lines of later steps go, in both files; the run line stays
  int64_t last_step() const { return metrics_.last_step(); }  // in metrics.jsonl; -1: none

 private:
  LineFile metrics_, timing_;
};

// What a run wrote, in the order of the file.
struct RunMetrics {
  std::filesystem::path folder;
  std::string name;  // RunRecord's, or the folder's name
  RunRecord run;     // as default if the file has no run line
  std::vector<StepRecord> steps;
  std::vector<EvalRecord> evals;
  std::vector<LoadRecord> loads;
  std::vector<ValuesRecord> values;
  std::vector<TimingRecord> timings;  // empty if there is no timing.jsonl
  std::vector<std::string> notes;     // what was left out: a torn last line, lines of unknown kinds
};

// `run` is the folder or its metrics.jsonl. May be read while the run is going on. Unknown fields and kinds
// are skipped, a torn last line too. Throws not_found (no folder, no metrics.jsonl), corrupt with
// "FILE line N: ...".
RunMetrics read_run(const std::filesystem::path& run);

}  // namespace hadal
