// hadal eval --task: a model's answers to tasks, judged by the rules that reward them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "hadal/base/clock.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"
#include "hadal/engine.h"
#include "hadal/error.h"
#include "hadal/posttrain/answer_groups.h"
#include "hadal/posttrain/chat_data.h"
#include "hadal/rewards/math_answer.h"
#include "hadal/rewards/reward.h"
#include "hadal/rewards/task_score.h"

namespace hadal {
namespace {

constexpr int64_t kInFlight = 512;  // requests given to the engine: enough to keep its batch full

struct Sample {
  Completion completion;
  std::string finish;
  double right = 0, form = 0;  // NaN: cannot be scored
  std::string verdict, answer;
};

struct Question {
  std::vector<int32_t> prompt;
  std::string prefill;
  std::vector<Sample> samples;
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
    for (const Task& task : tasks_) questions_.push_back(question(task));
  }

  void run() {
    size_t next = 0;
    const size_t all = questions_.size() * static_cast<size_t>(o_.samples);
    while (next < all || !engine_.idle()) {
      for (; next < all && static_cast<int64_t>(running_.size()) < kInFlight; ++next) submit(next);
      for (const Delta& delta : engine_.step()) take(delta);
    }
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
    one.prompt = prompt_ids(task, tokenizer, format_);
    if (format_ && format_->render(messages_of(task)).ends_with("<think>\n")) one.prefill = "<think>\n";
    if (static_cast<int64_t>(one.prompt.size()) >= engine_.context())
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[cli.eval] task ", task.id, " has ", one.prompt.size(),
                      " tokens, the model's context ", engine_.context(), ". Leave it out of the file."));
    return one;
  }

  // The draws of a sample are a function of the seed, the question's place and its own number.
  void submit(size_t index) {
    const size_t q = index / static_cast<size_t>(o_.samples),
                 sample = index % static_cast<size_t>(o_.samples);
    Request request{.prompt = questions_[q].prompt, .max_tokens = o_.max_tokens};
    request.sampling.temperature = o_.temperature;
    request.sampling.top_p = o_.top_p;
    const auto bits = philox(o_.seed, q, sample);
    request.sampling.seed = uint64_t{bits[0]} << 32 | bits[1];
    running_[engine_.submit(std::move(request))] = {q, sample};
  }

  void take(const Delta& delta) {
    const auto at = running_.find(delta.request);
    if (at == running_.end()) return;
    const auto [q, s] = at->second;
    Sample& sample = questions_[q].samples[s];
    sample.completion.text += delta.text;
    for (const NewToken& token : delta.tokens) sample.completion.ids.push_back(token.id);
    if (!delta.finished) return;
    running_.erase(at);
    sample.finish = name(*delta.finished);
    sample.completion.stopped = *delta.finished == FinishReason::kEndToken;
    sample.completion.prefill = questions_[q].prefill;
    judge(tasks_[q], sample);
  }

  void judge(const Task& task, Sample& sample) const {
    const RewardResult result = rewards_.score(task, sample.completion);
    const RewardScore &accuracy = result.part("accuracy")->score, &form = result.part("format")->score;
    sample.right = std::isnan(accuracy.value) ? accuracy.value : (accuracy.value >= 1 ? 1 : 0);
    sample.form = form.value;
    sample.verdict = accuracy.verdict;
    const bool voted = accuracy.verdict == "right" || accuracy.verdict == "wrong";
    if (voted && task.verifier != "code") sample.answer = accuracy.detail;
  }

  const EvalOptions& o_;
  std::vector<Task> tasks_;
  Engine engine_;
  std::optional<ChatTemplate> format_;
  RewardSet rewards_;
  std::vector<Question> questions_;
  std::unordered_map<RequestId, std::pair<size_t, size_t>> running_;
};

QuestionSamples samples_of(const Task& task, const Question& question, const EvalOptions& o) {
  QuestionSamples out{.id = task.id};
  std::vector<std::string> answers;
  for (const Sample& sample : question.samples)
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
      const Sample& sample = run.questions()[q].samples[s];
      Json one{{"text", sample.completion.text}, {"right", nullptr}, {"verdict", sample.verdict}};
      if (!std::isnan(sample.right)) one["right"] = sample.right;
      one["format"] = sample.form;
      one["class"] = found[q].answers[s];
      one["tokens"] = sample.completion.ids.size();
      one["finish"] = sample.finish;
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
      const Sample& sample = run.questions()[q].samples[s];
      right += one.right[s] == 1, form += sample.form, cut += !sample.completion.stopped;
      tokens += static_cast<double>(sample.completion.ids.size());
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

void print_figures(const EvalOptions& o, const TaskEvaluation& run, const Figures& figures, double seconds) {
  std::map<std::string, int64_t> verdicts;
  int64_t unscorable = 0;
  for (const Question& question : run.questions())
    for (const Sample& sample : question.samples)
      ++verdicts[sample.verdict], unscorable += std::isnan(sample.right);
  if (o.json) {
    Json out{{"model", o.model}, {"task", o.task}, {"tasks", run.tasks().size()}, {"samples", o.samples}};
    out.update({{"temperature", o.temperature}, {"top_p", o.top_p}, {"max_tokens", o.max_tokens}});
    out.update({{"seed", o.seed}, {"profile", o.profile}, {"unscorable", unscorable}});
    for (const auto& [key, value] : figures) out[key] = {{"mean", value.mean}, {"error", value.error}};
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
  print_figures(o, run, figures_of(run, found, o), now_seconds() - start);
  return 0;
}

}  // namespace hadal
