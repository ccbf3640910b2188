// hadal eval --task: a model's answers to tasks, judged by the rules that reward them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "hadal/base/clock.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/cli/tool_episode.h"
#include "hadal/engine.h"
#include "hadal/error.h"
#include "hadal/posttrain/answer_groups.h"
#include "hadal/posttrain/chat_data.h"
#include "hadal/rewards/math_answer.h"
#include "hadal/rewards/reward.h"
#include "hadal/rewards/task_score.h"

namespace hadal {
namespace {

struct Judged {
  Sample sample;
  Completion completion;
  double right = 0, form = 0;  // NaN: cannot be scored
  std::string verdict, answer;
};

// Without the last end token.
int64_t num_tokens(const Judged& one) {
  return one.completion.num_tokens - one.completion.stopped;
}

struct Question {
  std::shared_ptr<const std::vector<int32_t>> prompt;
  std::string prefill;
  std::vector<Judged> samples;
};

class TaskEvaluation {
 public:
  TaskEvaluation(const EvalOptions& o, std::vector<Task> tasks)
      : o_(o),
        tasks_(std::move(tasks)),
        engine_(Engine::open(o.model, engine_config(o))),
        rewards_(reward_set({Json{{"name", "accuracy"}, {"profile", o.profile}}.dump(), "format"})) {
    if (!engine_.tokenizer())
      throw Error(ErrorCode::kNotFound,
                  cat("[cli.eval] ", o.model, " has no tokenizer.json, so it cannot read tasks."));
    format_ = chat_format(*engine_.tokenizer(), o.chat_template);
    if (!o.tools.empty())
      episode_ = episodes_with(
          {.names = o.tools, .documents = o.documents, .budget = {.turns = o.turns}, .told = !o.untold_tools},
          format_, o.model, *engine_.tokenizer(), {&tasks_});
    for (const Task& task : tasks_) questions_.push_back(question(task));
  }

  void run() {
    std::vector<SampleRequest> requests;
    for (size_t q = 0; q < questions_.size(); ++q)
      for (int64_t k = 0; k < o_.samples; ++k) {
        SampleRequest request{.prompt = questions_[q].prompt, .max_tokens = o_.max_tokens};
        request.sampling.temperature = o_.temperature;
        request.sampling.top_p = o_.top_p;
        request.sampling.seed = sample_seed(o_.seed, static_cast<int64_t>(q), k);
        requests.push_back(std::move(request));
      }
    std::vector<Sample> samples = sample_all(engine_, requests, episode_);
    const auto num_samples = static_cast<size_t>(o_.samples);
    std::vector<const Task*> tasks;
    std::vector<Completion> completions;
    for (size_t i = 0; i < samples.size(); ++i) {
      tasks.push_back(&tasks_[i / num_samples]);
      completions.push_back(completion_of(samples[i], questions_[i / num_samples].prefill));
    }
    const std::vector<RewardResult> rewards =
        rewards_.score_all(tasks, completions, static_cast<int>(o_.threads));
    for (size_t i = 0; i < samples.size(); ++i)
      questions_[i / num_samples].samples[i % num_samples] =
          judged(*tasks[i], std::move(samples[i]), std::move(completions[i]), rewards[i]);
  }

  const std::vector<Question>& questions() const { return questions_; }
  const std::vector<Task>& tasks() const { return tasks_; }

 private:
  static EngineConfig engine_config(const EvalOptions& o) {
    return {.threads = static_cast<int>(o.threads),
            .cache_dtype = o.cache_dtype,
            .max_sequences = o.max_sequences};
  }

  Question question(const Task& task) const {
    const Tokenizer& tokenizer = *engine_.tokenizer();
    Question one;
    one.samples.resize(static_cast<size_t>(o_.samples));
    one.prompt = std::make_shared<const std::vector<int32_t>>(prompt_ids(task, tokenizer, format_));
    if (format_ && format_->render(messages_of(task)).ends_with("<think>\n")) one.prefill = "<think>\n";
    if (std::ssize(*one.prompt) >= engine_.context())
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[cli.eval] task ", task.id, " has ", one.prompt->size(),
                      " tokens, the model's context ", engine_.context(), ". Leave it out of the file."));
    return one;
  }

  static Judged judged(const Task& task, Sample sample, Completion completion, const RewardResult& result) {
    const RewardScore &accuracy = result.part("accuracy")->score, &form = result.part("format")->score;
    Judged out{.sample = std::move(sample), .completion = std::move(completion)};
    out.right = std::isnan(accuracy.value) ? accuracy.value : (accuracy.value >= 1 ? 1 : 0);
    out.form = form.value;
    out.verdict = accuracy.verdict;
    const bool voted = accuracy.verdict == "right" || accuracy.verdict == "wrong";
    if (voted && task.verifier != "code") out.answer = accuracy.detail;
    return out;
  }

  const EvalOptions& o_;
  std::vector<Task> tasks_;
  Engine engine_;
  std::optional<ChatTemplate> format_;
  RewardSet rewards_;
  std::vector<Question> questions_;
  NewEpisode episode_;  // empty: no tools
};

QuestionSamples samples_of(const Task& task, const Question& question, const EvalOptions& o) {
  QuestionSamples out{.id = task.id};
  std::vector<std::string> answers;
  for (const Judged& sample : question.samples)
    out.right.push_back(sample.right), answers.push_back(sample.answer);
  const AnswerProfile profile = answer_profile(o.profile);
  out.answers = answer_classes(answers, [&](const std::string& a, const std::string& b) {
    return task.verifier == "math" && judge_math(a, b, {.profile = profile}) == MathVerdict::kRight;
  });
  return out;
}

void write_results(const std::string& path, const TaskEvaluation& run,
                   const std::vector<QuestionSamples>& found) {
  AtomicFile file(path);
  for (size_t q = 0; q < found.size(); ++q) {
    const Task& task = run.tasks()[q];
    Json line{{"id", task.id}, {"answer", task.answer}, {"samples", Json::array()}};
    for (size_t s = 0; s < found[q].right.size(); ++s) {
      const Judged& sample = run.questions()[q].samples[s];
      Json one{{"text", sample.sample.text}, {"right", nullptr}, {"verdict", sample.verdict}};
      if (!std::isnan(sample.right)) one["right"] = sample.right;
      one["format"] = sample.form;
      one["class"] = found[q].answers[s];
      one["tokens"] = num_tokens(sample);
      one["finish"] = name(sample.sample.reason);
      if (sample.sample.turns > 0) one["turns"] = sample.sample.turns, one["calls"] = sample.sample.calls;
      line["samples"].push_back(std::move(one));
    }
    file.write(dump_json(line) + "\n");
  }
  file.commit();
}

// name -> estimate, in the order of the table.
using Figures = std::vector<std::pair<std::string, Estimate>>;

Figures figures_of(const TaskEvaluation& run, const std::vector<QuestionSamples>& found,
                   const EvalOptions& o) {
  std::map<std::string, std::vector<double>> values;
  std::vector<std::string> order;
  const auto add = [&](const std::string& key, double value) {
    if (!values.count(key)) order.push_back(key);
    values[key].push_back(value);
  };
  for (size_t q = 0; q < found.size(); ++q) {
    const QuestionSamples& one = found[q];
    if (std::any_of(one.right.begin(), one.right.end(), [](double x) { return std::isnan(x); })) continue;
    const auto n = static_cast<int64_t>(one.right.size());
    int64_t right = 0;
    double form = 0, cut = 0, tokens = 0;
    for (size_t s = 0; s < one.right.size(); ++s) {
      const Judged& sample = run.questions()[q].samples[s];
      right += one.right[s] == 1, form += sample.form, cut += !sample.completion.stopped;
      tokens += static_cast<double>(num_tokens(sample));
    }
    const auto share = [&](double sum) { return sum / static_cast<double>(n); };
    add(cat("avg@", n), share(static_cast<double>(right)));
    for (const int64_t k : o.ks) add(cat("pass@", k), pass_at_k(n, right, k));
    for (const int64_t k : o.ks)
      if (k > 1) add(cat("maj@", k), vote_at_k(one, k, o.seed));
    add("format", share(form)), add("cut", share(cut)), add("tokens", share(tokens));
  }
  Figures figures;
  for (const std::string& key : order) figures.emplace_back(key, estimate(values[key]));
  return figures;
}

// Of the tasks that share the values of --by's columns: the share of right samples.
struct Group {
  std::vector<Json> values;
  std::vector<double> right;
};

// In the order of their values. Throws invalid_argument for a task without one of the columns.
std::vector<Group> groups_of(const TaskEvaluation& run, const std::vector<QuestionSamples>& found,
                             const EvalOptions& o) {
  std::map<std::vector<Json>, std::vector<double>> right;
  for (size_t q = 0; !o.by.empty() && q < found.size(); ++q) {
    std::vector<Json> values;
    for (const std::string& column : o.by) {
      const Json& record = *run.tasks()[q].record;
      if (!record.contains(column) || record[column].is_structured())
        throw Error(ErrorCode::kInvalidArgument,
                    cat("[cli.eval] --by ", column, ": task ", found[q].id,
                        " has no such column with a number or a word. Leave it out of --by."));
      values.push_back(record[column]);
    }
    const std::vector<double>& one = found[q].right;
    const double share = std::accumulate(one.begin(), one.end(), 0.0) / static_cast<double>(one.size());
    if (!std::isnan(share)) right[values].push_back(share);
  }
  std::vector<Group> groups;
  for (const auto& [values, shares] : right) groups.push_back({values, shares});
  return groups;
}

Json groups_json(const std::vector<Group>& groups, const EvalOptions& o) {
  Json out{{"columns", o.by}, {"groups", Json::array()}};
  for (const Group& group : groups) {
    const Estimate mean = estimate(group.right);
    out["groups"].push_back({{"values", group.values},
                             {"tasks", group.right.size()},
                             {"mean", mean.mean},
                             {"error", mean.error}});
  }
  return out;
}

std::string group_line(const Group& group, const EvalOptions& o) {
  std::string name;
  for (size_t i = 0; i < o.by.size(); ++i) {
    const Json& value = group.values[i];
    name += cat(o.by[i], " ", value.is_string() ? value.get<std::string>() : value.dump(), "  ");
  }
  const Estimate mean = estimate(group.right);
  char line[80];
  std::snprintf(line, sizeof line, "%.4f +- %.4f of %zu\n", mean.mean, mean.error, group.right.size());
  return name + line;
}

void print_figures(const EvalOptions& o, const TaskEvaluation& run, const Figures& figures,
                   const std::vector<Group>& groups, double seconds) {
  std::map<std::string, int64_t> verdicts;
  int64_t unscorable = 0;
  for (const Question& question : run.questions())
    for (const Judged& sample : question.samples)
      ++verdicts[sample.verdict], unscorable += std::isnan(sample.right);
  if (o.json) {
    Json out{{"model", o.model}, {"task", o.task}, {"tasks", run.tasks().size()}, {"samples", o.samples}};
    out.update({{"temperature", o.temperature}, {"top_p", o.top_p}, {"max_tokens", o.max_tokens}});
    out.update({{"seed", o.seed}, {"profile", o.profile}, {"unscorable", unscorable}});
    for (const auto& [key, value] : figures) out[key] = {{"mean", value.mean}, {"error", value.error}};
    if (!o.by.empty()) out["by"] = groups_json(groups, o);
    for (const auto& [verdict, count] : verdicts) out["verdicts"][verdict] = count;
    out["seconds"] = seconds;
    print(dump_json(out, 1) + "\n");
    return;
  }
  print(cat(run.tasks().size(), " tasks, ", o.samples, " samples each, temperature ", o.temperature,
            ", top_p ", o.top_p, ", at most ", o.max_tokens, " tokens, profile ", o.profile, ", seed ",
            o.seed, "\n"));
  for (const auto& [key, value] : figures) {
    char line[100];
    std::snprintf(line, sizeof line, "%-12s%8.4f +- %.4f\n", key.c_str(), value.mean, value.error);
    print(line);
  }
  std::string counts;
  for (const auto& [verdict, count] : verdicts)
    counts += cat(counts.empty() ? "" : ", ", count, " ", verdict);
  print(cat("verdicts    ", counts, "\n"));
  for (const Group& group : groups) print(group_line(group, o));
  if (unscorable > 0) print(cat(unscorable, " answers could not be scored; their tasks are in no figure\n"));
}

// What the flags leave open.
EvalOptions complete(EvalOptions o) {
  if (o.temperature < 0) o.temperature = o.samples == 1 ? 0 : 0.6;
  if (o.ks.empty()) o.ks = {1, o.samples};
  std::sort(o.ks.begin(), o.ks.end());
  o.ks.erase(std::unique(o.ks.begin(), o.ks.end()), o.ks.end());
  if (o.ks.back() > o.samples)
    throw Error(ErrorCode::kInvalidArgument, cat("[cli.eval] --k is ", o.ks.back(), ", --samples ", o.samples,
                                                 ". Take at least as many samples as the largest k."));
  return o;
}

}  // namespace

int run_eval_tasks(const EvalOptions& given) {
  const EvalOptions o = complete(given);
  const double start = now_seconds();
  TaskEvaluation run(o, load_tasks(o.task));
  run.run();
  std::vector<QuestionSamples> found;
  for (size_t q = 0; q < run.questions().size(); ++q)
    found.push_back(samples_of(run.tasks()[q], run.questions()[q], o));
  if (!o.out.empty()) write_results(o.out, run, found);
  print_figures(o, run, figures_of(run, found, o), groups_of(run, found, o), now_seconds() - start);
  return 0;
}

}  // namespace hadal
