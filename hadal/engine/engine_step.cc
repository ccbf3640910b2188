// One step of the engine: plan, run, choose, draft, finish.
#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "hadal/base/clock.h"
#include "hadal/base/text.h"
#include "hadal/engine/engine_state.h"
#include "hadal/engine/sampler.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
constexpr size_t kMaxWaitingRows = 256;  // hidden states kept for the MTP module while it is not asked

}  // namespace

bool Engine::State::wants_drafts(int64_t sequences) const {
  return speculation == Speculation::kOn ||
         (speculation == Speculation::kAuto && gauge.speculate(std::max<int64_t>(1, sequences)));
}

std::vector<Delta> Engine::State::step() {
  Work work = plan();
  if (!work.batch.sequences.empty()) {
    try {
      run(work);
      choose_all(work);
      if (speculation != Speculation::kOff) draft(work);
    } catch (...) {
      scheduler.abandon(now_seconds());
      throw;
    }
    finish(work);
  }
  std::vector<Delta> deltas = std::move(unseen);
  unseen.clear();
  std::move(work.deltas.begin(), work.deltas.end(), std::back_inserter(deltas));
  return deltas;
}

Engine::State::Work Engine::State::plan() {
  Work work;
  int64_t decoding = 0;
  for (const auto& [id, state] : running) decoding += state.answer.usage.generated_tokens > 0;
  work.batch = scheduler.next_batch(now_seconds(), wants_drafts(decoding) ? 1 : 0);
  for (const ContextShift& shift : work.batch.shifts) apply(shift);
  for (const SequenceStep& step : work.batch.sequences) {
    work.first_row.push_back(static_cast<int64_t>(work.ids.size()));
    const auto count = static_cast<int64_t>(step.tokens.size());
    work.rows.push_back({step.position, count, step.pages});
    work.first_logits.push_back(step.chooses ? static_cast<int64_t>(work.logit_rows.size()) : -1);
    if (step.chooses)
      for (int64_t r = count - 1 - step.num_drafts; r < count; ++r)
        work.logit_rows.push_back(static_cast<int32_t>(work.first_row.back() + r));
    work.ids.insert(work.ids.end(), step.tokens.begin(), step.tokens.end());
  }
  work.results.resize(work.batch.sequences.size());
  return work;
}

// The rows behind the gap move; what the MTP module has of them, or has still to do, moves along.
void Engine::State::apply(const ContextShift& shift) {
  network.shift_rows(shift.moves, shift.keep_tokens, shift.num_rows, shift.drop_tokens, storage);
  for (const PageMove& move : shift.moves)
    page_has_mtp[static_cast<size_t>(move.to)] = page_has_mtp[static_cast<size_t>(move.from)];
  Running& state = running.at(shift.id);
  const int64_t gone = shift.keep_tokens + shift.drop_tokens - state.mtp_rows;  // of those it lacks
  if (gone <= 0) {
    state.mtp_rows -= shift.drop_tokens;
    return;
  }
  auto& waiting = state.waiting_hidden;
  state.draftable &= state.mtp_rows >= shift.keep_tokens && gone * model.width <= std::ssize(waiting);
  if (!state.draftable) return waiting.clear();
  waiting.erase(waiting.begin(), waiting.begin() + gone * model.width);
  state.mtp_rows = shift.keep_tokens;
}

void Engine::State::run(Work& work) {
  const float* hidden = network.forward(work.ids, work.rows, storage);
  work.hidden.assign(hidden, hidden + static_cast<int64_t>(work.ids.size()) * model.width);
  count_load();
  work.logits.resize(work.logit_rows.size() * static_cast<size_t>(model.vocab_size));
  network.logits(work.hidden.data(), work.logit_rows, work.logits.data());
}

void Engine::State::count_load() {
  size_t next = 0;
  for (int64_t i = 0; i < model.num_layers; ++i) {
    if (!model.is_moe(i)) continue;
    std::vector<int64_t>& load = stats.expert_load[next++];
    for (const int32_t e : network.chosen_experts(i)) ++load[static_cast<size_t>(e)];
  }
}

// Every sequence by itself, on all workers. Of several errors the first sequence's is thrown.
void Engine::State::choose_all(Work& work) {
  const size_t n = work.results.size();
  std::vector<std::exception_ptr> errors(n);
  const auto guarded = [&](size_t i) {
    try {
      choose(work, i);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  };
  if (work.logit_rows.size() <= 1) {
    for (size_t i = 0; i < n; ++i) guarded(i);
  } else {
    pool.run([&](int worker) {
      for (size_t i = static_cast<size_t>(worker); i < n; i += static_cast<size_t>(pool.size())) guarded(i);
    });
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

// The tokens of one sequence: its drafts that stand, then the model's own (speculation.h).
void Engine::State::choose(Work& work, size_t i) {
  const SequenceStep& step = work.batch.sequences[i];
  StepResult& result = work.results[i];
  AnswerState& answer = running.at(step.id).answer;
  result.id = step.id;
  if (!step.chooses) return;
  const std::span<const int32_t> drafts = std::span(step.tokens).last(static_cast<size_t>(step.num_drafts));
  const size_t W = static_cast<size_t>(model.vocab_size);
  for (int64_t row = 0; row <= step.num_drafts && !answer.finished(); ++row) {
    const auto logits =
        std::span(work.logits).subspan(static_cast<size_t>(work.first_logits[i] + row) * W, W);
    const int32_t id = answer.choose(logits, num_tokens());
    const bool stands = row < step.num_drafts && drafts[static_cast<size_t>(row)] == id;
    NewToken token = describe(work, i, row, id);
    token.guessed = stands;
    result.tokens.push_back(id);
    answer.push(std::move(token), config.overflow == Overflow::kShift ? kUnlimited : context);
    answer.usage.accepted_tokens += stands;
    if (!stands) break;
  }
  answer.usage.drafted_tokens += step.num_drafts;
  result.finished = answer.finished().has_value();
}

NewToken Engine::State::describe(const Work& work, size_t i, int64_t row, int32_t id) const {
  const Request& request = running.at(work.batch.sequences[i].id).answer.request();
  NewToken token{.id = id};
  const size_t W = static_cast<size_t>(model.vocab_size);
  const int64_t logit_row = work.first_logits[i] + row;
  if (request.top_logprobs >= 0)
    token.logprobs = logprobs(std::span(work.logits).subspan(static_cast<size_t>(logit_row) * W, W), id,
                              request.top_logprobs);
  if (!request.want_experts) return token;
  const int64_t at = work.logit_rows[static_cast<size_t>(logit_row)], A = model.moe.top_k;
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    if (!model.is_moe(layer)) continue;
    const std::span<const int32_t> chosen = network.chosen_experts(layer);
    token.experts.insert(token.experts.end(), chosen.begin() + at * A, chosen.begin() + (at + 1) * A);
  }
  return token;
}

// Can the MTP module go on behind the rows that it has of this sequence? Pages found by prefix may lack its
// rows; rows that were given up are computed again.
bool Engine::State::follow_with_mtp(const SequenceStep& step, Running& state) {
  const int64_t have = state.mtp_rows + static_cast<int64_t>(state.waiting_hidden.size()) / model.width;
  if (!state.draftable || have == step.position) return state.draftable;
  state.waiting_hidden.clear();
  if (have < step.position) {
    for (int64_t page = 0; page < step.position / kPageTokens; ++page)
      state.draftable &= page_has_mtp[static_cast<size_t>(step.pages[static_cast<size_t>(page)])] != 0;
    state.draftable &= step.position % kPageTokens == 0;
  }
  state.mtp_rows = step.position;
  return state.draftable;
}

// The MTP module over the rows that stand, each with the token after it; a draft from the last one.
void Engine::State::draft(Work& work) {
  const int64_t D = model.width;
  const bool wanted = wants_drafts(static_cast<int64_t>(work.batch.sequences.size()));
  std::vector<int32_t> next_ids, last_rows;
  std::vector<SequenceRows> rows;
  std::vector<float> hidden;
  std::vector<size_t> owner;
  for (size_t i = 0; i < work.batch.sequences.size(); ++i) {
    const SequenceStep& step = work.batch.sequences[i];
    Running& state = running.at(step.id);
    const std::vector<int32_t>& chosen = work.results[i].tokens;
    const int64_t fed = static_cast<int64_t>(step.tokens.size()) - step.num_drafts;  // without drafts
    const int64_t end = step.position + fed + std::max<int64_t>(0, static_cast<int64_t>(chosen.size()) - 1);
    const bool follows = !work.results[i].finished && follow_with_mtp(step, state);
    for (int64_t page = step.position / kPageTokens; page * kPageTokens < end; ++page)
      page_has_mtp[static_cast<size_t>(step.pages[static_cast<size_t>(page)])] = 0;
    if (!follows) continue;
    const float* from = work.hidden.data() + work.first_row[i] * D;
    std::vector<float>& waiting = state.waiting_hidden;
    waiting.insert(waiting.end(), from, from + (end - step.position) * D);
    const bool decodes = step.chooses && fed == 1;
    if (decodes && !wanted) {
      state.draftable = waiting.size() <= kMaxWaitingRows * static_cast<size_t>(D);
      if (!state.draftable) waiting.clear();
      continue;
    }
    const std::span<const int32_t> known = scheduler.tokens(step.id);
    for (int64_t position = state.mtp_rows + 1; position <= end; ++position) {
      const int64_t choice = position - (step.position + fed);
      next_ids.push_back(choice < 0 || chosen.empty() ? known[static_cast<size_t>(position)]
                                                      : chosen[static_cast<size_t>(choice)]);
    }
    rows.push_back({state.mtp_rows, end - state.mtp_rows, step.pages});
    for (int64_t page = state.mtp_rows / kPageTokens; page < end / kPageTokens; ++page)
      page_has_mtp[static_cast<size_t>(step.pages[static_cast<size_t>(page)])] = 1;
    hidden.insert(hidden.end(), waiting.begin(), waiting.end());
    waiting.clear();
    state.mtp_rows = end;
    if (!step.chooses) continue;
    last_rows.push_back(static_cast<int32_t>(next_ids.size()) - 1);
    owner.push_back(i);
  }
  if (rows.empty()) return;
  const float* out = network.mtp(0, hidden.data(), next_ids, rows, storage);
  const size_t W = static_cast<size_t>(model.vocab_size);
  std::vector<float> logits(last_rows.size() * W);
  network.logits(out, last_rows, logits.data());
  for (size_t j = 0; j < owner.size(); ++j) {
    // Drawn with the counter of the token that it guesses: so it stands most often.
    const AnswerState& answer = running.at(work.batch.sequences[owner[j]].id).answer;
    work.results[owner[j]].drafts = {answer.choose(std::span(logits).subspan(j * W, W), num_tokens())};
  }
}

void Engine::State::count_usage(Running& state) {
  const Usage& now = state.answer.usage;
  for (const auto& [total, part] : {std::pair{&EngineStats::reused_tokens, &Usage::reused_tokens},
                                    {&EngineStats::generated_tokens, &Usage::generated_tokens},
                                    {&EngineStats::drafted_tokens, &Usage::drafted_tokens},
                                    {&EngineStats::accepted_tokens, &Usage::accepted_tokens},
                                    {&EngineStats::dropped_tokens, &Usage::dropped_tokens}})
    stats.*total += now.*part - state.counted.*part;
  state.counted = now;
}

void Engine::State::finish(Work& work) {
  for (const SequenceStep& step : work.batch.sequences) {
    const SequenceUsage known = scheduler.usage(step.id);
    Running& state = running.at(step.id);
    state.answer.usage.reused_tokens = known.reused_tokens;
    state.answer.usage.dropped_tokens = known.dropped_tokens;
    count_usage(state);
  }
  const double now = now_seconds();
  scheduler.complete(work.results, now);
  scheduler.take_ended();  // the answers know their ends themselves
  if (work.batch.num_decoding == static_cast<int64_t>(work.batch.sequences.size())) {
    int64_t accepted = 0;
    for (const StepResult& result : work.results)
      accepted += std::max<int64_t>(0, static_cast<int64_t>(result.tokens.size()) - 1);
    if (last_decoding_step > 0)
      gauge.record({work.batch.num_decoding, work.batch.num_drafted, accepted, now - last_decoding_step});
    last_decoding_step = now;
  } else {
    last_decoding_step = 0;
  }
  ++stats.steps;
  for (const SequenceStep& step : work.batch.sequences) {
    const auto found = running.find(step.id);
    Delta delta = found->second.answer.take(step.id);
    if (delta.finished) {
      ++stats.finished_requests;
      running.erase(found);
    }
    if (!delta.tokens.empty() || !delta.text.empty() || delta.finished)
      work.deltas.push_back(std::move(delta));
  }
}

}  // namespace hadal
