#include "hadal/rewards/task_score.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "hadal/base/check.h"
#include "hadal/base/file.h"
#include "hadal/base/json.h"
#include "hadal/base/random.h"
#include "hadal/base/text.h"
#include "hadal/error.h"

namespace hadal {
namespace {

constexpr int64_t kMostSubsets = 1000;

// C(n, k), or kMostSubsets + 1 if it is more.
int64_t subsets(int64_t n, int64_t k) {
  double count = 1;
  for (int64_t i = 1; i <= k; ++i) count = count * static_cast<double>(n - k + i) / static_cast<double>(i);
  return count > static_cast<double>(kMostSubsets) ? kMostSubsets + 1 : std::llround(count);
}

// What the vote of these samples is worth.
double vote(const QuestionSamples& question, const std::vector<size_t>& chosen) {
  struct Votes {
    int64_t count = 0;
    double right = 0;
  };
  std::map<int64_t, Votes> votes;
  for (const size_t i : chosen)
    if (question.answers[i] >= 0) {
      Votes& one = votes[question.answers[i]];
      ++one.count;
      one.right += question.right[i];
    }
  int64_t most = 0;
  for (const auto& [answer, one] : votes) most = std::max(most, one.count);
  double worth = 0, winners = 0;
  for (const auto& [answer, one] : votes)
    if (one.count == most) worth += one.right / static_cast<double>(one.count), ++winners;
  return winners == 0 ? 0 : worth / winners;
}

std::vector<size_t> random_subset(size_t n, size_t k, uint64_t seed, uint64_t round) {
  std::vector<size_t> all(n);
  std::iota(all.begin(), all.end(), size_t{0});
  for (size_t i = 0; i < k; ++i) {
    const double u = 1 - uniform(seed, round, i);
    std::swap(all[i], all[i + static_cast<size_t>(u * static_cast<double>(n - i))]);
  }
  all.resize(k);
  return all;
}

}  // namespace

double pass_at_k(int64_t n, int64_t c, int64_t k) {
  HADAL_CHECK(0 <= c && c <= n && 1 <= k && k <= n) << n << " " << c << " " << k;
  if (n - c < k) return 1;
  double none = 1;
  for (int64_t i = n - c + 1; i <= n; ++i) none *= 1 - static_cast<double>(k) / static_cast<double>(i);
  return 1 - none;
}

double vote_at_k(const QuestionSamples& question, int64_t k, uint64_t seed) {
  const auto n = static_cast<int64_t>(question.right.size());
  HADAL_CHECK(1 <= k && k <= n && question.answers.size() == question.right.size());
  double sum = 0;
  if (subsets(n, k) > kMostSubsets) {
    for (int64_t round = 0; round < kMostSubsets; ++round)
      sum += vote(question, random_subset(static_cast<size_t>(n), static_cast<size_t>(k), seed,
                                          static_cast<uint64_t>(round)));
    return sum / static_cast<double>(kMostSubsets);
  }
  std::vector<char> in(static_cast<size_t>(n), 0);
  std::fill(in.begin(), in.begin() + k, 1);
  int64_t count = 0;
  do {
    std::vector<size_t> chosen;
    for (size_t i = 0; i < in.size(); ++i)
      if (in[i]) chosen.push_back(i);
    sum += vote(question, chosen);
    ++count;
  } while (std::prev_permutation(in.begin(), in.end()));
  return sum / static_cast<double>(count);
}

double best_at_k(const QuestionSamples& question, int64_t k) {
  const size_t n = question.right.size();
  HADAL_CHECK(1 <= k && k <= static_cast<int64_t>(n) && question.scores.size() == n);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return question.scores[a] > question.scores[b]; });
  // Samples of equal score form a level; it decides if one of it and none above it is among the k.
  double sum = 0, none_above = 1;
  for (size_t begin = 0; begin < n;) {
    size_t end = begin;
    double right = 0;
    while (end < n && question.scores[order[end]] == question.scores[order[begin]])
      right += question.right[order[end++]];
    const double none = end + static_cast<size_t>(k) > n
                            ? 0
                            : 1 - pass_at_k(static_cast<int64_t>(n), static_cast<int64_t>(end), k);
    sum += (none_above - none) * right / static_cast<double>(end - begin);
    none_above = none;
    begin = end;
  }
  return sum;
}

Estimate estimate(const std::vector<double>& per_question) {
  const auto n = static_cast<double>(per_question.size());
  if (per_question.empty()) return {};
  const double mean = std::accumulate(per_question.begin(), per_question.end(), 0.0) / n;
  double squares = 0;
  for (const double one : per_question) squares += (one - mean) * (one - mean);
  return {mean, n < 2 ? 0 : std::sqrt(squares / (n - 1) / n)};
}

PairedDifference paired_bootstrap(const std::vector<double>& first, const std::vector<double>& second,
                                  uint64_t seed, int64_t rounds) {
  const size_t n = first.size();
  HADAL_CHECK(n > 0 && second.size() == n && rounds >= 40);
  std::vector<double> difference(n);
  for (size_t i = 0; i < n; ++i) difference[i] = second[i] - first[i];
  std::vector<double> means;
  for (int64_t round = 0; round < rounds; ++round) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) {
      const double u = 1 - uniform(seed, static_cast<uint64_t>(round), i);
      sum += difference[static_cast<size_t>(u * static_cast<double>(n))];
    }
    means.push_back(sum / static_cast<double>(n));
  }
  std::sort(means.begin(), means.end());
  const auto at = [&](double share) {
    return means[static_cast<size_t>(share * static_cast<double>(rounds - 1))];
  };
  return {estimate(difference).mean, at(0.025), at(0.975), static_cast<int64_t>(n)};
}

std::vector<int64_t> answer_classes(const std::vector<std::string>& answers,
                                    const std::function<bool(const std::string&, const std::string&)>& same) {
  std::vector<int64_t> classes;
  std::vector<std::string> first;  // of each class
  for (const std::string& one : answers) {
    if (one.empty()) {
      classes.push_back(-1);
      continue;
    }
    size_t k = 0;
    while (k < first.size() && first[k] != one && !same(first[k], one)) ++k;
    if (k == first.size()) first.push_back(one);
    classes.push_back(static_cast<int64_t>(k));
  }
  return classes;
}

std::vector<QuestionSamples> read_task_results(const std::filesystem::path& path) {
  std::vector<QuestionSamples> questions;
  const std::string content = read_file(path);
  int64_t number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string source = cat(path.string(), ":", ++number);
    const Json line = parse_json(std::string_view(content).substr(begin, end - begin), source);
    begin = end + 1;
    try {
      QuestionSamples one{.id = line.at("id").get<std::string>()};
      for (const Json& sample : line.at("samples")) {
        one.right.push_back(sample.at("right").is_null() ? 0 : sample.at("right").get<double>());
        one.answers.push_back(sample.value("class", int64_t{-1}));
      }
      if (one.right.empty())
        throw Error(ErrorCode::kCorrupt, cat("[rewards.results] ", source, ": no samples."));
      questions.push_back(std::move(one));
    } catch (const Json::exception&) {
      throw Error(ErrorCode::kCorrupt,
                  cat("[rewards.results] ", source,
                      ": no result of a task, which has an id and samples. Give a file that "
                      "`hadal eval --out` wrote."));
    }
  }
  return questions;
}

PairedDifference compare_results(const std::vector<QuestionSamples>& first,
                                 const std::vector<QuestionSamples>& second, uint64_t seed) {
  std::map<std::string, const QuestionSamples*> by_id;
  for (const QuestionSamples& one : second) by_id[one.id] = &one;
  std::vector<double> a, b;
  for (const QuestionSamples& one : first) {
    const auto other = by_id.find(one.id);
    if (other == by_id.end() || first.size() != second.size())
      throw Error(ErrorCode::kInvalidArgument, cat("[rewards.results] the files answer different questions: ",
                                                   first.size(), " and ", second.size(), ", the first has \"",
                                                   one.id, "\". Evaluate both models on one task file."));
    a.push_back(estimate(one.right).mean);
    b.push_back(estimate(other->second->right).mean);
  }
  if (a.empty()) throw Error(ErrorCode::kInvalidArgument, "[rewards.results] the files are empty.");
  return paired_bootstrap(a, b, seed);
}

}  // namespace hadal
