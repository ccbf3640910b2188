// Tools in answers that are sampled many at a time: what a model's turn says, and the tokens that follow it.
// Torch-free.
#pragma once
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/agent/agent.h"
#include "hadal/posttrain/rollout.h"
#include "hadal/rewards/task.h"
#include "hadal/server/openai_request.h"

namespace hadal {

// Does a prompt end with <think>, so that the turn begins inside of a thought?
bool starts_in_thought(std::string_view prompt);

// The text of a turn, taken apart; what began as a call and is none is a broken call.
ModelTurn read_turn(const std::string& text, bool thinking, std::string_view format);

// The format if tools can be called in it. Throws invalid_argument naming `model` if there is none or it
// cannot.
ChatTemplate format_with_tools(const std::optional<ChatTemplate>& format, const std::string& model);

// Tools as a model is told them.
std::vector<ToolSpec> specs_of(const ToolBox& tools);

// The task with the tools, and how to call them, in its system message.
Task with_tools_told(Task task, const ToolBox& tools, const ChatTemplate& format);

// An episode for each answer, with tools and a budget of its own (run_agent()'s rules). A reply has the ids
// that the format gives to results, or to the request to write a call again, and no text of a tool can spell
// a marker. Throws, when an episode is made, what `tools` throws.
NewEpisode tool_episodes(std::function<ToolBox()> tools, ChatTemplate format, Tokenizer tokenizer,
                         AgentBudget budget);

// Episodes with built-in tools, each answer's its own. `tasks` are told them, if they are to be. Throws as
// format_with_tools() and builtin_tools().
struct ToolUse {
  std::vector<std::string> names;
  std::string documents;  // folder of search and read; "": none
  AgentBudget budget;
  bool told = true;
};
NewEpisode episodes_with(const ToolUse& use, const std::optional<ChatTemplate>& format,
                         const std::string& model, const Tokenizer& tokenizer,
                         std::initializer_list<std::vector<Task>*> tasks);

}  // namespace hadal
