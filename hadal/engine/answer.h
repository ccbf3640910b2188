// One request while it is answered: its tokens so far, its text, and when it ends. Torch-free; knows no
// batch.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "hadal/engine.h"
#include "hadal/engine/constraint.h"
#include "hadal/engine/stop_strings.h"

namespace hadal {

class AnswerState {
 public:
  // eos_ids: tokens that end an answer. The tokenizer may be absent: then there is no text. With a constraint
  // the vocabulary is needed; throws invalid_argument if they do not fit.
  AnswerState(Request request, const std::optional<Tokenizer>& tokenizer, const std::vector<int64_t>& eos_ids,
              const std::shared_ptr<const VocabularyTrie>& vocabulary = nullptr);

  const Request& request() const { return request_; }
  const std::vector<int32_t>& generated() const { return generated_; }

  // Takes the next token. Nothing may follow once finished() is set. context: tokens of prompt and answer at
  // most.
  void push(NewToken token, int64_t context);
  void cancel() { finished_ = FinishReason::kCancelled; }
  const std::optional<FinishReason>& finished() const { return finished_; }

  // The next token from these logits; depends on nothing but prompt, tokens so far, parameters and seed.
  int32_t choose(std::span<const float> logits_W, int64_t num_tokens) const;

  // What is new since the last call. At the end, the text that was held back is in it.
  Delta take(RequestId id);
  Usage usage;

 private:
  Request request_;
  std::optional<IncrementalDecoder> decoder_;
  StopStrings stops_;
  std::optional<ConstraintCursor> cursor_;
  std::vector<int64_t> eos_ids_;
  std::vector<int32_t> generated_;
  Delta fresh_;
  std::optional<FinishReason> finished_;
};

}  // namespace hadal
