#include "hadal/posttrain/judge.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/error.h"
#include "hadal/posttrain/rollout.h"

namespace hadal {
namespace {

std::vector<int64_t> order_of(size_t count, bool turned) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (turned) std::reverse(order.begin(), order.end());
  return order;
}

Json messages_json(std::span<const ChatMessage> messages) {
  Json out = Json::array();
  for (const ChatMessage& message : messages) {
    Json one{{"role", message.role}, {"content", message.content.value_or("")}};
    if (message.reasoning) one["reasoning_content"] = *message.reasoning;
    out.push_back(std::move(one));
  }
  return out;
}

bool one_is_right(const Judgement& judgement, const JudgedAnswers& item) {
  return is_right(count_votes({&judgement, 1}, item), item);
}

}  // namespace

std::vector<std::vector<Judgement>> Judge::judge(std::span<const JudgedAnswers> items,
                                                 std::span<const int64_t> draws) {
  const Tokenizer& tokenizer = *engine_.tokenizer();
  const ChatOptions options{.add_generation_prompt = true, .keep_reasoning = true};
  std::vector<SampleRequest> requests;
  std::vector<std::pair<size_t, bool>> asked;  // item, turned
  for (size_t i = 0; i < items.size(); ++i) {
    const int64_t draw = draws.empty() ? static_cast<int64_t>(i) : draws[i];
    const uint64_t seed = sample_seed(config_.seed, draw, -1);
    std::shared_ptr<const std::vector<int32_t>> prompts[2];
    for (const bool turned : {false, true})
      prompts[turned] = std::make_shared<const std::vector<int32_t>>(
          format_
              .encode_pieces(tokenizer, judge_messages(items[i], order_of(items[i].responses.size(), turned)),
                             options)
              .ids);
    if (std::ssize(*prompts[0]) + config_.max_tokens > engine_.context()) continue;
    for (const bool turned : {false, true})  // those of one prompt together: they share what is computed
      for (int64_t k = 0; k < config_.votes; ++k) {
        if (((static_cast<uint64_t>(k) + seed) % 2 == 1) != turned) continue;
        SampleRequest request{.prompt = prompts[turned], .max_tokens = config_.max_tokens};
        request.sampling.temperature = static_cast<float>(config_.temperature);
        request.sampling.seed = sample_seed(config_.seed, draw, k);
        requests.push_back(std::move(request)), asked.emplace_back(i, turned);
      }
  }
  std::vector<Sample> samples = sample_all(engine_, requests);
  // By turns again, so that any few of them have seen both orders.
  std::vector<std::array<std::vector<Judgement>, 2>> by_order(items.size());
  for (size_t s = 0; s < samples.size(); ++s) {
    const auto [i, turned] = asked[s];
    by_order[i][turned].push_back(
        read_judgement(std::move(samples[s].text), items[i], order_of(items[i].responses.size(), turned)));
  }
  std::vector<std::vector<Judgement>> out(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const size_t larger = by_order[i][1].size() > by_order[i][0].size();
    for (size_t k = 0; k < by_order[i][larger].size(); ++k)
      for (const size_t turned : {larger, 1 - larger})
        if (k < by_order[i][turned].size()) out[i].push_back(std::move(by_order[i][turned][k]));
  }
  return out;
}

JudgeReport judge_report(std::span<const JudgedAnswers> items,
                         std::span<const std::vector<Judgement>> judgements) {
  JudgeReport report{.items = std::ssize(items)};
  size_t most = 0;
  int64_t valid = 0, false_accept = 0, false_reject = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::vector<Judgement>& mine = judgements[i];
    most = std::max(most, mine.size());
    report.judgements += std::ssize(mine), report.unjudged += mine.empty();
    for (const Judgement& one : mine) valid += one.valid();
    const Vote vote = count_votes(mine, items[i]);
    report.disagreement += vote.disagreement / static_cast<double>(items.size());
    if (!items[i].reference || !items[i].match) continue;
    *items[i].match ? ++report.matching : ++report.differing;
    false_reject += *items[i].match && vote.match != true,
        false_accept += !*items[i].match && vote.match == true;
  }
  const auto share = [](int64_t part, int64_t all) {
    return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, all));
  };
  report.valid = share(valid, report.judgements);
  report.false_accept = share(false_accept, report.differing);
  report.false_reject = share(false_reject, report.matching);
  for (size_t k = 1; k <= most; k *= 2) {
    double sum = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      int64_t right = 0, groups = 0;
      for (size_t at = 0; at + k <= judgements[i].size(); at += k, ++groups)
        right += is_right(count_votes(std::span(judgements[i]).subspan(at, k), items[i]), items[i]);
      sum += share(right, groups);
    }
    report.right.emplace_back(k, sum / static_cast<double>(items.size()));
  }
  return report;
}

std::string report_text(const JudgeReport& r) {
  char line[200];
  std::snprintf(line, sizeof line, "%lld items, %lld judgements, %.1f %% of them valid, disagreement %.2f\n",
                static_cast<long long>(r.items), static_cast<long long>(r.judgements), 100 * r.valid,
                r.disagreement);
  std::string out = line;
  if (r.unjudged > 0) out += cat(r.unjudged, " items do not fit the context and count as wrong\n");
  for (const auto& [k, right] : r.right) {
    std::snprintf(line, sizeof line, "right with %2lld vote%s %6.2f %%\n", static_cast<long long>(k),
                  k == 1 ? " " : "s", 100 * right);
    out += line;
  }
  if (r.matching + r.differing == 0) return out;
  std::snprintf(line, sizeof line, "false accepts %.2f %%, false rejects %.2f %%\n", 100 * r.false_accept,
                100 * r.false_reject);
  return out + line;
}

std::string report_json(const JudgeReport& r) {
  Json right = Json::array();
  for (const auto& [k, share] : r.right) right.push_back({{"votes", k}, {"right", share}});
  Json out{{"items", r.items}, {"judgements", r.judgements},     {"unjudged", r.unjudged},
           {"valid", r.valid}, {"disagreement", r.disagreement}, {"right", right}};
  if (r.matching + r.differing > 0)
    out["false_accept"] = r.false_accept, out["false_reject"] = r.false_reject;
  return dump_json(out, 1) + "\n";
}

std::string right_judgements(std::span<const JudgedAnswers> items,
                             std::span<const std::vector<Judgement>> judgements) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    const auto right = [&](const Judgement& one) { return one_is_right(one, items[i]); };
    if (std::all_of(judgements[i].begin(), judgements[i].end(), right)) continue;
    for (const Judgement& one : judgements[i]) {
      if (!right(one)) continue;
      std::vector<ChatMessage> chat = judge_messages(items[i], one.order);
      Json messages = messages_json(chat);
      out +=
          dump_json({{"prompt", messages},
                     {"completion",
                      messages_json(std::vector<ChatMessage>{{.role = "assistant", .content = one.text}})}}) +
          "\n";
    }
  }
  return out;
}

std::string judge_tasks(std::span<const JudgedAnswers> items) {
  std::string out;
  for (const JudgedAnswers& item : items) {
    if (!item.has_label()) continue;
    const size_t count = item.responses.size();
    for (const bool turned : {false, true}) {
      if (turned && count == 1) continue;
      const std::vector<int64_t> order = order_of(count, turned);
      Json task{{"prompt", messages_json(judge_messages(item, order))}, {"verifier", "verdict"}};
      if (item.reference) {
        task["match"] = item.match.value_or(false);
      } else {
        task["responses"] = count;
        if (count > 1) task["best"] = turned ? static_cast<int64_t>(count) - 1 - item.best : item.best;
        if (count == 1) task["score"] = item.scores.empty() ? 0 : item.scores[0];
      }
      out += dump_json(task) + "\n";
    }
  }
  return out;
}

}  // namespace hadal
