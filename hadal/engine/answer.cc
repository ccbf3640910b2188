#include "hadal/engine/answer.h"

#include <algorithm>

#include "hadal/base/text.h"
#include "hadal/engine/sampler.h"
#include "hadal/error.h"

namespace hadal {

const char* name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndToken:
      return "stop";
    case FinishReason::kStopString:
      return "stop_string";
    case FinishReason::kMaxTokens:
      return "length";
    case FinishReason::kContextFull:
      return "context";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadEnd:
      return "dead_end";
  }
  return "";
}

double Answer::tokens_per_second() const {
  return tokens.size() > 1 && decode_seconds > 0 ? static_cast<double>(tokens.size() - 1) / decode_seconds
                                                 : 0.0;
}

AnswerState::AnswerState(Request request, const std::optional<Tokenizer>& tokenizer,
                         const std::vector<int64_t>& eos_ids,
                         const std::shared_ptr<const VocabularyTrie>& vocabulary)
    : request_(std::move(request)), stops_(request_.stops), eos_ids_(eos_ids) {
  if (tokenizer) decoder_.emplace(*tokenizer, /*skip_special=*/true);
  if (request_.constraint) cursor_.emplace(request_.constraint, vocabulary);
  usage.prompt_tokens = static_cast<int64_t>(request_.prompt.size());
}

void AnswerState::push(NewToken token, int64_t context) {
  const bool is_end = std::find(eos_ids_.begin(), eos_ids_.end(), token.id) != eos_ids_.end();
  if (is_end && !request_.ignore_end) {
    if (request_.want_end) fresh_.tokens.push_back(std::move(token));
    finished_ = FinishReason::kEndToken;
    return;
  }
  generated_.push_back(token.id);
  ++usage.generated_tokens;
  if (cursor_) cursor_->push(token.id);
  if (decoder_) fresh_.text += stops_.push(decoder_->push(token.id));
  fresh_.tokens.push_back(std::move(token));
  if (stops_.stopped())
    finished_ = FinishReason::kStopString;
  else if (cursor_ && cursor_->allowed().num_tokens == 0)
    finished_ = cursor_->allowed().ends ? FinishReason::kEndToken : FinishReason::kDeadEnd;
  else if (static_cast<int64_t>(generated_.size()) >= request_.max_tokens)
    finished_ = FinishReason::kMaxTokens;
  else if (usage.prompt_tokens + usage.generated_tokens >= context)
    finished_ = FinishReason::kContextFull;
}

int32_t AnswerState::choose(std::span<const float> logits_W, int64_t num_tokens) const {
  SamplerInput input{logits_W, request_.prompt, generated_, num_tokens};
  if (cursor_) input.allowed = cursor_->allowed().bits;
  const auto draw = [&] { return sample(request_.sampling, input, /*stream=*/0, generated_.size()); };
  int32_t id = draw();
  std::vector<uint64_t> left;  // without what the guard refused
  for (int64_t tokens = 1; cursor_ && cursor_->refuses(id) && tokens < cursor_->allowed().num_tokens;
       ++tokens) {
    if (left.empty()) left = cursor_->allowed().bits;
    left[static_cast<size_t>(id / 64)] &= ~(uint64_t{1} << id % 64);
    input.allowed = left;
    id = draw();
  }
  return id;
}

Delta AnswerState::take(RequestId id) {
  if (finished_ && decoder_) {
    fresh_.text += stops_.push(decoder_->flush());
    fresh_.text += stops_.finish();
  }
  Delta out = std::move(fresh_);
  fresh_ = {};
  out.request = id, out.finished = finished_, out.usage = usage;
  return out;
}

}  // namespace hadal
