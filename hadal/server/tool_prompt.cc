#include "hadal/server/tool_prompt.h"

#include "hadal/base/text.h"

namespace hadal {
// V3.1 writes a call without its type and fence (architecture spec, chat templates).
CallMarkup call_markup(std::string_view format) {
  CallMarkup m{.begin = "<｜tool▁calls▁begin｜>",
               .between = "\n",
               .end = "<｜tool▁calls▁end｜>",
               .before_name = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
               .after_name = "\n```json\n",
               .after = "\n```<｜tool▁call▁end｜>"};
  if (format != "v3.1") return m;
  m.between.clear();
  m.before_name = "<｜tool▁call▁begin｜>";
  m.after_name = "<｜tool▁sep｜>";
  m.after = "<｜tool▁call▁end｜>";
  return m;
}

std::string tool_prompt(const std::vector<ToolSpec>& tools, std::string_view format) {
  const CallMarkup m = call_markup(format);
  std::string out = "## Tools\nThese tools can be called:\n";
  for (const ToolSpec& tool : tools) {
    out += cat("\n### ", tool.name, "\n");
    if (!tool.description.empty()) out += cat("Description: ", tool.description, "\n");
    out += cat("\nParameters: ", tool.parameters.empty() ? "{}" : tool.parameters, "\n");
  }
  return out + cat("\nA call is written in exactly this form, its arguments as one JSON object that fits the "
                   "tool's parameters:\n",
                   m.begin, m.before_name, "NAME", m.after_name, "ARGUMENTS", m.after, m.end,
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
