// How tools are told to a model: the published templates do not render them, so callers put them in the
// system prompt. Torch-free.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "hadal/server/openai_request.h"

namespace hadal {

// The text put behind the system prompt; `format` is a ChatTemplate's name.
std::string tool_prompt(const std::vector<ToolSpec>& tools, std::string_view format);

// The messages with that text in their system message; one is made if there is none.
std::vector<ChatMessage> with_tools(std::vector<ChatMessage> messages, const std::vector<ToolSpec>& tools,
                                    std::string_view format);

// How calls of tools are written in a format.
struct CallMarkup {
  std::string begin, between, end;             // around and between the calls of a turn
  std::string before_name, after_name, after;  // of one call: then its arguments stand between the last two
};
CallMarkup call_markup(std::string_view format);

}  // namespace hadal
