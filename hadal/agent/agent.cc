#include "hadal/agent/agent.h"

#include <map>

#include "hadal/base/clock.h"
#include "hadal/base/text.h"

namespace hadal {
namespace {

class Episode {
 public:
  Episode(const ToolBox& tools, const AgentBudget& budget,
          const std::function<void(const AgentEvent&)>& on_event)
      : tools_(tools), budget_(budget), on_event_(on_event) {}

  AgentResult run(const ChatModel& model, const std::string& task) {
    result_.messages = {{.role = "system", .content = agent_instructions()},
                        {.role = "user", .content = task}};
    record("task", {{"text", task}});
    for (bool going = true; going;) going = turn(model);
    record("end", {{"reason", name(result_.end)},
                   {"answer", result_.answer},
                   {"turns", result_.turns},
                   {"calls", result_.calls},
                   {"failed_calls", result_.failed_calls},
                   {"tokens", result_.tokens},
                   {"seconds", now_seconds() - begin_}});
    return std::move(result_);
  }

 private:
  bool end(AgentEnd reason) {
    result_.end = reason;
    return false;
  }

  // False: the episode is over.
  bool turn(const ChatModel& model) {
    if (result_.turns == budget_.turns) return end(AgentEnd::kTurns);
    if (budget_.tokens > 0 && result_.tokens >= budget_.tokens) return end(AgentEnd::kTokens);
    if (budget_.seconds > 0 && now_seconds() - begin_ > budget_.seconds) return end(AgentEnd::kSeconds);
    const ModelTurn turn = model(result_.messages);
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

  bool after_broken_call(const ModelTurn& turn) {
    ++result_.failed_calls;
    if (broken_before_) return end(AgentEnd::kBrokenCalls);
    broken_before_ = true;
    result_.messages.push_back({.role = "assistant", .content = turn.content});
    result_.messages.push_back(
        {.role = "user",
         .content = "That call was not written in the form that was asked for. Write it again."});
    return true;
  }

  bool answer_call(const ToolCall& call) {
    if (result_.calls == budget_.calls) return end(AgentEnd::kCalls);
    ++result_.calls;
    const double begin = now_seconds();
    bool failed = true;
    std::string text;
    if (++seen_[call.name + "\n" + call.arguments] >= budget_.same_call)
      text = dump_json(Json{
          {"error", cat("this call was made ", budget_.same_call, " times; its result does not change")}});
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

  void record(const char* kind, Json fields) {
    result_.events.push_back({kind, std::move(fields)});
    if (on_event_) on_event_(result_.events.back());
  }

  const ToolBox& tools_;
  const AgentBudget& budget_;
  const std::function<void(const AgentEvent&)>& on_event_;
  const double begin_ = now_seconds();
  bool broken_before_ = false;
  std::map<std::string, int64_t> seen_;
  AgentResult result_;
};

}  // namespace

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
  return Episode(tools, budget, on_event).run(model, task);
}

std::string transcript_line(const AgentEvent& event) {
  Json line{{"event", event.kind}};
  for (const auto& [key, value] : event.fields.items()) line[key] = value;
  return dump_json(line);
}

}  // namespace hadal
