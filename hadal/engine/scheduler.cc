#include "hadal/engine/scheduler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {

struct Scheduler::Sequence {
  SequenceId id = 0;
  std::vector<int32_t>
      tokens;  // prompt and answer so far, in the context; the cache holds rows of all but the last, or fewer
  int64_t max_length = 0;       // of tokens
  bool fills_context = false;   // max_length is the context's end, not max_tokens'
  std::vector<int32_t> drafts;  // of what follows tokens
  double deadline = 0;
  double due = 0;     // arrival, moved by priority
  int64_t order = 0;  // of submission, among equals
  bool running = false;
  bool in_flight = false;
  bool cancelled = false;  // while in flight
  SequenceUsage usage;

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  // Those looked up in the cache: all but the last, whose row has to be computed.
  std::span<const int32_t> reusable() const { return std::span(tokens).first(tokens.size() - 1); }
};

bool Scheduler::Earlier::operator()(const Sequence* a, const Sequence* b) const {
  return a->due != b->due ? a->due < b->due : a->order < b->order;
}

const char* name(EndReason reason) {
  switch (reason) {
    case EndReason::kFinished:
      return "finished";
    case EndReason::kMaxTokens:
      return "max_tokens";
    case EndReason::kContextFull:
      return "context_full";
    case EndReason::kCancelled:
      return "cancelled";
    case EndReason::kDeadline:
      return "deadline";
  }
  return "";
}

Scheduler::Scheduler(const SchedulerLimits& limits, PageTable& table) : limits_(limits), table_(table) {
  const auto require = [](bool good, const auto&... text) {
    if (!good) throw Error(ErrorCode::kInvalidArgument, cat("[scheduler.limits] ", text...));
  };
  require(limits.max_sequences >= 1, "max_sequences: got ", limits.max_sequences, ", need at least 1.");
  require(limits.max_batch_tokens > limits.max_sequences, "max_batch_tokens: got ", limits.max_batch_tokens,
          ", need more than max_sequences (", limits.max_sequences,
          "): each sequence may decode a row a step, prompts take the rest.");
  require(limits.chunk_tokens >= 1, "chunk_tokens: got ", limits.chunk_tokens, ", need at least 1.");
  require(limits.max_context_tokens >= 2, "max_context_tokens: got ", limits.max_context_tokens,
          ", need at least 2: a prompt and an answer.");
  require(limits.draft_lookahead_tokens >= 0, "draft_lookahead_tokens: got ", limits.draft_lookahead_tokens,
          ", need 0 or more.");
  require(limits.priority_seconds >= 0, "priority_seconds: got ", limits.priority_seconds,
          ", need 0 or more.");
  require(limits.keep_tokens >= 0, "keep_tokens: got ", limits.keep_tokens, ", need 0 or more.");
  limits_.keep_tokens = table.pages_for(limits.keep_tokens) * table.page_tokens();
  require(limits.overflow == Overflow::kRefuse ||
              limits_.keep_tokens + 2 * table.page_tokens() <= limits.max_context_tokens,
          "keep_tokens: ", limits_.keep_tokens, " (whole pages of ", table.page_tokens(),
          ") and two pages to shift are more than the context of ", limits.max_context_tokens,
          ". Keep fewer.");
}

Scheduler::~Scheduler() = default;

Scheduler::Sequence& Scheduler::sequence(SequenceId id) const {
  const auto found = sequences_.find(id);
  HADAL_CHECK(found != sequences_.end()) << "sequence " << id << " is not here";
  return *found->second;
}

std::span<const int32_t> Scheduler::tokens(SequenceId id) const {
  return sequence(id).tokens;
}

SequenceUsage Scheduler::usage(SequenceId id) const {
  return sequence(id).usage;
}

// The last token chosen is never run, but drafting may write behind the last row.
int64_t Scheduler::num_pages_at_most(const Sequence& s) const {
  return table_.pages_for(std::min(s.max_length - 1, limits_.max_context_tokens) +
                          limits_.draft_lookahead_tokens);
}

void Scheduler::submit(SequenceRequest request, double now) {
  HADAL_CHECK(!sequences_.contains(request.id)) << "sequence " << request.id << " is here already";
  const int64_t prompt = static_cast<int64_t>(request.prompt.size()), context = limits_.max_context_tokens;
  if (prompt < 1)
    throw Error(ErrorCode::kInvalidArgument,
                "[scheduler.submit] the prompt is empty: need at least one token.");
  if (request.max_tokens < 1)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[scheduler.submit] max_tokens: got ", request.max_tokens, ", need at least 1."));
  const bool shifts = limits_.overflow == Overflow::kShift;
  if (prompt >= context && !shifts)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[scheduler.submit] the prompt has ", with_commas(prompt), " tokens, the context ",
                    with_commas(context), ": need at least one left for the answer. Shorten the prompt by ",
                    with_commas(prompt - context + 1), " tokens."));
  auto s = std::make_unique<Sequence>();
  s->id = request.id;
  s->fills_context = !shifts && request.max_tokens > context - prompt;
  s->max_length = s->fills_context ? context : prompt + request.max_tokens;
  s->tokens = std::move(request.prompt);
  while (over_context(*s)) drop_oldest(*s);
  if (const int64_t pages = num_pages_at_most(*s); pages > table_.num_pages())
    throw Error(
        ErrorCode::kExhausted,
        cat("[scheduler.submit] a prompt of ", with_commas(prompt), " tokens and up to ",
            with_commas(s->max_length + s->usage.dropped_tokens - prompt), " new ones need ",
            with_commas(pages), " pages of ", table_.page_tokens(), " tokens, the cache has ",
            with_commas(table_.num_pages()), " (", with_commas(table_.num_pages() * table_.page_tokens()),
            " tokens). Shorten the prompt, lower max_tokens or give the cache more memory."));
  s->deadline = request.deadline;
  s->due = now - request.priority * limits_.priority_seconds;
  s->order = num_submitted_++;
  s->usage.prompt_tokens = prompt;
  s->usage.submitted = now;
  waiting_.insert(s.get());
  sequences_.emplace(s->id, std::move(s));
  ++counts_.submitted;
}

bool Scheduler::cancel(SequenceId id, double now) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->cancelled) return false;
  Sequence& s = *found->second;
  if (s.in_flight) {
    s.cancelled = true;  // its rows are being written
  } else {
    end(s, EndReason::kCancelled, now);
  }
  return true;
}

void Scheduler::end(Sequence& s, EndReason reason, double now) {
  if (s.running) {
    table_.close(s.id);
    running_.erase(&s);
  } else {
    waiting_.erase(&s);
  }
  s.usage.ended = now;
  ended_.push_back({s.id, reason, s.usage});
  ++counts_.ended;
  counts_.cancelled += reason == EndReason::kCancelled;
  sequences_.erase(s.id);
}

std::vector<SequenceEnd> Scheduler::take_ended() {
  return std::exchange(ended_, {});
}

// ---- The next batch.

Batch Scheduler::next_batch(double now, int64_t max_drafts) {
  HADAL_CHECK(in_flight_.empty()) << "the last batch is not complete";
  expire(now);
  secure_rows();
  Batch batch;
  add_decoding(batch, max_drafts);
  add_prompts(batch, now);
  batch.shifts = std::exchange(shifts_, {});
  for (SequenceStep& step : batch.sequences) {
    Sequence& s = sequence(step.id);
    s.in_flight = true;
    in_flight_.push_back(step);
    step.pages = table_.pages(s.id);
  }
  counts_.steps += !batch.sequences.empty();
  return batch;
}

void Scheduler::expire(double now) {
  std::vector<Sequence*> late;
  for (const auto* queue : {&running_, &waiting_})
    std::copy_if(queue->begin(), queue->end(), std::back_inserter(late),
                 [&](const Sequence* s) { return s->deadline <= now; });
  for (Sequence* s : late) end(*s, EndReason::kDeadline, now);
}

// Tokens whose rows are not in the cache.
int64_t Scheduler::rows_to_go(const Sequence& s) const {
  return s.length() - table_.num_tokens(s.id);
}

// The next row would lie behind the context.
bool Scheduler::over_context(const Sequence& s) const {
  return limits_.overflow == Overflow::kShift && s.length() > limits_.max_context_tokens;
}

// Half of what follows the kept head leaves the tokens; returns how many did.
int64_t Scheduler::drop_oldest(Sequence& s) {
  const int64_t page = table_.page_tokens(), keep = limits_.keep_tokens;
  const int64_t drop = std::max(page, (s.length() - 1 - keep) / 2 / page * page);
  const auto head = s.tokens.begin() + keep;
  s.tokens.erase(head, head + drop);
  s.max_length -= drop;
  s.usage.dropped_tokens += drop;
  ++counts_.shifts;
  return drop;
}

// Both of a running sequence that has one row to go. False, and nothing changes: too few pages.
bool Scheduler::shift(Sequence& s) {
  const int64_t page = table_.page_tokens(), keep = limits_.keep_tokens;
  const int64_t drop = std::max(page, (s.length() - 1 - keep) / 2 / page * page);
  std::optional<std::vector<PageMove>> moves = table_.shift(s.id, keep, drop);
  if (!moves) return false;
  drop_oldest(s);
  shifts_.push_back({s.id, keep, drop, table_.num_tokens(s.id) - keep, std::move(*moves)});
  return true;
}

bool Scheduler::secure_row(Sequence& s) {
  while (over_context(s))
    if (!shift(s)) return false;
  return table_.reserve(s.id, s.length() + limits_.draft_lookahead_tokens);
}

// Pages for a row of every running sequence, the earliest first. Prompts have theirs since they started.
void Scheduler::secure_rows() {
  for (auto it = running_.begin(); it != running_.end();) {
    Sequence& s = **it++;
    while (s.running && !secure_row(s)) {
      HADAL_CHECK(limits_.admission == Admission::kOptimistic) << "pages were promised twice";
      Sequence& last = **running_.rbegin();
      if (it != running_.end() && *it == &last) ++it;
      preempt(last);
    }
  }
}

void Scheduler::preempt(Sequence& s) {
  table_.close(s.id);
  s.running = false;
  ++s.usage.preemptions;
  ++counts_.preemptions;
  running_.erase(&s);
  waiting_.insert(&s);
  std::erase_if(shifts_, [&](const ContextShift& shift) { return shift.id == s.id; });
  while (over_context(s)) drop_oldest(s);
}

bool Scheduler::fits(const Sequence& s) const {
  const PrefixMatch match = table_.match(s.reusable());
  if (limits_.admission == Admission::kOptimistic) {
    const int64_t pages = table_.pages_for(s.length() + limits_.draft_lookahead_tokens) - match.used_pages;
    const int64_t headroom = static_cast<int64_t>(running_.size());  // each may need a page soon
    return pages + headroom <= table_.num_available();
  }
  int64_t promised = num_pages_at_most(s) - match.used_pages;
  for (const Sequence* other : running_)
    promised += num_pages_at_most(*other) - static_cast<int64_t>(table_.pages(other->id).size());
  if (limits_.overflow == Overflow::kRefuse) return promised <= table_.num_available();
  // A shift takes pages that are shared for itself: each sequence counts as if it shared none.
  int64_t alone = num_pages_at_most(s);
  for (const Sequence* other : running_) alone += num_pages_at_most(*other);
  return alone <= table_.num_pages();
}

// Another prompt under way has more pages in common with this one than the cache holds already.
bool Scheduler::waits_for_prefix(const Sequence& s) const {
  if (!table_.reuses_prefixes()) return false;
  int64_t common = 0;
  for (const Sequence* other : running_) {
    if (rows_to_go(*other) <= 1) continue;
    const auto ours = s.reusable();
    const auto differ = std::mismatch(ours.begin(), ours.end(), other->tokens.begin(), other->tokens.end());
    common = std::max(common, (differ.first - ours.begin()) / table_.page_tokens() * table_.page_tokens());
  }
  return common > 0 && common > table_.match(s.reusable()).tokens;
}

void Scheduler::start(Sequence& s, double now) {
  const int64_t reused = table_.open(s.id, s.reusable());
  HADAL_CHECK(table_.reserve(s.id, s.length() + limits_.draft_lookahead_tokens)) << "sequence " << s.id;
  s.running = true;
  running_.insert(&s);
  if (s.usage.started >= 0) return;  // it was preempted
  s.usage.started = now;
  s.usage.reused_tokens = reused;
}

void Scheduler::add_decoding(Batch& batch, int64_t max_drafts) {
  std::vector<Sequence*> decoding;
  std::copy_if(running_.begin(), running_.end(), std::back_inserter(decoding),
               [&](const Sequence* s) { return rows_to_go(*s) == 1; });
  const std::vector<int64_t> num_drafts = share_out_drafts(decoding, max_drafts);
  for (size_t i = 0; i < decoding.size(); ++i) {
    Sequence& s = *decoding[i];
    SequenceStep step{.id = s.id, .position = s.length() - 1, .num_drafts = num_drafts[i], .chooses = true};
    step.tokens.push_back(s.tokens.back());
    step.tokens.insert(step.tokens.end(), s.drafts.begin(), s.drafts.begin() + num_drafts[i]);
    batch.num_rows += 1 + num_drafts[i];
    batch.num_drafted += num_drafts[i] > 0;
    batch.sequences.push_back(std::move(step));
  }
  batch.num_decoding = static_cast<int64_t>(decoding.size());
}

// In turns, a draft each, so that all have their first before one has its second.
std::vector<int64_t> Scheduler::share_out_drafts(std::span<Sequence* const> decoding, int64_t max_drafts) {
  int64_t room = limits_.max_batch_tokens - static_cast<int64_t>(decoding.size());
  if (decoding.size() < running_.size() || !waiting_.empty()) room /= 2;  // for prompts
  std::vector<int64_t> given(decoding.size(), 0);
  for (bool any = true; any && room > 0;) {
    any = false;
    for (size_t i = 0; i < decoding.size() && room > 0; ++i) {
      Sequence& s = *decoding[i];
      const int64_t useful =  // a step gives one token more than drafts
          std::min(s.max_length - 1, limits_.max_context_tokens) - s.length();
      const int64_t most = std::min({static_cast<int64_t>(s.drafts.size()), max_drafts, useful});
      if (given[i] >= most) continue;
      if (!table_.reserve(s.id, s.length() + given[i] + 1 + limits_.draft_lookahead_tokens)) continue;
      ++given[i];
      --room;
      any = true;
    }
  }
  return given;
}

void Scheduler::add_prompts(Batch& batch, double now) {
  for (Sequence* s : running_)
    if (rows_to_go(*s) > 1 && batch.num_rows < limits_.max_batch_tokens) add_chunk(batch, *s);
  int64_t passed = 0;  // looked at in vain; bounds the work
  for (auto it = waiting_.begin(); it != waiting_.end() && passed < limits_.max_sequences;) {
    if (static_cast<int64_t>(running_.size()) >= limits_.max_sequences) break;
    if (batch.num_rows >= limits_.max_batch_tokens) break;
    Sequence& s = **it;
    if (waits_for_prefix(s)) {
      ++it;
      ++passed;
      continue;
    }
    if (!fits(s)) break;
    it = waiting_.erase(it);
    start(s, now);
    add_chunk(batch, s);
  }
}

void Scheduler::add_chunk(Batch& batch, Sequence& s) {
  const int64_t done = table_.num_tokens(s.id);
  const int64_t rows =
      std::min({rows_to_go(s), limits_.chunk_tokens, limits_.max_batch_tokens - batch.num_rows});
  const auto first = s.tokens.begin() + done;
  batch.sequences.push_back({.id = s.id,
                             .position = done,
                             .tokens = std::vector<int32_t>(first, first + rows),
                             .chooses = done + rows == s.length()});
  batch.num_rows += rows;
}

// ---- Results.

void Scheduler::complete(std::span<const StepResult> results, double now) {
  HADAL_CHECK(results.size() == in_flight_.size())
      << results.size() << " results for " << in_flight_.size() << " sequences";
  for (size_t i = 0; i < results.size(); ++i) {
    const SequenceStep& step = in_flight_[i];
    HADAL_CHECK(results[i].id == step.id)
        << "result " << i << " is of sequence " << results[i].id << ", not " << step.id;
    const auto& tokens = results[i].tokens;
    const bool wants_some = step.chooses && !results[i].finished;
    HADAL_CHECK(step.chooses ? std::ssize(tokens) <= 1 + step.num_drafts : tokens.empty())
        << tokens.size() << " tokens from sequence " << step.id;
    HADAL_CHECK(!wants_some || !tokens.empty()) << "no token from sequence " << step.id;
    const auto drafts = step.tokens.end() - step.num_drafts;
    for (size_t t = 0; t + 1 < tokens.size(); ++t)
      HADAL_CHECK(tokens[t] == drafts[static_cast<std::ptrdiff_t>(t)])
          << "a rejected draft counts as accepted";
  }
  const std::vector<SequenceStep> steps = std::exchange(in_flight_, {});
  for (size_t i = 0; i < results.size(); ++i) {
    Sequence& s = sequence(steps[i].id);
    s.in_flight = false;
    if (s.cancelled) {
      end(s, EndReason::kCancelled, now);
    } else {
      take_result(s, steps[i], results[i], now);
    }
  }
}

void Scheduler::take_result(Sequence& s, const SequenceStep& step, const StepResult& result, double now) {
  const int64_t rows = std::ssize(step.tokens);
  const int64_t accepted = std::max<int64_t>(0, std::ssize(result.tokens) - 1);
  table_.commit(s.id, std::span(step.tokens).first(static_cast<size_t>(rows - step.num_drafts + accepted)));
  (step.position + 1 >= s.length() ? counts_.decode_rows : counts_.prompt_rows) += rows - step.num_drafts;
  counts_.drafted_rows += step.num_drafts;
  counts_.accepted_tokens += accepted;
  s.usage.drafted_tokens += step.num_drafts;
  s.usage.accepted_tokens += accepted;
  s.usage.generated_tokens += std::ssize(result.tokens);
  if (!result.tokens.empty() && s.usage.first_token < 0) s.usage.first_token = now;
  s.tokens.insert(s.tokens.end(), result.tokens.begin(), result.tokens.end());
  s.drafts = result.drafts;
  if (result.finished) {
    end(s, EndReason::kFinished, now);
  } else if (s.length() >= s.max_length) {
    end(s, s.fills_context ? EndReason::kContextFull : EndReason::kMaxTokens, now);
  }
}

void Scheduler::abandon(double now) {
  for (const SequenceStep& step : std::exchange(in_flight_, {})) {
    Sequence& s = sequence(step.id);
    s.in_flight = false;
    if (s.cancelled) end(s, EndReason::kCancelled, now);
  }
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = counts_;
  stats.running = static_cast<int64_t>(running_.size());
  stats.waiting = static_cast<int64_t>(waiting_.size());
  for (const Sequence* s : waiting_) stats.waiting_tokens += s->length();
  return stats;
}

}  // namespace hadal
