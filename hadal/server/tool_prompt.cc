#include "hadal/server/tool_prompt.h"

#include "hadal/base/text.h"

namespace hadal {
namespace {

// V3.1 writes a call without its type and fence (architecture spec, chat templates).
bool has_bare_arguments(std::string_view format) {
  return format == "v3.1";
}

}  // namespace

std::string call_opening(const std::string& name, std::string_view format) {
  const char* start = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>";
  if (has_bare_arguments(format)) return cat(start, name, "<｜tool▁sep｜>");
  return cat(start, "function<｜tool▁sep｜>", name, "\n```json\n");
}

std::string call_closing(std::string_view format) {
  const char* end = "<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  return has_bare_arguments(format) ? end : cat("\n```", end);
}

std::string tool_prompt(const std::vector<ToolSpec>& tools, std::string_view format) {
  std::string out = "## Tools\nThese tools can be called:\n";
  for (const ToolSpec& tool : tools) {
    out += cat("\n### ", tool.name, "\n");
    if (!tool.description.empty()) out += cat("Description: ", tool.description, "\n");
    out += cat("\nParameters: ", tool.parameters.empty() ? "{}" : tool.parameters, "\n");
  }
  return out + cat("\nA call is written in exactly this form, its arguments as one JSON object that fits the "
                   "tool's parameters:\n",
                   call_opening("NAME", format), "ARGUMENTS", call_closing(format),
                   "\nFurther calls of the same turn stand before <｜tool▁calls▁end｜>, each with its own "
                   "begin and end.\n");
}

std::vector<ChatMessage> with_tools(std::vector<ChatMessage> messages, const std::vector<ToolSpec>& tools,
                                    std::string_view format) {
  const std::string text = tool_prompt(tools, format);
  for (ChatMessage& message : messages)
    if (message.role == "system") {
      message.content = message.content.value_or("") + "\n\n" + text;
      return messages;
    }
  messages.insert(messages.begin(), {.role = "system", .content = text});
  return messages;
}

}  // namespace hadal
