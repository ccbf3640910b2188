#include "hadal/posttrain/judgement.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "hadal/base/json.h"
#include "hadal/base/text.h"
#include "hadal/posttrain/json_lines.h"

namespace hadal {
namespace {

constexpr std::string_view kScores = "Scores:", kMatch = "Match:";
constexpr int64_t kLeast = 1, kMost = 10;

std::string_view without_blanks(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

bool is_verdict(std::string_view line) {
  return without_blanks(line).starts_with(kScores) || without_blanks(line).starts_with(kMatch);
}

void each_line(std::string_view text, auto&& visit) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    visit(text.substr(begin, end - begin));
    begin = end + 1;
  }
}

// What follows `word` in the last line that begins with it.
std::optional<std::string_view> last_line(std::string_view text, std::string_view word) {
  std::optional<std::string_view> found;
  each_line(text, [&](std::string_view line) {
    line = without_blanks(line);
    if (line.starts_with(word)) found = without_blanks(line.substr(word.size()));
  });
  return found;
}

std::string without_verdicts(std::string_view text) {
  std::string out;
  bool first = true;
  each_line(text, [&](std::string_view line) {
    if (is_verdict(line)) return;
    out += (first ? "" : "\n") + std::string(line);
    first = false;
  });
  return out;
}

std::string final_part(const std::string& response) {
  const size_t end = response.rfind("</think>");
  return end == std::string::npos ? response : response.substr(end + 8);
}

void read_label(const JsonLine& line, JudgedAnswers& out) {
  const auto count = std::ssize(out.responses);
  if (line.has("scores")) {
    const Json& scores = line.object()["scores"];
    if (!scores.is_array() || std::ssize(scores) != count)
      line.fail("\"scores\" is no list with a number for each response", "Correct the line.");
    for (const Json& score : scores) {
      if (!score.is_number_integer() || score.get<int64_t>() < kLeast || score.get<int64_t>() > kMost)
        line.fail(cat("\"scores\" holds ", dump_json(score), ", need integers from 1 to 10"), "Correct it.");
      out.scores.push_back(score.get<int64_t>());
    }
    const auto top = std::max_element(out.scores.begin(), out.scores.end());
    if (std::count(out.scores.begin(), out.scores.end(), *top) == 1) out.best = top - out.scores.begin();
  }
  if (line.has("best")) {
    const Json& best = line.object()["best"];
    if (!best.is_number_integer() || best.get<int64_t>() < 0 || best.get<int64_t>() >= count)
      line.fail(cat("\"best\" is ", dump_json(best), ", need the index of a response from 0"), "Correct it.");
    if (out.best >= 0 && out.best != best.get<int64_t>())
      line.fail("\"best\" is not the response with the highest of \"scores\"", "Give one of them.");
    out.best = best.get<int64_t>();
  }
  if (!line.has("match")) return;
  if (!line.object()["match"].is_boolean() || !out.reference)
    line.fail("\"match\" needs true or false, and a \"reference\"", "Correct the line.");
  out.match = line.object()["match"].get<bool>();
}

double deviation(const std::vector<double>& values) {
  double mean = 0, squares = 0;
  const auto n = static_cast<double>(values.size());
  for (const double x : values) mean += x / n;
  for (const double x : values) squares += (x - mean) * (x - mean) / n;
  return std::sqrt(squares);
}

}  // namespace

JudgedAnswers judged_answers(const JsonLine& line) {
  JudgedAnswers out;
  out.prompt = line.is_text("prompt")
                   ? std::vector<ChatMessage>{{.role = "user", .content = line.text("prompt")}}
                   : line.messages("prompt");
  if (out.prompt.empty()) line.fail("has an empty prompt", "Say what was asked.");
  if (!line.has("responses") || !line.object()["responses"].is_array() || line.is_empty("responses"))
    line.fail("\"responses\" is missing or no list of texts", "Give the answers to be judged.");
  for (const Json& response : line.object()["responses"]) {
    if (!response.is_string())
      line.fail("\"responses\" holds something that is no text", "Correct the line.");
    out.responses.push_back(response.get<std::string>());
  }
  if (line.has("reference")) out.reference = line.text("reference");
  if (out.reference && out.responses.size() != 1)
    line.fail("has a \"reference\" and more than one response", "Give one line for each response.");
  if (line.has("critique")) out.critique = line.text("critique");
  read_label(line, out);
  return out;
}

std::vector<JudgedAnswers> read_judged(const std::filesystem::path& file) {
  std::vector<JudgedAnswers> out;
  each_json_line(file, [&](const JsonLine& line) { out.push_back(judged_answers(line)); });
  return out;
}

std::vector<ChatMessage> judge_messages(const JudgedAnswers& answers, std::span<const int64_t> order) {
  std::vector<ChatMessage> out = answers.prompt;
  for (const int64_t i : order) {
    const std::string& response = answers.responses[static_cast<size_t>(i)];
    out.push_back({.role = "assistant",
                   .content = without_verdicts(answers.reference ? final_part(response) : response)});
  }
  const std::string ask =
      answers.reference
          ? cat("The right answer is ", *answers.reference, ". Is this the same? End with Match: yes or no.")
          : cat("Judge the ", order.size() == 1 ? "answer" : cat(order.size(), " answers"),
                ". End with Scores: [1 to 10 for each].");
  out.push_back({.role = "user", .content = ask});
  return out;
}

std::optional<std::vector<int64_t>> parse_scores(std::string_view text, int64_t count) {
  const auto found = last_line(text, kScores);
  if (!found || found->size() < 2 || found->front() != '[' || found->back() != ']') return std::nullopt;
  std::string_view list = found->substr(1, found->size() - 2);
  std::vector<int64_t> scores;
  for (bool more = true; more;) {
    const size_t comma = list.find(',');
    more = comma != list.npos;
    const std::string_view one = without_blanks(list.substr(0, comma));
    if (more) list.remove_prefix(comma + 1);
    int64_t score = 0;
    const auto [end, error] = std::from_chars(one.data(), one.data() + one.size(), score);
    if (error != std::errc() || end != one.data() + one.size() || score < kLeast || score > kMost ||
        std::ssize(scores) == count)
      return std::nullopt;
    scores.push_back(score);
  }
  if (std::ssize(scores) != count) return std::nullopt;
  return scores;
}

std::optional<bool> parse_match(std::string_view text) {
  const auto found = last_line(text, kMatch);
  if (!found || (*found != "yes" && *found != "no")) return std::nullopt;
  return *found == "yes";
}

Judgement read_judgement(std::string text, const JudgedAnswers& answers, std::vector<int64_t> order) {
  Judgement out{.text = std::move(text), .order = std::move(order)};
  if (answers.reference) {
    out.match = parse_match(out.text);
  } else if (const auto scores = parse_scores(out.text, std::ssize(out.order))) {
    out.scores.resize(scores->size());
    for (size_t i = 0; i < scores->size(); ++i) out.scores[static_cast<size_t>(out.order[i])] = (*scores)[i];
  }
  return out;
}

Vote count_votes(std::span<const Judgement> judgements, const JudgedAnswers& answers) {
  Vote vote;
  int64_t yes = 0;
  std::vector<std::vector<double>> scores(answers.responses.size());
  for (const Judgement& one : judgements) {
    if (!one.valid()) continue;
    ++vote.valid;
    yes += one.match.value_or(false);
    for (size_t i = 0; i < one.scores.size(); ++i) scores[i].push_back(static_cast<double>(one.scores[i]));
  }
  if (vote.valid == 0) return vote;
  if (answers.reference) {
    if (2 * yes != vote.valid) vote.match = 2 * yes > vote.valid;
    vote.disagreement =
        static_cast<double>(std::min(yes, vote.valid - yes)) / static_cast<double>(vote.valid);
    return vote;
  }
  for (const std::vector<double>& of_one : scores) {
    double sum = 0;
    for (const double x : of_one) sum += x;
    vote.mean_scores.push_back(sum / static_cast<double>(vote.valid));
    vote.disagreement += deviation(of_one) / static_cast<double>(scores.size());
  }
  const auto top = std::max_element(vote.mean_scores.begin(), vote.mean_scores.end());
  if (std::count(vote.mean_scores.begin(), vote.mean_scores.end(), *top) == 1)
    vote.best = top - vote.mean_scores.begin();
  return vote;
}

bool is_right(const Vote& vote, const JudgedAnswers& answers) {
  if (vote.valid == 0) return false;
  if (answers.reference) return vote.match && vote.match == answers.match;
  if (answers.responses.size() == 1)
    return !answers.scores.empty() && std::llround(vote.mean_scores[0]) == answers.scores[0];
  return answers.best >= 0 && vote.best == answers.best;
}

}  // namespace hadal
