#include "hadal/engine/scheduler.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <string>

#include "hadal/error.h"
#include "tests/support/toy_engine.h"

namespace hadal {
namespace {

using Tokens = std::vector<int32_t>;

Tokens prompt_of(int64_t count, int32_t first = 100) {
  Tokens tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<SequenceId> ids(const Batch& batch) {
  std::vector<SequenceId> out;
  for (const SequenceStep& step : batch.sequences) out.push_back(step.id);
  return out;
}

using Ids = std::vector<SequenceId>;

void expect_refusal(const std::function<void()>& act, ErrorCode code, const std::string& text) {
  try {
    act();
    ADD_FAILURE() << "nothing thrown, wanted " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(Scheduler, PromptRunsInChunksAndItsLastRowChoosesTheFirstToken) {
  ToyEngine engine({.num_pages = 16, .page_tokens = 4},
                   {.max_batch_tokens = 10, .max_sequences = 2, .chunk_tokens = 6});
  engine.submit({.id = 1, .prompt = prompt_of(14), .max_tokens = 3});
  std::vector<int64_t> positions, rows;
  std::vector<bool> chooses;
  while (!engine.scheduler.idle()) {
    engine.step();
    positions.push_back(engine.last.sequences[0].position);
    rows.push_back(engine.last.num_rows);
    chooses.push_back(engine.last.sequences[0].chooses);
  }
  EXPECT_EQ(positions, (std::vector<int64_t>{0, 6, 12, 14, 15}));
  EXPECT_EQ(rows, (std::vector<int64_t>{6, 6, 2, 1, 1}));
  EXPECT_EQ(chooses, (std::vector<bool>{false, false, true, true, true}));
  EXPECT_EQ(engine.answers[1].generated, engine.alone(engine.answers[1], 3));
  EXPECT_EQ(engine.answers[1].ends, (std::vector{EndReason::kMaxTokens}));
}

TEST(Scheduler, DecodingComesFirstThenPromptsInOrderOfArrival) {
  ToyEngine engine({.num_pages = 64, .page_tokens = 4},
                   {.max_batch_tokens = 12, .max_sequences = 4, .chunk_tokens = 8});
  engine.submit({.id = 5, .prompt = prompt_of(3), .max_tokens = 20});
  engine.step();
  engine.submit({.id = 9, .prompt = prompt_of(20, 200), .max_tokens = 20});
  engine.submit({.id = 2, .prompt = prompt_of(20, 300), .max_tokens = 20});
  engine.submit({.id = 3, .prompt = prompt_of(20, 400), .max_tokens = 20});
  engine.step();
  EXPECT_EQ(ids(engine.last), (Ids{5, 9, 2}));  // 1 + 8 + 3 rows
  EXPECT_EQ(engine.last.num_rows, 12);
  EXPECT_EQ(engine.last.num_decoding, 1);
}

TEST(Scheduler, StartsARequestOnlyWhenItsWorstCaseFits) {
  ToyEngine engine({.num_pages = 10, .page_tokens = 4}, {.max_batch_tokens = 64, .max_sequences = 8});
  engine.submit({.id = 1, .prompt = prompt_of(8), .max_tokens = 13});       // 20 rows: 5 pages
  engine.submit({.id = 2, .prompt = prompt_of(8, 200), .max_tokens = 17});  // 6
  engine.submit({.id = 3, .prompt = prompt_of(2, 300), .max_tokens = 2});   // 1, but behind 2
  engine.step();
  EXPECT_EQ(ids(engine.last), (Ids{1}));
  while (engine.scheduler.stats().ended == 0) engine.step();
  engine.step();
  EXPECT_EQ(ids(engine.last), (Ids{2, 3}));
  engine.run_all();
  EXPECT_EQ(engine.scheduler.stats().preemptions, 0);
}

TEST(Scheduler, SharedPagesAreBudgetedOnce) {
  ToyEngine engine({.num_pages = 8, .page_tokens = 4}, {.max_batch_tokens = 64, .max_sequences = 8});
  engine.submit(
      {.id = 1, .prompt = prompt_of(17), .max_tokens = 8});  // 24 rows: 6 pages, 4 of them the prompt's
  engine.step();
  engine.submit({.id = 2, .prompt = prompt_of(17), .max_tokens = 8});
  engine.step();
  EXPECT_EQ(ids(engine.last), (Ids{1, 2}));
  EXPECT_EQ(engine.scheduler.usage(2).reused_tokens, 16);
  engine.run_all();
  EXPECT_EQ(engine.answers[1].generated, engine.answers[2].generated);
}

TEST(Scheduler, EqualPromptsAreComputedOnce) {
  ToyEngine engine({.num_pages = 64, .page_tokens = 4},
                   {.max_batch_tokens = 64, .max_sequences = 16, .chunk_tokens = 8});
  for (SequenceId id = 0; id < 8; ++id) engine.submit({.id = id, .prompt = prompt_of(33), .max_tokens = 4});
  engine.submit({.id = 8, .prompt = prompt_of(5, 500), .max_tokens = 4});
  engine.step();
  EXPECT_EQ(ids(engine.last), (Ids{0, 8}));  // the others wait for 0's pages and let 8 pass
  engine.run_all();
  EXPECT_EQ(engine.table.stats().reused_tokens, 7 * 32);
  EXPECT_EQ(engine.scheduler.stats().prompt_rows + engine.scheduler.stats().decode_rows, 33 + 5 + 7 + 9 * 3);
  for (SequenceId id = 1; id < 8; ++id) EXPECT_EQ(engine.answers[id].generated, engine.answers[0].generated);
}

TEST(Scheduler, WaitsForACommonPrefixOnlyUntilItIsThere) {
  for (const bool reuse : {true, false}) {
    ToyEngine engine({.num_pages = 64, .page_tokens = 4, .reuse_prefixes = reuse},
                     {.max_batch_tokens = 64, .max_sequences = 16, .chunk_tokens = 8});
    std::vector<int32_t> other = prompt_of(8);
    for (const int32_t t : {1, 2, 3}) other.push_back(t);
    engine.submit({.id = 1, .prompt = prompt_of(40), .max_tokens = 2});
    engine.submit({.id = 2, .prompt = other, .max_tokens = 2});
    engine.step();
    EXPECT_EQ(ids(engine.last), reuse ? (Ids{1}) : (Ids{1, 2}));
    engine.step();
    EXPECT_EQ(ids(engine.last), (Ids{1, 2}));
    EXPECT_EQ(engine.scheduler.usage(2).reused_tokens, reuse ? 8 : 0);
  }
}

TEST(Scheduler, RefusesWhatNeverFitsWithTheNumbers) {
  ToyEngine engine({.num_pages = 4, .page_tokens = 64}, {.max_context_tokens = 2000});
  const auto submit = [&](int64_t prompt, int64_t max_tokens) {
    return [&engine, prompt, max_tokens] {
      engine.scheduler.submit({.id = 1, .prompt = prompt_of(prompt), .max_tokens = max_tokens}, 0);
    };
  };
  expect_refusal(submit(0, 5), ErrorCode::kInvalidArgument, "the prompt is empty");
  expect_refusal(submit(5, 0), ErrorCode::kInvalidArgument, "max_tokens: got 0");
  expect_refusal(
      submit(2000, 5), ErrorCode::kInvalidArgument,
      "the prompt has 2,000 tokens, the context 2,000: need at least one left for the answer. Shorten "
      "the prompt by 1 tokens.");
  expect_refusal(
      submit(200, 58), ErrorCode::kExhausted,
      "a prompt of 200 tokens and up to 58 new ones need 5 pages of 64 tokens, the cache has 4 (256 "
      "tokens). Shorten the prompt, lower max_tokens or give the cache more memory.");
  EXPECT_TRUE(engine.scheduler.idle());
  submit(200, 57)();
  PageTable table({.num_pages = 4});
  expect_refusal([&] { Scheduler({.max_batch_tokens = 8, .max_sequences = 8}, table); },
                 ErrorCode::kInvalidArgument, "max_batch_tokens: got 8, need more than max_sequences (8)");
}

TEST(Scheduler, FullContextEndsAnAnswer) {
  ToyEngine engine({.num_pages = 8, .page_tokens = 4}, {.max_context_tokens = 12});
  engine.num_drafts = 3;
  engine.submit({.id = 1, .prompt = prompt_of(7), .max_tokens = 100});
  engine.run_all();
  EXPECT_EQ(std::ssize(engine.answers[1].generated), 5);
  EXPECT_EQ(engine.answers[1].ends, (std::vector{EndReason::kContextFull}));
}

TEST(Scheduler, CancelledRequestsFreeTheirPagesBeforeTheNextStep) {
  ToyEngine engine({.num_pages = 8, .page_tokens = 4, .reuse_prefixes = false},
                   {.max_batch_tokens = 64, .max_sequences = 8});
  engine.submit({.id = 1, .prompt = prompt_of(20), .max_tokens = 10});
  engine.submit({.id = 2, .prompt = prompt_of(20, 200), .max_tokens = 10});  // has to wait
  engine.step();
  EXPECT_EQ(engine.scheduler.stats().waiting, 1);
  engine.cancel_in_step = 1;  // while its rows are written
  engine.step();
  EXPECT_EQ(engine.table.num_used(), 0);
  engine.step();
  EXPECT_EQ(ids(engine.last), (Ids{2}));
  EXPECT_TRUE(engine.cancel(2));
  EXPECT_EQ(engine.table.num_used(), 0);
  EXPECT_FALSE(engine.cancel(2));
  EXPECT_TRUE(engine.scheduler.idle());
  EXPECT_EQ(engine.scheduler.stats().cancelled, 2);
}

TEST(Scheduler, DeadlinesEndWaitingAndRunningRequests) {
  ToyEngine engine({.num_pages = 8, .page_tokens = 4}, {.max_batch_tokens = 64, .max_sequences = 1});
  engine.submit({.id = 1, .prompt = prompt_of(4), .max_tokens = 20, .deadline = 5});
  engine.submit({.id = 2, .prompt = prompt_of(4, 200), .max_tokens = 20, .deadline = 3});
  engine.submit({.id = 3, .prompt = prompt_of(4, 300), .max_tokens = 2});
  engine.run_all();
  EXPECT_EQ(engine.answers[1].ends, (std::vector{EndReason::kDeadline}));
  EXPECT_EQ(std::ssize(engine.answers[1].generated), 4);  // steps 1 to 4
  EXPECT_EQ(engine.answers[2].ends, (std::vector{EndReason::kDeadline}));
  EXPECT_EQ(engine.answers[3].ends, (std::vector{EndReason::kMaxTokens}));
}

TEST(Scheduler, PriorityIsWorthWaitingTimeAndNoMore) {
  ToyEngine engine({.num_pages = 64, .page_tokens = 4},
                   {.max_batch_tokens = 64, .max_sequences = 1, .priority_seconds = 10});
  const auto submit = [&](SequenceId id, int priority, double now) {
    engine.now = now;
    engine.submit({.id = id,
                   .prompt = prompt_of(2, static_cast<int32_t>(id * 100)),
                   .max_tokens = 1,
                   .priority = priority});
  };
  submit(1, 0, 0);
  submit(2, 0, 5);
  submit(3, 1, 8);   // due at -2
  submit(4, 1, 12);  // due at 2
  Ids order;
  while (!engine.scheduler.idle()) {
    engine.step();
    order.push_back(engine.last.sequences[0].id);
  }
  EXPECT_EQ(order, (Ids{3, 1, 4, 2}));
}

TEST(Scheduler, PreemptionTakesTheLastComerAndChangesNoToken) {
  ToyEngine engine({.num_pages = 12, .page_tokens = 4},
                   {.max_batch_tokens = 32, .max_sequences = 4, .admission = Admission::kOptimistic});
  for (SequenceId id = 0; id < 4; ++id)
    engine.submit({.id = id, .prompt = prompt_of(5, static_cast<int32_t>(id * 50)), .max_tokens = 30});
  int64_t steps_of_0 = 0;
  while (engine.answers[0].ends.empty()) {
    engine.step();
    EXPECT_EQ(ids(engine.last)[0], 0u);  // the first comer never waits
    ++steps_of_0;
  }
  EXPECT_EQ(steps_of_0, 30);
  engine.run_all();
  EXPECT_GT(engine.scheduler.stats().preemptions, 0);
  for (const auto& [id, answer] : engine.answers) EXPECT_EQ(answer.generated, engine.alone(answer, 30)) << id;
  EXPECT_EQ(engine.table.num_used(), 0);
}

TEST(Scheduler, OptimisticStartsLeaveAPageForEachRunningSequence) {
  for (const int64_t num_pages : {6, 7}) {
    ToyEngine engine({.num_pages = num_pages, .page_tokens = 4},
                     {.max_batch_tokens = 32, .max_sequences = 4, .admission = Admission::kOptimistic});
    engine.submit({.id = 1, .prompt = prompt_of(3), .max_tokens = 15});
    engine.submit({.id = 2, .prompt = prompt_of(3, 200), .max_tokens = 15});
    engine.step();
    engine.submit({.id = 3, .prompt = prompt_of(10, 300), .max_tokens = 2});  // 3 pages, and 2 for 1 and 2
    engine.step();
    EXPECT_EQ(ids(engine.last), num_pages == 7 ? (Ids{1, 2, 3}) : (Ids{1, 2}));
  }
}

TEST(Scheduler, DraftsShortenAnswersInStepsAndLeavePromptsHalf) {
  ToyEngine engine({.num_pages = 64, .page_tokens = 4}, {.max_batch_tokens = 12, .max_sequences = 3});
  engine.num_drafts = 7;
  engine.draft_quality = 1;
  engine.submit({.id = 1, .prompt = prompt_of(3), .max_tokens = 40});
  engine.submit({.id = 2, .prompt = prompt_of(3, 200), .max_tokens = 40});
  engine.step();
  engine.step();
  EXPECT_EQ(engine.last.num_rows, 12);  // 2 tokens, 10 drafts
  EXPECT_EQ(engine.last.sequences[0].num_drafts, 5);
  EXPECT_EQ(engine.last.sequences[1].num_drafts, 5);
  EXPECT_EQ(std::ssize(engine.answers[1].generated), 7);
  engine.submit({.id = 3, .prompt = prompt_of(30, 300), .max_tokens = 2});
  engine.step();
  EXPECT_EQ(engine.last.sequences[0].num_drafts, 3);
  EXPECT_EQ(engine.last.sequences[1].num_drafts, 2);
  EXPECT_EQ(std::ssize(engine.last.sequences[2].tokens), 5);
  engine.run_all();
  EXPECT_EQ(engine.answers[1].generated, engine.alone(engine.answers[1], 40));
}

TEST(Scheduler, AFailedStepIsRunAgain) {
  ToyEngine engine({.num_pages = 16, .page_tokens = 4}, {.max_batch_tokens = 16, .max_sequences = 3});
  engine.submit({.id = 1, .prompt = prompt_of(10), .max_tokens = 6});
  engine.submit({.id = 2, .prompt = prompt_of(10, 200), .max_tokens = 6});
  for (int i = 0; i < 40 && !engine.scheduler.idle(); ++i) {
    engine.fail_step = i % 2 == 0;
    if (i == 4) engine.cancel_in_step = 2;
    engine.step();
    EXPECT_EQ(engine.answers[2].ends.empty(), i < 4) << "a failed step still ends what was cancelled";
  }
  EXPECT_EQ(engine.answers[1].generated, engine.alone(engine.answers[1], 6));
  EXPECT_EQ(engine.answers[2].ends, (std::vector{EndReason::kCancelled}));
}

TEST(Scheduler, ResultsThatDoNotFitTheBatchAreRefused) {
  PageTable table({.num_pages = 4, .page_tokens = 4});
  Scheduler scheduler({.max_batch_tokens = 8, .max_sequences = 2}, table);
  scheduler.submit({.id = 1, .prompt = prompt_of(3), .max_tokens = 5}, 0);
  scheduler.next_batch(0);
  EXPECT_THROW(scheduler.next_batch(0), Error);
  const std::vector<std::vector<StepResult>> wrong = {
      {}, {{.id = 2, .tokens = {1}}}, {{.id = 1}}, {{.id = 1, .tokens = {1, 2}}}};
  for (const auto& results : wrong) EXPECT_THROW(scheduler.complete(results, 0), Error);
  scheduler.complete(std::vector<StepResult>{{.id = 1, .tokens = {1}, .drafts = {7}}}, 0);
  EXPECT_EQ(scheduler.next_batch(1).num_drafted, 1);
  EXPECT_THROW(scheduler.complete(std::vector<StepResult>{{.id = 1, .tokens = {8, 9}}}, 1), Error);
  EXPECT_THROW(scheduler.submit({.id = 1, .prompt = {1}}, 1), Error);
}

TEST(Scheduler, TheNextTurnOfAConversationReusesTheAnswer) {
  ToyEngine engine({.num_pages = 32, .page_tokens = 4}, {.max_batch_tokens = 64, .max_sequences = 2});
  engine.submit({.id = 1, .prompt = prompt_of(9), .max_tokens = 12});
  engine.run_all();
  Tokens next = prompt_of(9);
  for (const int32_t t : engine.answers[1].generated) next.push_back(t);
  for (const int32_t t : {1, 2, 3}) next.push_back(t);
  engine.submit({.id = 2, .prompt = next, .max_tokens = 2});
  engine.step();
  EXPECT_EQ(engine.scheduler.usage(2).reused_tokens, 20);  // of 21; the last one's row was never computed
}

}  // namespace
}  // namespace hadal
