#include "hadal/rewards/task_maker.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/rewards/reward.h"
#include "hadal/rewards/task.h"

namespace hadal {
namespace {

constexpr int64_t kTriesPerTask = 200;

// What the lines of a task, of a demonstration and of a pair share. Calls use(task, record) for each.
template <class Use>
void for_each_task(const TaskKind& kind, const TaskSetOptions& o, const Use& use) {
  const int64_t level = o.level == 0 ? kind.default_level : o.level;
  if (level < kind.least_level || level > kind.most_level)
    throw Error(ErrorCode::kInvalidArgument,
                cat("[rewards.task_maker] --level is ", level, ", ", kind.name, " has levels ",
                    kind.least_level, " to ", kind.most_level, "."));
  std::unordered_set<std::string> seen;
  int64_t made = 0;
  for (uint64_t index = 0; made < o.count; ++index) {
    if (index > static_cast<uint64_t>(o.count * kTriesPerTask))
      throw Error(ErrorCode::kExhausted,
                  cat("[rewards.task_maker] found only ", made, " different prompts of ", kind.name,
                      " at level ", level, ", need ", o.count, ". Ask for fewer, or for a higher --level."));
    TaskRandom random(o.seed, index);
    const MadeTask task = kind.make(random, level);
    Task plain;
    plain.prompt = task.prompt;
    const std::string prompt = normalised_prompt(plain);
    if ((split_position(prompt) < o.held_out) != o.held_out_part || !seen.insert(prompt).second) continue;
    ++made;
    Json record{{"id", cat(kind.name, "-", o.seed, "-", index)}};
    if (o.messages) {
      record["prompt"] = Json::array({{{"role", "user"}, {"content", task.prompt}}});
    } else {
      record["prompt"] = task.prompt;
    }
    record["verifier"] = task.verifier;
    if (!task.answer.empty()) record["answer"] = task.answer;
    if (task.columns.is_object()) record.update(task.columns);
    use(task, record, random);
  }
}

// --- pairs

struct Candidate {
  std::string text;
  std::string reasoning;  // why it has its score
  double score = 0;
};

// One of the digits is another.
std::string with_other_digit(std::string text, TaskRandom& random) {
  std::vector<size_t> digits;
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] >= '0' && text[i] <= '9') digits.push_back(i);
  if (digits.empty()) return text + "1";
  const size_t at = random.one_of(digits);
  text[at] = static_cast<char>('0' + (text[at] - '0' + random.between(1, 9)) % 10);
  return text;
}

// The same slip in thought and solution, which agree: one digit of the solution is another one wherever it
// stands.
std::string with_slip(std::string thought, std::string solution, TaskRandom& random) {
  std::vector<char> digits;
  for (const char c : solution)
    if (c >= '0' && c <= '9') digits.push_back(c);
  if (digits.empty()) return reasoned_answer(thought, solution + "1");
  const char from = random.one_of(digits);
  const auto to = static_cast<char>('0' + (from - '0' + random.between(1, 9)) % 10);
  std::replace(thought.begin(), thought.end(), from, to);
  std::replace(solution.begin(), solution.end(), from, to);
  return reasoned_answer(thought, solution);
}

std::string candidate_text(const MadeTask& task, TaskRandom& random) {
  switch (random.between(0, 5)) {
    case 0:
      return reasoned_answer(task.thought, task.solution);
    case 1:
      return reasoned_answer(task.thought, with_other_digit(task.solution, random));
    case 2:
      return with_slip(task.thought, task.solution, random);
    case 3:
      return cat("<answer>", task.solution, "</answer>");
    case 4: {
      std::string thought;
      for (int64_t i = random.between(3, 5); i > 0; --i) thought += task.thought + (i > 1 ? ", so " : "");
      return reasoned_answer(thought, task.solution);
    }
    default:
      return cat("The answer is ", task.solution, ".");
  }
}

double part(const RewardResult& result, const char* name) {
  return result.part(name)->score.value;
}

Candidate judged(const MadeTask& made, const Task& task, const RewardSet& rewards, TaskRandom& random) {
  Candidate one{.text = candidate_text(made, random)};
  const RewardResult result = rewards.score(task, one.text);
  const bool right = part(result, "accuracy") == 1, form = part(result, "format") == 1;
  const double repeated = -part(result, "repetition");
  one.score = 6 * right + 2 * form + 2 * (1 - repeated);
  const std::string answer = result.part("accuracy")->score.detail;
  one.reasoning =
      cat(made.thought, ". ",
          answer.empty() ? "The response gives no answer between its tags"
                         : cat("The response answers ", answer, ", which is ", right ? "right" : "wrong"),
          ". Its form is ", form ? "kept" : "broken", ". ",
          repeated > 0.2 ? "It repeats itself." : "It does not repeat itself.");
  return one;
}

}  // namespace

int64_t TaskRandom::between(int64_t least, int64_t most) {
  const double u = 1 - uniform(seed_, stream_id("task") + index_, draws_++);  // [0, 1)
  return least + static_cast<int64_t>(u * static_cast<double>(most - least + 1));
}

std::string reasoned_answer(std::string_view thought, std::string_view solution) {
  return cat("<think>", thought, "</think><answer>", solution, "</answer>");
}

std::vector<Json> make_tasks(const TaskKind& kind, const TaskSetOptions& options) {
  std::vector<Json> lines;
  for_each_task(kind, options,
                [&](const MadeTask&, Json& record, TaskRandom&) { lines.push_back(std::move(record)); });
  return lines;
}

std::vector<Json> make_demonstrations(const TaskKind& kind, const TaskSetOptions& options) {
  std::vector<Json> lines;
  for_each_task(kind, options, [&](const MadeTask& task, Json& record, TaskRandom&) {
    std::string completion = task.continued ? task.solution : reasoned_answer(task.thought, task.solution);
    if (options.messages) {
      record["completion"] = Json::array({{{"role", "assistant"}, {"content", completion}}});
    } else {
      if (task.continued) completion.insert(0, " ");
      record["completion"] = completion;
      record["text"] = task.prompt + completion;
    }
    lines.push_back(std::move(record));
  });
  return lines;
}

std::vector<Json> make_preferences(const TaskKind& kind, const TaskSetOptions& options) {
  const RewardSet rewards =
      reward_set({R"({"name": "accuracy"})", "format", R"({"name": "repetition", "ngram": 1})"});
  std::vector<Json> lines;
  for_each_task(kind, options, [&](const MadeTask& made, Json& record, TaskRandom& random) {
    if (made.verifier == "code" || made.continued)
      throw Error(ErrorCode::kUnsupported,
                  cat("[rewards.task_maker] there are no preferences for ", kind.name, ": its answers are ",
                      made.continued ? "one word" : "compared by running them", ". Choose another kind."));
    const Task task = parse_task(dump_json(record), "made task");
    Candidate a = judged(made, task, rewards, random), b = judged(made, task, rewards, random);
    while (std::abs(a.score - b.score) < 1) b = judged(made, task, rewards, random);
    if (a.score < b.score) std::swap(a, b);
    Json line{{"id", record["id"]}, {"prompt", record["prompt"]}};
    for (const auto& [key, one] : {std::pair{"chosen", &a}, {"rejected", &b}}) {
      if (options.messages) {
        line[key] = Json::array({{{"role", "assistant"}, {"content", one->text}}});
      } else {
        line[key] = one->text;
      }
      line[cat(key, "_reasoning")] = one->reasoning;
      line[cat(key, "_score")] = std::round(one->score * 100) / 100;
    }
    line["reference"] = made.solution;
    lines.push_back(std::move(line));
  });
  return lines;
}

}  // namespace hadal
