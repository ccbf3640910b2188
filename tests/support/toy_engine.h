// An engine without a network, for tests of scheduler and page table: a row of the cache is a hash of all
// tokens up to it, read through the pages like latents are, so that a wrong page, a lost row or another
// sequence's prefix changes what follows.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>

#include "hadal/base/random.h"
#include "hadal/engine/scheduler.h"
#include "hadal/engine/speculation.h"

namespace hadal {

class ToyEngine {
 public:
  struct Answer {
    std::vector<int32_t> prompt, generated;
    std::vector<EndReason> ends;
    int32_t end_token = -1;
  };

  ToyEngine(const PageTableOptions& pages, const SchedulerLimits& limits)
      : table(pages), limits_(limits), scheduler(limits, table), rows_(num_rows(pages), 0) {}

  PageTable table;

 private:
  SchedulerLimits limits_;

 public:
  Scheduler scheduler;
  std::map<SequenceId, Answer> answers;
  double now = 0;
  int64_t num_drafts = 0;                      // a sequence
  double draft_quality = 0.7;                  // share of drafts that are right
  Batch last;                                  // as of the last step; its pages are gone
  SequenceId cancel_in_step = ~SequenceId{0};  // cancelled between next_batch() and complete()
  bool fail_step = false;

  void submit(SequenceRequest request, int32_t end_token = -1) {
    answers[request.id] = {.prompt = request.prompt, .end_token = end_token};
    deadlines_[request.id] = request.deadline;
    scheduler.submit(std::move(request), now);
  }

  bool cancel(SequenceId id) {
    decoding_.erase(id);
    return scheduler.cancel(id, now);
  }

  void step() {
    now += 1;
    for (const auto& [id, deadline] : deadlines_)
      if (deadline <= now) decoding_.erase(id);
    last = scheduler.next_batch(now, num_drafts);
    for (const ContextShift& shift : last.shifts) {
      const int64_t O = table.page_tokens();
      EXPECT_EQ(table.num_tokens(shift.id), shift.keep_tokens + shift.num_rows);
      for (const PageMove& move : shift.moves)
        std::copy_n(rows_.begin() + move.from * O, O, rows_.begin() + move.to * O);
    }
    check_batch();
    std::vector<StepResult> results;
    for (const SequenceStep& step : last.sequences) results.push_back(run(step));
    if (scheduler.cancel(cancel_in_step, now)) cancel_in_step = ~SequenceId{0};
    if (fail_step) {
      scheduler.abandon(now);
    } else {
      scheduler.complete(results, now);
      for (const StepResult& r : results) pending_[r.id] = r.tokens;
    }
    settle();
    decoding_.clear();
    for (const SequenceStep& step : last.sequences)
      if (answers[step.id].ends.empty() &&
          table.num_tokens(step.id) + 1 == std::ssize(scheduler.tokens(step.id)))
        decoding_[step.id] = scheduler.usage(step.id).preemptions;
    table.check();
  }

  void run_all(int64_t most = 100'000) {
    while (!scheduler.idle() && most-- > 0 && !testing::Test::HasFatalFailure()) step();
    EXPECT_TRUE(scheduler.idle());
  }

  // The model: what follows these tokens.
  static int32_t next_token(uint64_t row) { return static_cast<int32_t>(philox(17, 0, row)[0] % 5); }
  static uint64_t row_after(uint64_t row, int32_t token) {
    return (row ^ static_cast<uint64_t>(token + 1)) * 0x9E3779B97F4A7C15 + 1;
  }
  // What a sequence answers alone. A row knows all before it, so here a shift changes no token.
  std::vector<int32_t> alone(const Answer& answer, int64_t max_tokens) const {
    uint64_t row = 1;
    for (const int32_t t : answer.prompt) row = row_after(row, t);
    if (limits_.overflow == Overflow::kRefuse)
      max_tokens = std::min(max_tokens, limits_.max_context_tokens - std::ssize(answer.prompt));
    std::vector<int32_t> out;
    while (std::ssize(out) < max_tokens && (out.empty() || out.back() != answer.end_token)) {
      out.push_back(next_token(row));
      row = row_after(row, out.back());
    }
    return out;
  }

 private:
  static size_t num_rows(const PageTableOptions& pages) {
    return static_cast<size_t>(pages.num_pages * pages.page_tokens);
  }
  uint64_t& row(std::span<const int32_t> pages, int64_t position) {
    const int64_t O = table.page_tokens();
    return rows_[static_cast<size_t>(pages[static_cast<size_t>(position / O)] * O + position % O)];
  }

  void check_batch() {
    EXPECT_LE(last.num_rows, limits_.max_batch_tokens);
    EXPECT_LE(std::ssize(last.sequences), limits_.max_sequences);
    EXPECT_EQ(last.sequences.empty(), scheduler.idle());
    int64_t num_rows = 0;
    std::map<SequenceId, bool> seen;
    for (const SequenceStep& step : last.sequences) {
      const auto known = scheduler.tokens(step.id);
      const int64_t rows = std::ssize(step.tokens);
      num_rows += rows;
      EXPECT_FALSE(std::exchange(seen[step.id], true)) << "twice in a batch";
      EXPECT_EQ(step.position, table.num_tokens(step.id));
      EXPECT_GE(rows, 1 + step.num_drafts);
      EXPECT_LE(step.num_drafts, num_drafts);
      EXPECT_LE(rows - step.num_drafts, limits_.chunk_tokens);
      EXPECT_GE(std::ssize(step.pages) * table.page_tokens(),
                step.position + rows + limits_.draft_lookahead_tokens);
      for (int64_t i = 0; i < rows - step.num_drafts; ++i)
        EXPECT_EQ(step.tokens[static_cast<size_t>(i)], known[static_cast<size_t>(step.position + i)]);
      EXPECT_EQ(step.chooses, step.position + rows - step.num_drafts == std::ssize(known));
    }
    EXPECT_EQ(num_rows, last.num_rows);
    for (const auto& [id, preemptions] : decoding_)
      EXPECT_TRUE(seen.contains(id) || scheduler.usage(id).preemptions > preemptions)
          << "sequence " << id << " decodes, but had no row";
  }

  StepResult run(const SequenceStep& step) {
    const Answer& answer = answers[step.id];
    for (int64_t i = 0; i < std::ssize(step.tokens); ++i) {
      const int64_t position = step.position + i;
      EXPECT_TRUE(table.writable(step.id, position)) << "sequence " << step.id << " row " << position;
      row(step.pages, position) =
          row_after(position == 0 ? 1 : row(step.pages, position - 1), step.tokens[static_cast<size_t>(i)]);
    }
    StepResult result{.id = step.id};
    if (!step.chooses) return result;
    const std::span<const int32_t> drafts = std::span(step.tokens).last(static_cast<size_t>(step.num_drafts));
    const int64_t first = step.position + std::ssize(step.tokens) - 1 - step.num_drafts;
    result.tokens = verify(drafts, [&](int64_t i) {
      const int32_t token = next_token(row(step.pages, first + i));
      result.finished = token == answer.end_token;
      return ModelToken{token, result.finished};
    });
    uint64_t at = row(step.pages, first + std::ssize(result.tokens) - 1);
    for (int64_t i = 0, wanted = num_drafts + 1; i < wanted; ++i) {  // one more than may be brought
      at = row_after(at, i == 0 ? result.tokens.back() : result.drafts.back());
      const bool right = uniform(3, step.id, static_cast<uint64_t>(first * 8 + i)) < draft_quality;
      result.drafts.push_back(right ? next_token(at) : 77);
    }
    return result;
  }

  // What a completed step gave, unless the sequence was cancelled in it.
  void settle() {
    std::map<SequenceId, EndReason> ended;
    for (const SequenceEnd& end : scheduler.take_ended()) {
      ended.emplace(end.id, end.reason);
      answers[end.id].ends.push_back(end.reason);
    }
    for (const auto& [id, tokens] : std::exchange(pending_, {})) {
      const auto end = ended.find(id);
      if (end != ended.end() && end->second == EndReason::kCancelled) continue;
      auto& generated = answers[id].generated;
      generated.insert(generated.end(), tokens.begin(), tokens.end());
    }
  }

  std::vector<uint64_t> rows_;  // [pages, tokens of a page]
  std::map<SequenceId, std::vector<int32_t>> pending_;
  std::map<SequenceId, int64_t>
      decoding_;  // that must go on in the next step, and how often preempted so far
  std::map<SequenceId, double> deadlines_;
};

}  // namespace hadal
