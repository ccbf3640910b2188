// A model with tools: it plans, calls, reads the results, and answers. What it does in which order is the
// model's; here are the turns, their budget and the record of them.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/agent/tool.h"
#include "hadal/tokenizer.h"

namespace hadal {

// One turn of the model. No calls: its content is the answer.
struct ModelTurn {
  std::string reasoning, content;
  std::vector<ToolCall> calls;
  bool broken_call = false;  // it began a call and did not write it well
  bool cut = false;          // ended by a limit of tokens
  int64_t num_tokens = 0;
};

// The model: the conversation so far to the next turn.
using ChatModel = std::function<ModelTurn(const std::vector<ChatMessage>&)>;

struct AgentBudget {
  int64_t turns = 8;
  int64_t calls = 16;
  int64_t tokens = 0;     // written by the model, all turns together; 0: no limit
  double seconds = 0;     // 0: no limit; looked at between turns
  int64_t same_call = 3;  // so often the same call with the same arguments is an error
};

enum class AgentEnd { kAnswered, kTurns, kCalls, kTokens, kSeconds, kBrokenCalls, kCut };
const char* name(AgentEnd end);  // "answered", "turns", ...

// One thing that happened; transcript_line() is its JSON.
struct AgentEvent {
  std::string kind;  // "task", "turn", "call", "result", "end"
  Json fields;
};

struct AgentResult {
  AgentEnd end = AgentEnd::kAnswered;
  std::string answer;  // of kAnswered; else the last content, if any
  std::vector<ChatMessage> messages;
  std::vector<AgentEvent> events;
  int64_t turns = 0, calls = 0, failed_calls = 0, tokens = 0;
};

// The course of a task from turn to turn. run_agent() asks one model for the turns; who samples many answers
// at once gives them in as they come.
class AgentEpisode {
 public:
  // `messages`: the conversation so far. The tools, and what on_event holds, must outlive this.
  AgentEpisode(const ToolBox& tools, const AgentBudget& budget, std::vector<ChatMessage> messages,
               std::function<void(const AgentEvent&)> on_event = {});

  // Before each turn. False: a limit is met, and the episode is over.
  bool has_budget();
  // A turn of the model: its message, and what it is answered with, join the messages. False: it is over.
  bool take(const ModelTurn& turn);
  const AgentResult& result() const { return result_; }
  double seconds() const;  // since it began

 private:
  bool end(AgentEnd reason);
  bool after_broken_call(const ModelTurn& turn);
  bool answer_call(const ToolCall& call);
  void record(const char* kind, Json fields);

  const ToolBox& tools_;
  AgentBudget budget_;
  std::function<void(const AgentEvent&)> on_event_;
  double begin_;
  bool broken_before_ = false;
  std::map<std::string, int64_t> seen_;
  AgentResult result_;
};

// How to work, for the system prompt: plan into steps, call tools, look at results, decide, answer.
std::string agent_instructions();

// Runs the task to its end. `on_event` sees each event as it happens. A tool's failure goes back to the
// model; a broken call may be repeated once. Throws what `model` throws.
AgentResult run_agent(const ChatModel& model, const ToolBox& tools, const std::string& task,
                      const AgentBudget& budget = {},
                      const std::function<void(const AgentEvent&)>& on_event = {});

// {"event": kind, fields...}, one line.
std::string transcript_line(const AgentEvent& event);

}  // namespace hadal
