// Scheduler and page table under random loads: what holds in every step is checked by ToyEngine (limits,
// token order, no row written twice or into a shared page, the table's books, no decoding sequence left out),
// what holds at the end is checked here.
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <random>
#include <string>

#include "tests/support/toy_engine.h"

namespace hadal {
namespace {

struct Load {
  std::string name;
  PageTableOptions pages;
  SchedulerLimits limits;
  int64_t num_drafts = 0;
  int64_t most_waiting = 6;
};

std::vector<Load> loads() {
  const SchedulerLimits worst = {
      .max_batch_tokens = 24, .max_sequences = 7, .chunk_tokens = 9, .max_context_tokens = 70};
  SchedulerLimits optimistic = worst;
  optimistic.admission = Admission::kOptimistic;
  SchedulerLimits ahead = optimistic;
  ahead.draft_lookahead_tokens = 2;
  SchedulerLimits worst_ahead = worst;
  worst_ahead.draft_lookahead_tokens = 2;
  SchedulerLimits narrow = worst;
  narrow.max_batch_tokens = 8;
  SchedulerLimits shifting = worst;
  shifting.max_context_tokens = 46, shifting.overflow = Overflow::kShift, shifting.keep_tokens = 6;
  return {
      {"worst_case", {.num_pages = 40, .page_tokens = 4}, worst, 0},
      {"worst_case_drafts_lookahead", {.num_pages = 27, .page_tokens = 4}, worst_ahead, 3},
      {"optimistic", {.num_pages = 24, .page_tokens = 4}, optimistic, 0},
      {"optimistic_drafts_lookahead", {.num_pages = 24, .page_tokens = 4}, ahead, 3},
      {"colliding_hashes", {.num_pages = 24, .page_tokens = 4, .hash_mask = 1}, optimistic, 1},
      {"without_reuse", {.num_pages = 24, .page_tokens = 4, .reuse_prefixes = false}, optimistic, 1},
      {"shifting", {.num_pages = 30, .page_tokens = 4}, shifting, 0},
      {"shifting_drafts", {.num_pages = 26, .page_tokens = 4}, shifting, 3},
      {"shifting_without_reuse", {.num_pages = 40, .page_tokens = 4, .reuse_prefixes = false}, shifting, 1},
      {"narrow_batch", {.num_pages = 64, .page_tokens = 4}, narrow, 2},
      {"pages_of_one_token", {.num_pages = 90, .page_tokens = 1}, optimistic, 2},
  };
}

class RandomLoad {
 public:
  RandomLoad(const Load& load, uint32_t seed) : load_(load), random_(seed), engine(load.pages, load.limits) {
    engine.num_drafts = load.num_drafts;
    for (auto& base : bases_)
      for (int i = 0; i < 30; ++i) base.push_back(below(5));
  }

  void step() {
    while (engine.scheduler.stats().waiting < load_.most_waiting && below(3) == 0) submit();
    if (below(40) == 0 && next_id_ > 0) engine.cancel(any_id());
    if (below(40) == 0 && next_id_ > 0) engine.cancel_in_step = any_id();
    engine.fail_step = below(30) == 0;
    if (below(500) == 0) engine.table.forget();
    engine.step();
  }

  void expect_everything_ended() {
    engine.fail_step = false;
    engine.run_all();
    int64_t whole = 0;
    for (const auto& [id, answer] : engine.answers) {
      ASSERT_EQ(answer.ends.size(), 1u) << "request " << id;
      const std::vector<int32_t> wanted = engine.alone(answer, max_tokens_[id]);
      ASSERT_LE(answer.generated.size(), wanted.size()) << id;
      ASSERT_TRUE(std::equal(answer.generated.begin(), answer.generated.end(), wanted.begin())) << id;
      const bool is_whole = answer.ends[0] != EndReason::kCancelled && answer.ends[0] != EndReason::kDeadline;
      ASSERT_TRUE(!is_whole || answer.generated.size() == wanted.size()) << id;
      whole += is_whole;
    }
    EXPECT_GT(whole, std::ssize(engine.answers) / 2);
    EXPECT_EQ(engine.table.num_used(), 0);
    const SchedulerStats stats = engine.scheduler.stats();
    EXPECT_EQ(stats.submitted, stats.ended);
    EXPECT_EQ(stats.running + stats.waiting, 0);
  }

 private:
  int32_t below(int32_t n) { return static_cast<int32_t>(random_() % static_cast<uint32_t>(n)); }
  SequenceId any_id() {  // mostly one that is there
    return next_id_ - 1 -
           static_cast<SequenceId>(below(static_cast<int32_t>(std::min<SequenceId>(next_id_, 20))));
  }

  void submit() {
    const auto& base = bases_[static_cast<size_t>(below(3))];
    SequenceRequest request{.id = next_id_++};
    request.prompt.assign(base.begin(), base.begin() + below(31));
    for (int i = below(12); i >= 0; --i) request.prompt.push_back(below(5));
    request.max_tokens = 1 + (below(4) == 0 ? below(60) : below(12));
    request.priority = below(10) == 0 ? below(4) : 0;
    if (below(25) == 0) request.deadline = engine.now + below(40);
    max_tokens_[request.id] = request.max_tokens;
    engine.submit(std::move(request), below(2) ? below(5) : -1);
  }

  Load load_;
  std::mt19937 random_;
  std::vector<int32_t> bases_[3];  // beginnings that prompts have in common
  SequenceId next_id_ = 0;
  std::map<SequenceId, int64_t> max_tokens_;

 public:
  ToyEngine engine;
};

void PrintTo(const Load& load, std::ostream* out) {
  *out << load.name;
}

class SchedulerUnderLoad : public testing::TestWithParam<Load> {};

TEST_P(SchedulerUnderLoad, KeepsItsPromisesInEveryStepAndFinishesEverything) {
  RandomLoad load(GetParam(), 1);
  for (int64_t step = 0; step < 10'000; ++step) {
    load.step();
    if (HasFailure()) FAIL() << "in step " << step;
  }
  const SchedulerStats before = load.engine.scheduler.stats();
  load.expect_everything_ended();
  const PageTableStats pages = load.engine.table.stats();
  EXPECT_GT(before.ended, 500);
  EXPECT_GT(before.cancelled, 50);
  // The load reaches what it is meant to test.
  const bool optimistic = GetParam().limits.admission == Admission::kOptimistic;
  EXPECT_TRUE(optimistic ? before.preemptions > 20 : before.preemptions == 0) << before.preemptions;
  EXPECT_EQ(before.shifts > 100, GetParam().limits.overflow == Overflow::kShift) << before.shifts;
  EXPECT_TRUE(!GetParam().pages.reuse_prefixes || pages.reused_tokens > 1000) << pages.reused_tokens;
  if (GetParam().num_drafts == 0) return;
  EXPECT_GT(before.accepted_tokens, 500);
  EXPECT_GT(before.drafted_rows, before.accepted_tokens + 200);
}

TEST_P(SchedulerUnderLoad, DoesTheSameForTheSameLoad) {
  RandomLoad a(GetParam(), 2), b(GetParam(), 2);
  for (int64_t step = 0; step < 300; ++step) {
    a.step(), b.step();
    ASSERT_EQ(a.engine.last.sequences.size(), b.engine.last.sequences.size());
    for (size_t i = 0; i < a.engine.last.sequences.size(); ++i) {
      ASSERT_EQ(a.engine.last.sequences[i].id, b.engine.last.sequences[i].id);
      ASSERT_EQ(a.engine.last.sequences[i].tokens, b.engine.last.sequences[i].tokens);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Loads, SchedulerUnderLoad, testing::ValuesIn(loads()),
                         [](const auto& info) { return info.param.name; });

// A request for nearly the whole cache, while small ones keep coming: it starts once those that ran when it
// came have ended, and each small one of those takes at most 12 steps.
TEST(Scheduler, LargeRequestAmidAFloodOfSmallOnesStartsNext) {
  for (const Admission admission : {Admission::kWorstCase, Admission::kOptimistic}) {
    std::mt19937 random(5);
    ToyEngine engine(
        {.num_pages = 20, .page_tokens = 4},
        {.max_batch_tokens = 32, .max_sequences = 8, .max_context_tokens = 80, .admission = admission});
    SequenceId id = 1;
    const auto flood = [&] {
      while (engine.scheduler.stats().waiting < 20) {
        std::vector<int32_t> prompt(1 + random() % 8);
        for (int32_t& t : prompt) t = static_cast<int32_t>(random() % 1000);
        engine.submit({.id = id++, .prompt = prompt, .max_tokens = 10});
      }
    };
    for (int round = 0; round < 50; ++round) {
      for (int i = 0; i < 30; ++i) flood(), engine.step();
      for (int i = 0; engine.scheduler.stats().waiting > 0 && i < 200; ++i) engine.step();
      std::vector<int32_t> prompt(60);
      for (int32_t& t : prompt) t = static_cast<int32_t>(random() % 1000);
      const SequenceId large = id++;
      engine.submit({.id = large, .prompt = prompt, .max_tokens = 20});
      const double submitted = engine.now;
      while (engine.answers[large].ends.empty()) flood(), engine.step();
      const auto& answer = engine.answers[large];
      EXPECT_EQ(answer.generated, engine.alone(answer, 20));
      EXPECT_LE(engine.now - submitted, 12 + 3 + 20) << "round " << round;
      if (testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace hadal
