// What an engine holds, and one step of it in parts. Internal to hadal/engine.
#pragma once
#include <mutex>
#include <unordered_map>

#include "hadal/base/json.h"
#include "hadal/engine.h"
#include "hadal/engine/answer.h"
#include "hadal/engine/scheduler.h"
#include "hadal/engine/speculation_gauge.h"
#include "hadal/network/network.h"

namespace hadal {

struct Engine::State {
  // What the engine knows of a request beside the scheduler.
  struct Running {
    AnswerState answer;
    // Of its sequence, rows that the MTP module has in the cache. Rows behind them wait with their hidden
    // states while drafting does not pay; too many of them, and the sequence is never drafted for again.
    int64_t mtp_rows = 0;
    std::vector<float> waiting_hidden;
    bool draftable = true;
    Usage counted;  // in the engine's statistics
  };

  // One step.
  struct Work {
    Batch batch;
    std::vector<int32_t> ids;
    std::vector<SequenceRows> rows;
    std::vector<int64_t> first_row;     // of each sequence in the step
    std::vector<int32_t> logit_rows;    // rows whose logits are wanted
    std::vector<int64_t> first_logits;  // of each sequence in logit_rows; -1: none
    std::vector<float> hidden, logits;
    std::vector<StepResult> results;
    std::vector<Delta> deltas;
  };

  State(NetworkWeights weights, std::optional<Tokenizer> tokenizer, const EngineConfig& config);

  void check_request(const Request& request) const;
  std::vector<Delta> step();
  Json cache_header(int64_t pages) const;              // of a saved cache: what made it
  std::shared_ptr<const VocabularyTrie> vocabulary();  // any thread

  EngineConfig config;
  WorkerPool pool;
  Network network;
  std::optional<Tokenizer> tokenizer;
  const ModelConfig& model;
  Speculation speculation;
  int64_t context;
  CacheFormat format;
  int64_t layers, num_pages;
  LatentPages storage;
  PageTable table;
  Scheduler scheduler;
  SpeculationGauge gauge;
  std::vector<int64_t> eos_ids;
  std::vector<uint8_t> page_has_mtp;  // of a page: all its MTP rows are written
  std::unordered_map<RequestId, Running> running;
  std::vector<Delta> unseen;  // of other requests, from steps made by generate()
  RequestId next_id = 1;
  EngineStats stats;
  double last_decoding_step = 0;  // when it ended; 0: the last step was another kind

 private:
  std::once_flag vocabulary_made_;
  std::shared_ptr<const VocabularyTrie> vocabulary_;

  int64_t num_tokens() const { return tokenizer ? tokenizer->vocab_size() : -1; }
  bool wants_drafts(int64_t sequences) const;
  Work plan();
  void apply(const ContextShift& shift);
  void run(Work& work);
  void count_load();
  void choose_all(Work& work);
  void choose(Work& work, size_t i);
  NewToken describe(const Work& work, size_t i, int64_t row, int32_t id) const;
  void draft(Work& work);
  bool follow_with_mtp(const SequenceStep& step, Running& state);
  void count_usage(Running& state);
  void finish(Work& work);
};

}  // namespace hadal
