// hadal judge: a model writes what it thinks of answers, several times, and the judgements vote.
#include "hadal/posttrain/judge.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/flags.h"
#include "hadal/cli/output.h"
#include "hadal/error.h"
#include "hadal/posttrain/chat_data.h"

namespace hadal {

void add_judge(CLI::App& app, JudgeOptions& o) {
  file_flag(app, "MODEL", o.model, "folder of the model that judges", "DIR")->required();
  file_flag(app, "--data", o.data, "JSONL of answers with what is true of them: how often is it right?");
  app.add_option("--question", o.question, "instead: what was asked")->type_name("TEXT");
  app.add_option("--answer", o.answers, "an answer to it; may be given more than once")
      ->type_name("TEXT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--reference", o.reference, "the right answer: does the one given match it?")
      ->type_name("TEXT");
  count_flag(app, "--votes", o.votes, "judgements of each, the answers in both orders");
  not_negative_flag(app, "--temperature", o.temperature, "of sampling");
  count_flag(app, "--max-tokens", o.max_tokens, "of a judgement");
  file_flag(app, "--keep", o.keep, "write the right judgements as chats for hadal sft");
  file_flag(app, "--tasks", o.tasks, "write the answers as tasks, on which GRPO trains a judge");
  choice_flag(app, "--template", o.chat_template, "chat format instead of the tokenizer's own",
              ChatTemplate::names());
  number_flag(
      app, "--seed", o.seed, "of the samples", [](uint64_t) { return true; }, "an integer of at least 0");
  count_or_zero_flag(app, "--threads", o.threads, "0: all cores");
  json_flag(app, o.json);
}

namespace {

ChatTemplate format_of(const JudgeOptions& o, const Engine& engine) {
  if (!engine.tokenizer())
    throw Error(ErrorCode::kNotFound, cat("[cli.judge] ", o.model, " has no tokenizer.json. Add it."));
  const auto format = chat_format(*engine.tokenizer(), o.chat_template);
  if (!format)
    throw Error(ErrorCode::kUnsupported,
                cat("[cli.judge] ", o.model, " has no chat format. Name one: --template."));
  return *format;
}

int judge_one(const JudgeOptions& o, Judge& judge) {
  JudgedAnswers item{.prompt = {{.role = "user", .content = o.question}}, .responses = o.answers};
  if (!o.reference.empty()) item.reference = o.reference;
  if (item.reference && item.responses.size() != 1)
    throw Error(ErrorCode::kInvalidArgument, "[cli.judge] with --reference need one --answer.");
  const std::vector<Judgement> judgements = judge.judge({&item, 1})[0];
  const Vote vote = count_votes(judgements, item);
  if (o.json) {
    Json out{{"judgements", judgements.size()}, {"valid", vote.valid}, {"disagreement", vote.disagreement}};
    out["texts"] = Json::array();
    for (const Judgement& one : judgements) out["texts"].push_back(one.text);
    item.reference ? out["match"] = vote.match ? Json(*vote.match) : Json(nullptr)
                   : out["scores"] = vote.mean_scores;
    print(dump_json(out, 1) + "\n");
    return 0;
  }
  if (!judgements.empty()) print(judgements[0].text + "\n\n");
  std::string line = cat(vote.valid, " of ", judgements.size(), " judgements are valid");
  if (vote.match) line += *vote.match ? "; the answer matches" : "; the answer does not match";
  for (size_t i = 0; i < vote.mean_scores.size(); ++i) {
    char score[60];
    std::snprintf(score, sizeof score, "; answer %zu: %.2f", i + 1, vote.mean_scores[i]);
    line += score;
  }
  print(line + "\n");
  return 0;
}

}  // namespace

int run_judge(const JudgeOptions& o) {
  std::vector<JudgedAnswers> items;
  if (!o.data.empty()) items = read_judged(o.data);
  for (size_t i = 0; i < items.size(); ++i)
    if (!items[i].has_label())
      throw Error(ErrorCode::kInvalidArgument,
                  cat("[cli.judge] ", o.data, ", item ", i + 1, ": says neither \"best\" nor \"scores\" nor ",
                      "\"match\", so nobody knows what is right. Add one."));
  if (!o.tasks.empty()) write_file(o.tasks, judge_tasks(items));
  Engine engine = Engine::open(o.model, {.threads = static_cast<int>(o.threads)});
  Judge judge(engine, format_of(o, engine),
              {.votes = o.votes, .temperature = o.temperature, .max_tokens = o.max_tokens, .seed = o.seed});
  if (items.empty()) return judge_one(o, judge);
  const std::vector<std::vector<Judgement>> judgements = judge.judge(items);
  if (!o.keep.empty()) write_file(o.keep, right_judgements(items, judgements));
  const JudgeReport report = judge_report(items, judgements);
  print(o.json ? report_json(report) : report_text(report));
  return 0;
}

}  // namespace hadal
