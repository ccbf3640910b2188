#include "hadal/agent/agent.h"

#include "hadal/base/clock.h"
#include "hadal/base/text.h"

namespace hadal {

AgentEpisode::AgentEpisode(const ToolBox& tools, const AgentBudget& budget, std::vector<ChatMessage> messages,
                           std::function<void(const AgentEvent&)> on_event)
    : tools_(tools), budget_(budget), on_event_(std::move(on_event)), begin_(now_seconds()) {
  result_.messages = std::move(messages);
}

double AgentEpisode::seconds() const {
  return now_seconds() - begin_;
}

bool AgentEpisode::end(AgentEnd reason) {
  result_.end = reason;
  return false;
}

bool AgentEpisode::has_budget() {
  if (result_.turns == budget_.turns) return end(AgentEnd::kTurns);
  if (budget_.tokens > 0 && result_.tokens >= budget_.tokens) return end(AgentEnd::kTokens);
  if (budget_.seconds > 0 && seconds() > budget_.seconds) return end(AgentEnd::kSeconds);
  return true;
}

bool AgentEpisode::take(const ModelTurn& turn) {
  ++result_.turns;
  result_.tokens += turn.num_tokens;
  Json calls = Json::array();
  for (const ToolCall& call : turn.calls)
    calls.push_back({{"name", call.name}, {"arguments", call.arguments}});
  record("turn", {{"reasoning", turn.reasoning},
                  {"content", turn.content},
                  {"calls", calls},
                  {"tokens", turn.num_tokens}});
  result_.answer = turn.content;
  if (turn.cut) return end(AgentEnd::kCut);
  if (turn.broken_call) return after_broken_call(turn);
  broken_before_ = false;
  ChatMessage message{.role = "assistant", .content = turn.content, .tool_calls = turn.calls};
  if (!turn.reasoning.empty()) message.reasoning = turn.reasoning;
  result_.messages.push_back(message);
  if (turn.calls.empty()) return end(AgentEnd::kAnswered);
  for (const ToolCall& call : turn.calls)
    if (!answer_call(call)) return false;
  return true;
}

bool AgentEpisode::after_broken_call(const ModelTurn& turn) {
  ++result_.failed_calls;
  if (broken_before_) return end(AgentEnd::kBrokenCalls);
  broken_before_ = true;
  result_.messages.push_back({.role = "assistant", .content = turn.content});
  result_.messages.push_back(
      {.role = "user",
       .content = "That call was not written in the form that was asked for. Write it again."});
  return true;
}

bool AgentEpisode::answer_call(const ToolCall& call) {
  if (result_.calls == budget_.calls) return end(AgentEnd::kCalls);
  ++result_.calls;
  const double begin = now_seconds();
  bool failed = true;
  std::string text;
  if (++seen_[call.name + "\n" + call.arguments] >= budget_.same_call)
    text = dump_json(
        Json{{"error", cat("this call was made ", budget_.same_call, " times; its result does not change")}});
  else
    text = tools_.call(call.name, call.arguments, &failed);
  result_.failed_calls += failed;
  record("result", {{"name", call.name},
                    {"arguments", call.arguments},
                    {"result", text},
                    {"failed", failed},
                    {"seconds", now_seconds() - begin}});
  result_.messages.push_back({.role = "tool", .content = text});
  return true;
}

void AgentEpisode::record(const char* kind, Json fields) {
  result_.events.push_back({kind, std::move(fields)});
  if (on_event_) on_event_(result_.events.back());
}

const char* name(AgentEnd end) {
  constexpr const char* names[] = {"answered", "turns", "calls", "tokens", "seconds", "broken_calls", "cut"};
  return names[static_cast<int>(end)];
}

std::string agent_instructions() {
  return "You solve a task with tools. First write a plan of a few steps between <plan> and </plan>. Then "
         "take the steps: "
         "call a tool when you need a value or a fact you are not certain of, look at what it gives, and "
         "change the plan "
         "if it does not fit. When you know the answer, write it between <answer> and </answer> and call "
         "nothing.";
}

AgentResult run_agent(const ChatModel& model, const ToolBox& tools, const std::string& task,
                      const AgentBudget& budget, const std::function<void(const AgentEvent&)>& on_event) {
  const AgentEvent begin{"task", {{"text", task}}};
  if (on_event) on_event(begin);
  AgentEpisode episode(
      tools, budget, {{.role = "system", .content = agent_instructions()}, {.role = "user", .content = task}},
      on_event);
  while (episode.has_budget() && episode.take(model(episode.result().messages))) {
  }
  AgentResult result = episode.result();
  result.events.insert(result.events.begin(), begin);
  result.events.push_back({"end",
                           {{"reason", name(result.end)},
                            {"answer", result.answer},
                            {"turns", result.turns},
                            {"calls", result.calls},
                            {"failed_calls", result.failed_calls},
                            {"tokens", result.tokens},
                            {"seconds", episode.seconds()}}});
  if (on_event) on_event(result.events.back());
  return result;
}

std::string transcript_line(const AgentEvent& event) {
  Json line{{"event", event.kind}};
  for (const auto& [key, value] : event.fields.items()) line[key] = value;
  return dump_json(line);
}

}  // namespace hadal
