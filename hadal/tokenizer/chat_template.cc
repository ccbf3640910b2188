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

std::string render_v2(std::span<const ChatMessage> messages, const ChatOptions& options) {
  std::string out(kBos);
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& content = content_of(messages, i);
    if (messages[i].role == "user")
      out += cat("User: ", content, "\n\n");
    else if (messages[i].role == "assistant")
      out += cat("Assistant: ", content, kEos);
    else
      out += cat(content, "\n\n");
  }
  if (options.add_generation_prompt) out += "Assistant:";
  return out;
}

std::string v3_call(const ToolCall& call) {
  return cat(kCallBegin, call.type, kToolSep, call.name, "\n```json\n", call.arguments, "\n```", kCallEnd);
}

// V3.1: every answered turn carries </think>, flags are per user turn.
std::string render_v31(std::span<const ChatMessage> messages, const ChatOptions& options) {
  std::string out = cat(kBos, system_prompt(messages, false));
  bool last_is_user = false, after_tool = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "user") {
      after_tool = false;
      last_is_user = true;
      out += cat(kUser, content_of(messages, i));
    } else if (message.role == "assistant") {
      if (last_is_user) out += cat(kAssistant, kThinkEnd);
      last_is_user = false;
      if (!message.tool_calls.empty()) {
        out += cat(message.content.value_or(""), kCallsBegin);
        for (const ToolCall& call : message.tool_calls)
          out += cat(kCallBegin, call.name, kToolSep, call.arguments, kCallEnd);
        out += cat(kCallsEnd, kEos);
      } else {
        std::string_view content = content_of(messages, i);
        const size_t at = after_tool ? content.npos : content.find(kThinkEnd);
        if (at != content.npos) content.remove_prefix(at + kThinkEnd.size());
        out += cat(content, kEos);
      }
      after_tool = false;
    } else if (message.role == "tool") {
      last_is_user = false;
      after_tool = true;
      out += cat(kOutputBegin, content_of(messages, i), kOutputEnd);
    }
  }
  if (options.add_generation_prompt && last_is_user && !after_tool)
    out += cat(kAssistant, options.thinking ? kThink : kThinkEnd);
  return out;
}

[[noreturn]] void unknown_template(ErrorCode code, const std::string& what) {
  std::string list;
  for (const std::string& name : ChatTemplate::names()) list += (list.empty() ? "" : ", ") + name;
  throw Error(code, cat("[tokenizer.chat] ", what, ". Name one of: ", list, "."));
}

}  // namespace

// V3 and R1. The flags calls_begun and outputs_begun are never reset, as in the published templates.
std::string ChatTemplate::render_v3(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  std::string out = cat(kBos, system_prompt(messages, edition_.last_system_only));
  bool calls_begun = false, outputs_begun = false, after_tool = false;
  const auto calls = [&](const ChatMessage& message) {
    for (const ToolCall& call : message.tool_calls) {
      out += calls_begun ? "\n" : cat(kAssistant, message.content.value_or(""), kCallsBegin);
      out += v3_call(call);
      if (calls_begun && edition_.early_tools) out += cat(kCallsEnd, kEos);
      calls_begun = true;
    }
    if (!edition_.early_tools) out += cat(kCallsEnd, kEos);
  };
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "user") {
      after_tool = false;
      out += cat(kUser, content_of(messages, i));
    } else if (message.role == "tool") {
      after_tool = true;
      out += outputs_begun ? (edition_.early_tools ? "\n" : "") : std::string(kOutputsBegin);
      out += cat(kOutputBegin, content_of(messages, i), kOutputEnd);
      outputs_begun = true;
    } else if (message.role == "assistant" && !message.tool_calls.empty() &&
               !(edition_.early_tools && message.content)) {
      after_tool = false;
      calls(message);
    } else if (message.role == "assistant" && after_tool) {
      after_tool = false;
      out += cat(kOutputsEnd, content_of(messages, i), kEos);
    } else if (message.role == "assistant") {
      std::string_view content = content_of(messages, i);
      const size_t at = edition_.keeps_reasoning ? content.npos : content.rfind(kThinkEnd);
      if (at != content.npos) content.remove_prefix(at + kThinkEnd.size());
      out += cat(kAssistant, content, kEos);
    }
  }
  if (after_tool)
    out += kOutputsEnd;
  else if (options.add_generation_prompt)
    out += name_ == "r1" ? cat(kAssistant, kThink, "\n") : std::string(kAssistant);
  return out;
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

ChatTemplate ChatTemplate::detect(const Tokenizer& tokenizer) {
  return detect(tokenizer.chat_template());
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

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  check_roles(messages, name_, name_ != "v2");
  if (name_ == "v2") return render_v2(messages, options);
  if (name_ == "v3.1") return render_v31(messages, options);
  return render_v3(messages, options);
}

std::vector<int32_t> ChatTemplate::encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                          const ChatOptions& options) const {
  return tokenizer.encode(render(messages, options));
}

}  // namespace hadal
