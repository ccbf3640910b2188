// Which rows run in the next step: continuous batching with chunked prompts, pages budgeted before a request
// starts. Torch-free state machine: no threads, no clock (times are passed in), no tensors.
//
// The engine's loop:
//   Batch batch = scheduler.next_batch(now, drafts a sequence);
//   run the rows, choose the tokens (verify() of speculation.h), write all rows of the cache;
//   scheduler.complete(results, now);
#pragma once
#include <cstdint>
#include <limits>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "hadal/engine.h"
#include "hadal/engine/page_table.h"

namespace hadal {

// kWorstCase: a request starts when its prompt and all its new tokens would fit beside the others' worst
// case; nothing is ever computed twice. kOptimistic: when its prompt fits; if pages run out, the sequence
// that came last gives up its pages and computes its rows again later (most of them found in the cache,
// often).
enum class Admission { kWorstCase, kOptimistic };

struct SchedulerLimits {
  int64_t max_batch_tokens = 512;      // rows of a step; above max_sequences, so that decoding never waits
  int64_t max_sequences = 64;          // that run at the same time
  int64_t chunk_tokens = 256;          // of one prompt in a step
  int64_t max_context_tokens = 4096;   // prompt and answer of a sequence
  int64_t draft_lookahead_tokens = 0;  // rows that drafting writes past a sequence's last token, e.g. a
                                       // chain of K drafts: K - 1
  double priority_seconds = 10;        // a level of priority is worth so much waiting: nobody waits forever
  Admission admission = Admission::kWorstCase;
  // Where a sequence shifts depends on nothing but its length. With kOptimistic one that is preempted after
  // a shift is computed anew, without the tokens that went, so its answer may differ.
  Overflow overflow = Overflow::kRefuse;
  int64_t keep_tokens = 0;  // kShift: the head that stays, rounded up to whole pages
};

struct SequenceRequest {
  SequenceId id = 0;                                          // not in use
  std::vector<int32_t> prompt;                                // at least one
  int64_t max_tokens = 256;                                   // new ones; the context may end it before
  int priority = 0;                                           // higher starts earlier
  double deadline = std::numeric_limits<double>::infinity();  // ended by the first step from then on
};

// Rows of one sequence in a step.
struct SequenceStep {
  SequenceId id = 0;
  int64_t position = 0;            // of the first row
  std::vector<int32_t> tokens;     // one a row: a piece of the prompt, or the last token and its drafts
  int64_t num_drafts = 0;          // so many of the last tokens are guesses
  bool chooses = false;            // the last 1 + num_drafts rows' logits choose the next tokens
  std::span<const int32_t> pages;  // enough for all rows and the lookahead; valid until complete()
};

// To be done before the batch's rows run: rows that change their place (PageTable::shift).
struct ContextShift {
  SequenceId id = 0;
  int64_t keep_tokens = 0, drop_tokens = 0;
  int64_t num_rows = 0;  // behind the gap
  std::vector<PageMove> moves;
};

struct Batch {
  std::vector<ContextShift> shifts;
  std::vector<SequenceStep> sequences;  // decoding first
  int64_t num_rows = 0;
  int64_t num_decoding = 0, num_drafted = 0;  // sequences with one row to go; those of them with drafts
};

// What came out for one SequenceStep, in the batch's order.
struct StepResult {
  SequenceId id = 0;
  std::vector<int32_t> tokens;  // if it chooses: the drafts that stand, then the next token; else none
  std::vector<int32_t> drafts;  // for the next step; cut where limits ask for it
  bool finished = false;        // the caller ends it (end token, stop string); its tokens may then be fewer
};

enum class EndReason { kFinished, kMaxTokens, kContextFull, kCancelled, kDeadline };
const char* name(EndReason reason);  // "finished", "max_tokens", "context_full", "cancelled", "deadline"

struct SequenceUsage {
  int64_t prompt_tokens = 0, generated_tokens = 0;
  int64_t reused_tokens = 0;  // of the prompt, found in the cache at the first start
  int64_t drafted_tokens = 0, accepted_tokens = 0;
  int64_t preemptions = 0;
  int64_t dropped_tokens = 0;                                        // of prompt and answer, by shifts
  double submitted = 0, started = -1, first_token = -1, ended = -1;  // times as passed in; -1: never
};

struct SequenceEnd {
  SequenceId id = 0;
  EndReason reason = EndReason::kFinished;
  SequenceUsage usage;
};

struct SchedulerStats {
  int64_t running = 0, waiting = 0, waiting_tokens = 0;
  // Since the start:
  int64_t steps = 0, prompt_rows = 0, decode_rows = 0, drafted_rows = 0, accepted_tokens = 0;
  int64_t submitted = 0, ended = 0, cancelled = 0, preemptions = 0, shifts = 0;
};

// Order of service: every decoding sequence has a row in each step; then drafts, which leave prompts half of
// what is left; then prompts under way, in order of arrival, in chunks; then the next in the queue start, in
// order of arrival (priority moves it), and none starts before one ahead that does not fit yet. Only one that
// waits for a prefix another sequence is just computing lets others pass.
class Scheduler {
 public:
  // Throws invalid_argument for limits that contradict each other. The table must outlive this.
  Scheduler(const SchedulerLimits& limits, PageTable& table);
  ~Scheduler();

  // Queues a request. Throws invalid_argument (no prompt, max_tokens < 1, no room in the context), exhausted
  // for one whose pages the cache could never hold.
  void submit(SequenceRequest request, double now);

  // Its pages are available before the next step; within a step, by its complete(). False if not there.
  bool cancel(SequenceId id, double now);

  // The rows to run now, empty only when idle. At most max_drafts drafts a sequence are brought.
  Batch next_batch(double now, int64_t max_drafts = std::numeric_limits<int64_t>::max());

  // Takes one result per sequence of the batch. Throws internal if they do not fit it.
  void complete(std::span<const StepResult> results, double now);
  // Instead of complete(): the step failed, no row counts. The next one tries again; cancel() what must go.
  void abandon(double now);

  // Those that ended since the last call, in order.
  std::vector<SequenceEnd> take_ended();

  bool idle() const { return sequences_.empty(); }
  std::span<const int32_t> tokens(SequenceId id) const;  // prompt and answer so far, without what was dropped
  SequenceUsage usage(SequenceId id) const;
  SchedulerStats stats() const;

 private:
  struct Sequence;
  struct Earlier {
    bool operator()(const Sequence* a, const Sequence* b) const;
  };

  Sequence& sequence(SequenceId id) const;
  int64_t rows_to_go(const Sequence& s) const;
  int64_t num_pages_at_most(const Sequence& s) const;
  void expire(double now);
  void secure_rows();
  bool over_context(const Sequence& s) const;
  int64_t drop_oldest(Sequence& s);
  bool shift(Sequence& s);
  bool secure_row(Sequence& s);
  void preempt(Sequence& s);
  bool fits(const Sequence& s) const;
  bool waits_for_prefix(const Sequence& s) const;
  void start(Sequence& s, double now);
  void add_decoding(Batch& batch, int64_t max_drafts);
  std::vector<int64_t> share_out_drafts(std::span<Sequence* const> decoding, int64_t max_drafts);
  void add_prompts(Batch& batch, double now);
  void add_chunk(Batch& batch, Sequence& s);
  void take_result(Sequence& s, const SequenceStep& step, const StepResult& result, double now);
  void end(Sequence& s, EndReason reason, double now);

  SchedulerLimits limits_;
  PageTable& table_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::set<Sequence*, Earlier> waiting_;
  std::set<Sequence*, Earlier> running_;  // the last one is the first to be preempted
  std::vector<SequenceStep> in_flight_;   // without pages
  std::vector<ContextShift> shifts_;      // of the next batch
  std::vector<SequenceEnd> ended_;
  int64_t num_submitted_ = 0;
  SchedulerStats counts_;
};

}  // namespace hadal
