// The published chat formats. Each renderer follows its model's own template, state flags and quirks
// included, so that a conversation has the ids the model was trained on.
#include <algorithm>
#include <array>

#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/tokenizer.h"

namespace hadal {
namespace {

constexpr std::string_view kBos = "<｜begin▁of▁sentence｜>", kEos = "<｜end▁of▁sentence｜>";
constexpr std::string_view kUser = "<｜User｜>", kAssistant = "<｜Assistant｜>";
constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>", kCallsEnd = "<｜tool▁calls▁end｜>";
constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>", kCallEnd = "<｜tool▁call▁end｜>";
constexpr std::string_view kOutputsBegin = "<｜tool▁outputs▁begin｜>", kOutputsEnd = "<｜tool▁outputs▁end｜>";
constexpr std::string_view kOutputBegin = "<｜tool▁output▁begin｜>", kOutputEnd = "<｜tool▁output▁end｜>";
constexpr std::string_view kToolSep = "<｜tool▁sep｜>";
constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";

const std::string& content_of(std::span<const ChatMessage> messages, size_t index) {
  if (!messages[index].content)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[tokenizer.chat] message ", index, " (", messages[index].role,
                    ") has null content. Give it a text."));
  return *messages[index].content;
}

void check_roles(std::span<const ChatMessage> messages, std::string_view format, bool tools) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    const bool known = role == "system" || role == "user" || role == "assistant" || (tools && role == "tool");
    if (!known || (!tools && !messages[i].tool_calls.empty()))
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[tokenizer.chat] message ", i, " (", role, ", ", messages[i].tool_calls.size(),
                      " tool calls) has no place in the format ", format, ": need system, user or assistant",
                      tools ? " or tool" : " without tool calls", ". Change the message or the format."));
    if (role != "assistant" && !messages[i].tool_calls.empty())
      throw Error(ErrorCode::kInvalidArgument, cat("[tokenizer.chat] message ", i, " (", role,
                                                   ") has tool calls, need role assistant. Move them."));
  }
}

std::string system_prompt(std::span<const ChatMessage> messages, bool last_only) {
  std::string text;
  bool first = true;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "system") continue;
    if (last_only) text.clear();
    if (!first && !last_only) text += "\n\n";
    text += content_of(messages, i);
    first = false;
  }
  return text;
}

// A conversation as pieces, in the order they are said.
class Pieces {
 public:
  Pieces& marker(std::string_view text) { return add(text, true, false); }
  Pieces& text(std::string_view text) { return add(text, false, false); }
  // What the model says itself; its <think> and </think> are tokens of their own.
  Pieces& answer(std::string_view text) {
    while (true) {
      const size_t open = text.find(kThink), close = text.find(kThinkEnd), at = std::min(open, close);
      if (at == text.npos) return add(text, false, true);
      const std::string_view mark = at == open ? kThink : kThinkEnd;
      add(text.substr(0, at), false, true).end(mark);
      text.remove_prefix(at + mark.size());
    }
  }
  Pieces& end(std::string_view marker) { return add(marker, true, true); }
  std::vector<ChatPiece> take() { return std::move(pieces_); }

 private:
  Pieces& add(std::string_view text, bool marker, bool trained) {
    if (text.empty()) return *this;
    const bool goes_on =
        !marker && !pieces_.empty() && !pieces_.back().marker && pieces_.back().trained == trained;
    if (goes_on)
      pieces_.back().text += text;
    else
      pieces_.push_back({std::string(text), marker, trained});
    return *this;
  }
  std::vector<ChatPiece> pieces_;
};

// The reasoning as R1 writes it, before the content.
std::string with_reasoning(const ChatMessage& message, std::string_view content) {
  if (!message.reasoning || message.reasoning->empty()) return std::string(content);
  return cat(kThink, "\n", *message.reasoning, "\n", kThinkEnd, "\n\n", content);
}

// The content without what was thought before it.
std::string_view without_reasoning(std::string_view content, size_t think_end) {
  return think_end == content.npos ? content : content.substr(think_end + kThinkEnd.size());
}

std::vector<ChatPiece> pieces_v2(std::span<const ChatMessage> messages, const ChatOptions& options) {
  Pieces out;
  out.marker(kBos);
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& content = content_of(messages, i);
    if (messages[i].role == "user")
      out.text(cat("User: ", content, "\n\n"));
    else if (messages[i].role == "assistant")
      out.text("Assistant:").answer(" " + content).end(kEos);
    else
      out.text(cat(content, "\n\n"));
  }
  if (options.add_generation_prompt) out.text("Assistant:");
  return out.take();
}

void v3_call(Pieces& out, const ToolCall& call) {
  out.end(kCallBegin).answer(call.type).end(kToolSep);
  out.answer(cat(call.name, "\n```json\n", call.arguments, "\n```")).end(kCallEnd);
}

// V3.1: every answered turn carries </think>, flags are per user turn.
std::vector<ChatPiece> pieces_v31(std::span<const ChatMessage> messages, const ChatOptions& options) {
  Pieces out;
  out.marker(kBos).text(system_prompt(messages, false));
  bool last_is_user = false, after_tool = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "user") {
      after_tool = false;
      last_is_user = true;
      out.marker(kUser).text(content_of(messages, i));
    } else if (message.role == "assistant") {
      const bool thinks = options.keep_reasoning && message.reasoning;
      if (last_is_user) out.marker(kAssistant).marker(thinks ? kThink : kThinkEnd);
      if (thinks) out.answer(*message.reasoning).end(kThinkEnd);
      last_is_user = false;
      if (!message.tool_calls.empty()) {
        out.answer(message.content.value_or("")).end(kCallsBegin);
        for (const ToolCall& call : message.tool_calls)
          out.end(kCallBegin).answer(call.name).end(kToolSep).answer(call.arguments).end(kCallEnd);
        out.end(kCallsEnd).end(kEos);
      } else {
        const std::string_view content = content_of(messages, i);
        const bool whole = after_tool || options.keep_reasoning;
        out.answer(without_reasoning(content, whole ? content.npos : content.find(kThinkEnd))).end(kEos);
      }
      after_tool = false;
    } else if (message.role == "tool") {
      last_is_user = false;
      after_tool = true;
      out.marker(kOutputBegin).text(content_of(messages, i)).marker(kOutputEnd);
    }
  }
  if (options.add_generation_prompt && last_is_user && !after_tool)
    out.marker(kAssistant).marker(options.thinking ? kThink : kThinkEnd);
  return out.take();
}

[[noreturn]] void unknown_template(ErrorCode code, const std::string& what) {
  std::string list;
  for (const std::string& name : ChatTemplate::names()) list += (list.empty() ? "" : ", ") + name;
  throw Error(code, cat("[tokenizer.chat] ", what, ". Name one of: ", list, "."));
}

}  // namespace

// V3 and R1. The flags calls_begun and outputs_begun are never reset, as in the published templates.
std::vector<ChatPiece> ChatTemplate::pieces_v3(std::span<const ChatMessage> messages,
                                               const ChatOptions& options) const {
  Pieces out;
  out.marker(kBos).text(system_prompt(messages, edition_.last_system_only));
  bool calls_begun = false, outputs_begun = false, after_tool = false;
  const auto calls = [&](const ChatMessage& message) {
    for (const ToolCall& call : message.tool_calls) {
      if (calls_begun)
        out.answer("\n");
      else
        out.marker(kAssistant).answer(message.content.value_or("")).end(kCallsBegin);
      v3_call(out, call);
      if (calls_begun && edition_.early_tools) out.end(kCallsEnd).end(kEos);
      calls_begun = true;
    }
    if (!edition_.early_tools) out.end(kCallsEnd).end(kEos);
  };
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "user") {
      after_tool = false;
      out.marker(kUser).text(content_of(messages, i));
    } else if (message.role == "tool") {
      after_tool = true;
      if (!outputs_begun) out.marker(kOutputsBegin);
      if (outputs_begun && edition_.early_tools) out.text("\n");
      out.marker(kOutputBegin).text(content_of(messages, i)).marker(kOutputEnd);
      outputs_begun = true;
    } else if (message.role == "assistant" && !message.tool_calls.empty() &&
               !(edition_.early_tools && message.content)) {
      after_tool = false;
      calls(message);
    } else if (message.role == "assistant" && after_tool) {
      after_tool = false;
      out.marker(kOutputsEnd).answer(content_of(messages, i)).end(kEos);
    } else if (message.role == "assistant") {
      const std::string_view content = content_of(messages, i);
      const bool whole = edition_.keeps_reasoning || options.keep_reasoning;
      const std::string_view said =
          without_reasoning(content, whole ? content.npos : content.rfind(kThinkEnd));
      out.marker(kAssistant);
      out.answer(options.keep_reasoning ? with_reasoning(message, said) : std::string(said)).end(kEos);
    }
  }
  if (after_tool)
    out.marker(kOutputsEnd);
  else if (options.add_generation_prompt && name_ == "r1")
    out.marker(kAssistant).marker(kThink).text("\n");
  else if (options.add_generation_prompt)
    out.marker(kAssistant);
  return out.take();
}

const std::vector<std::string>& ChatTemplate::names() {
  static const std::vector<std::string> kNames = {"v2", "v3", "r1", "r1-0528", "v3.1"};
  return kNames;
}

ChatTemplate ChatTemplate::named(std::string_view name) {
  if (std::find(names().begin(), names().end(), name) == names().end())
    unknown_template(ErrorCode::kInvalidArgument,
                     cat("unknown chat format \"", name, "\"", did_you_mean(name, names())));
  return ChatTemplate(std::string(name));
}

std::optional<ChatTemplate> ChatTemplate::find(const Tokenizer& tokenizer) {
  if (!tokenizer.chat_template().empty()) return detect(tokenizer.chat_template());
  const bool turns = tokenizer.token_to_id(kUser) && tokenizer.token_to_id(kAssistant);
  return turns ? std::optional(ChatTemplate("v3")) : std::nullopt;
}

ChatTemplate ChatTemplate::detect(const Tokenizer& tokenizer) {
  const std::optional<ChatTemplate> found = find(tokenizer);
  return found ? *found : detect("");  // says that there is none
}

// By what only that template has. Others of the same tokens (V3.2, edited copies) lack the marks and are
// refused.
ChatTemplate ChatTemplate::detect(std::string_view jinja) {
  const auto has = [&](std::string_view mark) { return jinja.find(mark) != jinja.npos; };
  if (jinja.empty()) unknown_template(ErrorCode::kUnsupported, "the model has no chat template");
  const bool published = (has("{{ bos_token }}") || has("{{bos_token}}")) && has("message['role']") &&
                         has("add_generation_prompt");
  if (published && has(kUser)) {
    const bool v31 = has("ns.is_last_user") && has("thinking");
    if (v31 && has(kThinkEnd) && !has("```json") && !has("ns.is_only_sys")) return ChatTemplate("v3.1");
    const bool late = has("'tool_calls' not in message"), early = has("message['content'] is not none");
    if (!has("ns.is_last_user") && has("ns.is_output_first") && late != early)
      return ChatTemplate(has("{{'<｜Assistant｜><think>\\n'}}") ? "r1" : "v3",
                          {.early_tools = early,
                           .keeps_reasoning = !has("content.split('</think>')"),
                           .last_system_only = !has("ns.is_first_sp")});
  } else if (published && has("'User: ' + message['content'] + '\\n\\n'") && has("'Assistant:'")) {
    return ChatTemplate("v2");
  }
  unknown_template(ErrorCode::kUnsupported, "the model's chat template is none of the published ones");
}

std::vector<ChatPiece> ChatTemplate::pieces(std::span<const ChatMessage> messages,
                                            const ChatOptions& options) const {
  check_roles(messages, name_, name_ != "v2");
  if (name_ == "v2") return pieces_v2(messages, options);
  if (name_ == "v3.1") return pieces_v31(messages, options);
  return pieces_v3(messages, options);
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  std::string out;
  for (const ChatPiece& piece : pieces(messages, options)) out += piece.text;
  return out;
}

std::vector<int32_t> ChatTemplate::encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                          const ChatOptions& options) const {
  return tokenizer.encode(render(messages, options));
}

TrainedTokens ChatTemplate::encode_pieces(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                          const ChatOptions& options) const {
  TrainedTokens out;
  for (const ChatPiece& piece : pieces(messages, options)) {
    const auto id = piece.marker ? tokenizer.token_to_id(piece.text) : std::nullopt;
    if (id)
      out.ids.push_back(*id);
    else
      for (const int32_t each : tokenizer.encode(piece.text, /*parse_special=*/false))
        out.ids.push_back(each);
    out.trained.resize(out.ids.size(), piece.trained);
  }
  return out;
}

}  // namespace hadal
