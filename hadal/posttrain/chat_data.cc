#include "hadal/posttrain/chat_data.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "hadal/base/json.h"
#include "hadal/base/sha256.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/posttrain/json_lines.h"
#include "hadal/posttrain/judgement.h"

namespace hadal {
namespace {

enum class Kind { kMessages, kCompletion, kText, kInstruction, kJudged };

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::kMessages:
      return "messages";
    case Kind::kCompletion:
      return "prompt and completion";
    case Kind::kText:
      return "text";
    case Kind::kInstruction:
      return "instruction and output";
    case Kind::kJudged:
      return "responses and critique";
  }
  return "";
}

class Reader {
 public:
  Reader(const Tokenizer& tokenizer, const std::optional<ChatTemplate>& format, int64_t max_tokens)
      : tokenizer_(tokenizer), format_(format), max_tokens_(max_tokens) {}

  void add(const JsonLine& line) {
    const Kind kind = kind_of(line);
    if (kind_ && *kind_ != kind)
      line.fail(cat("holds ", kind_name(kind), ", the lines before hold ", kind_name(*kind_)),
                "Keep one kind in a file.");
    kind_ = kind;
    TrainedTokens sample = read(line, kind);
    if (std::ssize(sample.ids) > max_tokens_) {
      ++data_.cut;
      sample.ids.resize(static_cast<size_t>(max_tokens_)), sample.trained.resize(sample.ids.size());
    }
    // The first token is no target: nothing is before it.
    sample.trained[0] = 0;
    const auto trained = std::count(sample.trained.begin(), sample.trained.end(), 1);
    if (trained == 0) {
      ++data_.dropped;
      return;
    }
    data_.tokens += std::ssize(sample.ids), data_.trained_tokens += trained;
    hash(sample);
    data_.samples.push_back(std::move(sample));
  }

  ChatData finish() {
    data_.fingerprint = hex(hash_.finish());
    return std::move(data_);
  }

 private:
  static Kind kind_of(const JsonLine& line) {
    if (line.has("messages")) return Kind::kMessages;
    if (line.has("prompt") && line.has("completion") && !line.has("label")) return Kind::kCompletion;
    if (line.has("text")) return Kind::kText;
    if (line.has("instruction") && line.has("output")) return Kind::kInstruction;
    if (line.has("prompt") && line.has("responses") && line.has("critique")) return Kind::kJudged;
    const bool pair = line.has("chosen") && line.has("rejected");
    line.fail(pair ? "is a preference, from which reward models learn"
                   : "is none of messages, prompt and completion, text, instruction and output",
              "Give data of one of these forms.");
  }

  TrainedTokens read(const JsonLine& line, Kind kind) {
    switch (kind) {
      case Kind::kMessages:
        return conversation(line, line.messages("messages"), 0);
      case Kind::kCompletion:
        return completion(line);
      case Kind::kText:
        return texts(line, "", line.text("text"));
      case Kind::kJudged:
        return judgement(line);
      case Kind::kInstruction:
        break;
    }
    std::string prompt = line.text("instruction");
    if (const std::string input = line.has("input") ? line.text("input") : ""; !input.empty())
      prompt += "\n\n" + input;
    if (format_) return exchange(line, prompt, line.text("output"));
    return texts(line, prompt + "\n\n", line.text("output"));
  }

  TrainedTokens completion(const JsonLine& line) {
    if (line.is_text("prompt") != line.is_text("completion"))
      line.fail("has a text and a list of messages", "Give both in one form.");
    if (line.is_text("prompt")) {
      if (line.text("prompt").empty()) line.fail("has an empty prompt", "Say what is to be completed.");
      if (format_) return exchange(line, line.text("prompt"), line.text("completion"));
      return texts(line, line.text("prompt"), line.text("completion"));
    }
    std::vector<ChatMessage> messages = line.messages("prompt");
    if (messages.empty()) line.fail("has an empty prompt", "Say what is to be completed.");
    const size_t given = messages.size();
    for (ChatMessage& message : line.messages("completion")) messages.push_back(std::move(message));
    return conversation(line, messages, given);
  }

  // Texts are turns wherever there is a format, as in tasks and preferences.
  TrainedTokens exchange(const JsonLine& line, const std::string& prompt, const std::string& answer) {
    return conversation(line, {{.role = "user", .content = prompt}, {.role = "assistant", .content = answer}},
                        1);
  }

  // What a judge writes about answers.
  TrainedTokens judgement(const JsonLine& line) {
    const JudgedAnswers answers = judged_answers(line);
    std::vector<int64_t> order(answers.responses.size());
    std::iota(order.begin(), order.end(), 0);
    std::vector<ChatMessage> messages = judge_messages(answers, order);
    const size_t given = messages.size();
    messages.push_back({.role = "assistant", .content = answers.critique});
    return conversation(line, messages, given);
  }

  // The first `given` messages are not learned.
  TrainedTokens conversation(const JsonLine& line, const std::vector<ChatMessage>& messages, size_t given) {
    if (!format_) line.fail("holds messages, and the model has no chat format", "Name one: --template.");
    if (line.has("tools") && !line.is_empty("tools"))
      line.fail("lists tools, which are not announced here", "Write them into the system message.");
    const auto said = std::span(messages).subspan(given);
    if (std::none_of(said.begin(), said.end(), [](const auto& m) { return m.role == "assistant"; }))
      line.fail("has no turn of the assistant", "Add what is to be learned.");
    const ChatOptions options{.add_generation_prompt = false, .keep_reasoning = true};
    try {
      TrainedTokens out = format_->encode_pieces(tokenizer_, messages, options);
      if (given == 0) return out;
      const auto head = format_->encode_pieces(tokenizer_, std::span(messages).first(given), options);
      std::fill_n(out.trained.begin(), std::min(head.ids.size(), out.ids.size()), 0);
      return out;
    } catch (const Error& e) {
      line.fail(cat("cannot be rendered: ", e.what()), "Correct the messages.");
    }
  }

  TrainedTokens texts(const JsonLine& line, const std::string& prompt, const std::string& answer) {
    TrainedTokens out;
    out.ids = tokenizer_.encode_prompt(prompt);
    if (tokenizer_.adds_eos() && !out.ids.empty()) out.ids.pop_back();
    out.trained.assign(out.ids.size(), 0);
    for (const int32_t id : tokenizer_.encode(answer)) out.ids.push_back(id);
    const auto eos = tokenizer_.eos_id();
    if (eos && (out.ids.empty() || out.ids.back() != *eos)) out.ids.push_back(*eos);
    out.trained.resize(out.ids.size(), 1);
    if (out.ids.size() < 2) line.fail("is empty", "Leave the line out.");
    return out;
  }

  void hash(const TrainedTokens& sample) {
    const auto bytes = [](const auto& x) {
      return std::string_view(reinterpret_cast<const char*>(x.data()), x.size() * sizeof x[0]);
    };
    hash_.update(cat(sample.ids.size(), " ")), hash_.update(bytes(sample.ids));
    hash_.update(bytes(sample.trained));
  }

  const Tokenizer& tokenizer_;
  const std::optional<ChatTemplate>& format_;
  int64_t max_tokens_;
  std::optional<Kind> kind_;
  ChatData data_;
  Sha256 hash_;
};

}  // namespace

ChatData read_chat_data(const std::filesystem::path& file, const Tokenizer& tokenizer,
                        const std::optional<ChatTemplate>& format, int64_t max_tokens) {
  Reader reader(tokenizer, format, max_tokens);
  each_json_line(file, [&](const JsonLine& line) { reader.add(line); });
  return reader.finish();
}

std::optional<ChatTemplate> chat_format(const Tokenizer& tokenizer, const std::string& name) {
  if (name == "none") return std::nullopt;
  return name.empty() ? ChatTemplate::find(tokenizer) : ChatTemplate::named(name);
}

}  // namespace hadal
