#include "hadal/cli/tool_episode.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "hadal/agent/builtin_tools.h"
#include "hadal/base/check.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/posttrain/answer_groups.h"
#include "hadal/server/answer_parser.h"
#include "hadal/server/tool_prompt.h"

namespace hadal {
namespace {

class ToolEpisode {
 public:
  ToolEpisode(ToolBox tools, ChatTemplate format, Tokenizer tokenizer, const AgentBudget& budget)
      : tools_(std::move(tools)),
        format_(std::move(format)),
        tokenizer_(std::move(tokenizer)),
        episode_(tools_, budget, {{.role = "user", .content = ""}}),
        thinking_(starts_in_thought(format_.render(episode_.result().messages))) {}
  ToolEpisode(const ToolEpisode&) = delete;

  std::optional<Reply> reply(std::span<const int32_t> turn) {
    const AgentResult& state = episode_.result();
    const size_t before = state.messages.size();
    const int64_t calls = state.calls, failed = state.failed_calls;
    const bool goes_on =
        episode_.take(read_turn(tokenizer_.decode(turn), thinking_, format_.name())) && episode_.has_budget();
    if (!goes_on && state.end == AgentEnd::kAnswered) return std::nullopt;
    Reply reply{.calls = state.calls - calls, .failed_calls = state.failed_calls - failed};
    reply.is_cut = !goes_on;
    if (goes_on) put_words(before + 1, reply);
    return reply;
  }

 private:
  // What the format puts behind the first `said` messages.
  void put_words(size_t said, Reply& reply) {
    const std::span<const ChatMessage> all = episode_.result().messages;
    const auto ids = [&](std::span<const ChatMessage> messages, bool generate) {
      const ChatOptions options{.add_generation_prompt = generate, .keep_reasoning = true};
      return format_.encode_pieces(tokenizer_, messages, options).ids;
    };
    const std::vector<int32_t> before = ids(all.first(said), false), whole = ids(all, true);
    HADAL_CHECK(before.size() <= whole.size() && std::equal(before.begin(), before.end(), whole.begin()))
        << format_.name();
    reply.ids.assign(whole.begin() + std::ssize(before), whole.end());
    reply.text = tokenizer_.decode(reply.ids);
    thinking_ = starts_in_thought(reply.text);
  }

  ToolBox tools_;
  ChatTemplate format_;
  Tokenizer tokenizer_;
  AgentEpisode episode_;
  bool thinking_;
};

}  // namespace

bool starts_in_thought(std::string_view prompt) {
  return prompt.substr(0, prompt.find_last_not_of('\n') + 1).ends_with("<think>");
}

ModelTurn read_turn(const std::string& text, bool thinking, std::string_view format) {
  AnswerParser parser({.reasoning = true, .starts_in_reasoning = thinking, .tools = true});
  std::vector<AnswerPiece> pieces = parser.push(text);
  for (AnswerPiece& piece : parser.finish()) pieces.push_back(std::move(piece));
  ModelTurn turn;
  for (AnswerPiece& piece : pieces) {
    if (piece.kind == AnswerPiece::kToolCall)
      turn.calls.push_back({.name = piece.name, .arguments = piece.text});
    else
      (piece.kind == AnswerPiece::kReasoning ? turn.reasoning : turn.content) += piece.text;
  }
  // What the parser could not take for a call is content with the marker in it.
  turn.broken_call = turn.calls.empty() && turn.content.find(call_markup(format).begin) != std::string::npos;
  return turn;
}

ChatTemplate format_with_tools(const std::optional<ChatTemplate>& format, const std::string& model) {
  if (!format || format->name() == "v2")
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.tools] ", model, " has no chat format in which tools ",
                                                 "are called. Name one: --template."));
  return *format;
}

std::vector<ToolSpec> specs_of(const ToolBox& tools) {
  std::vector<ToolSpec> specs;
  for (const Tool& tool : tools.tools())
    specs.push_back(
        {.name = tool.name, .description = tool.description, .parameters = dump_json(tool.parameters)});
  return specs;
}

Task with_tools_told(Task task, const ToolBox& tools, const ChatTemplate& format) {
  Json messages = Json::array();
  for (const ChatMessage& message : with_tools(messages_of(task), specs_of(tools), format.name()))
    messages.push_back({{"role", message.role}, {"content", message.content.value_or("")}});
  task.messages = dump_json(messages), task.prompt.clear();
  return task;
}

NewEpisode tool_episodes(std::function<ToolBox()> tools, ChatTemplate format, Tokenizer tokenizer,
                         AgentBudget budget) {
  return [=] {
    const auto episode = std::make_shared<ToolEpisode>(tools(), format, tokenizer, budget);
    return [episode](std::span<const int32_t> turn) { return episode->reply(turn); };
  };
}

NewEpisode episodes_with(const ToolUse& use, const std::optional<ChatTemplate>& format,
                         const std::string& model, const Tokenizer& tokenizer,
                         std::initializer_list<std::vector<Task>*> tasks) {
  const ChatTemplate with_tools = format_with_tools(format, model);
  const auto tools = [names = use.names, options = BuiltinToolOptions{.documents = use.documents}] {
    return builtin_tools(names, options);
  };
  const ToolBox box = tools();
  for (std::vector<Task>* some : tasks)
    for (Task& task : *some)
      if (use.told) task = with_tools_told(std::move(task), box, with_tools);
  return tool_episodes(tools, with_tools, tokenizer, use.budget);
}

}  // namespace hadal
