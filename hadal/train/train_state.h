// All that a training run is at the end of a step, and its checkpoints on disk.
//
// CHECKPOINTS/step-000123/: config.json, model.safetensors and the tokenizer (a model folder as any other),
// optimizer.safetensors (m.NAME, v.NAME), ema/ and reference/ (model folders, if there are), state.json,
// manifest.json (size and SHA-256 of each file). Written under a hidden name and renamed when complete. The
// ranks that share a model out write a file each instead, model-00001-of-00002.safetensors and an index,
// optimizer-00001-of-00002.safetensors, where NAME[b:e] is elements b to e of a weight whose other elements
// are another rank's. Any layout of ranks reads what any other wrote.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hadal/model/transformer.h"
#include "hadal/train/adamw.h"

namespace hadal {

struct TrainCounters {
  int64_t step = 0;           // done, skipped ones included
  int64_t planned_steps = 0;  // 0: not fixed yet (a run bounded by time in its first steps)
  int64_t probe_steps = 0;    // until then: steps that were timed
  double probe_seconds = 0;   // and how long they took
  int64_t tokens = 0;         // trained on
  int64_t next_row = 0;       // of the data
  int64_t workers = 0;        // that share a step's rows: sums depend on it
  int64_t skipped = 0, skips_in_a_row = 0, rollbacks = 0;
  double seconds = 0;  // of training, over all restarts
  bool finished = false;
  std::string data;                                    // fingerprint
  std::map<int64_t, std::vector<int64_t>> load_since;  // layer -> tokens per expert since the last record
  std::string more;                                    // JSON of what another loop keeps; "": nothing
};

// Weights that follow the trained ones: ema += (1 - decay) (w - ema), in fp32. The balance bias is the
// model's.
class WeightAverage {
 public:
  WeightAverage(const Transformer& model, double decay);  // starts as the model's weights
  void update(const Transformer& model);
  ModelWeights& weights() { return weights_; }

 private:
  double decay_;
  ModelWeights weights_;
};

// What a checkpoint holds; tensors are copies unless said otherwise, so that training may go on.
struct TrainSnapshot {
  TrainCounters counters;
  ModelConfig config;
  ModelWeights weights;
  std::vector<std::pair<std::string, Tensor>> moments;
  int64_t optimizer_steps = 0;
  std::optional<ModelWeights> average;
  std::optional<ModelWeights> reference;  // of post-training: the policy that KL is measured to
};
TrainSnapshot take_snapshot(const TrainCounters& counters, const Transformer& model, AdamW& optimizer,
                            WeightAverage* average, bool copy);
// The same, with whole moments that somebody gathered from an optimizer of many ranks.
TrainSnapshot take_snapshot(const TrainCounters& counters, const Transformer& model, int64_t optimizer_steps,
                            const std::vector<AdamW::Moments>& moments, WeightAverage* average, bool copy);

// "m.NAME" and "v.NAME" with their tensors, pieces of a weight as "m.NAME[b:e]".
std::vector<std::pair<std::string, Tensor>> named_moments(const std::vector<AdamW::Moments>& moments);
// A file of them, synced.
void write_moments(const std::filesystem::path& path,
                   const std::vector<std::pair<std::string, Tensor>>& moments);
void write_counters(const std::filesystem::path& folder, const TrainCounters& counters,
                    int64_t optimizer_steps);

// Writes all of it but the manifest into an existing folder; each file is synced.
void write_train_state(const std::filesystem::path& folder, const TrainSnapshot& snapshot);

// Fills model, the optimizers' moments and average, as much of them as this rank has, from a checkpoint
// folder, in place. Throws corrupt, invalid_config.
TrainCounters restore(const std::filesystem::path& folder, Transformer& model,
                      const std::vector<AdamW*>& optimizers, WeightAverage* average);

// The reference in it, in fp32.
ModelWeights restore_reference(const std::filesystem::path& folder, const ModelConfig& config);
// Copies of all tensors.
ModelWeights copy_of(const ModelConfig& config, const ModelWeights& weights);

// Why a checkpoint folder cannot be used ("model.safetensors: 12 bytes, the manifest says 20"); "": it can.
std::string checkpoint_problem(const std::filesystem::path& folder);
// {"NAME": {"bytes": 12, "sha256": "..."}} of files in a folder, for a manifest.
std::string manifest_entries(const std::filesystem::path& folder, const std::vector<std::string>& names);
TrainCounters read_counters(const std::filesystem::path& folder);

class CheckpointStore {
 public:
  using Note = std::function<void(const std::string&)>;
  // `extra`: files copied into each checkpoint (name -> content). `background`: a thread writes. `note` is
  // told about checkpoints that cannot be used or written; always called from the caller's thread.
  CheckpointStore(std::filesystem::path folder, int64_t keep, bool background,
                  std::map<std::string, std::string> extra, Note note);
  ~CheckpointStore();
  CheckpointStore(const CheckpointStore&) = delete;

  // Waits for the one before. Writing errors are noted by the next call; training can go on without.
  void save(TrainSnapshot snapshot);
  // Waits; throws if the last save failed.
  void finish();

  // A checkpoint that somebody else writes: the hidden folder for it, empty; then, once its files are there,
  // out with it (`files`: size and SHA-256 of those already known, as in the manifest) or away with it.
  std::filesystem::path begin(int64_t step);
  void publish(const TrainCounters& counters, int64_t optimizer_steps, const std::string& files);
  void abandon(int64_t step, const std::string& error);

  bool copies() const { return background_; }  // does save() need a snapshot of copies?

  // The newest checkpoint that passes checkpoint_problem(), others are noted. good: only those taken while
  // gradients were finite.
  std::optional<std::filesystem::path> newest(bool good = false);
  // Removes checkpoints of steps beyond `step`: those of a branch that was given up.
  void drop_after(int64_t step);

 private:
  struct Writer;
  void wait(bool tell);
  void write(const TrainSnapshot& snapshot) const;
  void put_in_place(int64_t step, const std::string& files) const;
  std::filesystem::path partial(int64_t step) const;
  void prune(int64_t newest_step) const;
  std::vector<std::pair<int64_t, std::filesystem::path>> all() const;  // ascending

  std::filesystem::path folder_;
  int64_t keep_;
  bool background_;
  std::map<std::string, std::string> extra_;
  Note note_;
  std::unique_ptr<Writer> writer_;
};

}  // namespace hadal
