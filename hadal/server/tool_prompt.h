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

// What an answer starts with that must call tool `name`, up to where its arguments begin.
std::string call_opening(const std::string& name, std::string_view format);
// What follows the arguments, up to the end token.
std::string call_closing(std::string_view format);

}  // namespace hadal
