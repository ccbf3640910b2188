// What samples say about a model: pass@k, votes, best of k, and how sure that is.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace hadal {

// The chance that of k samples drawn without replacement from n, c of them right, at least one is right:
// 1 - C(n - c, k) / C(n, k), unbiased for k independent samples. Needs 0 <= c <= n, 1 <= k <= n.
double pass_at_k(int64_t n, int64_t c, int64_t k);

// One question's samples. `answers` are equivalence classes, -1: no answer, which has no vote.
struct QuestionSamples {
  std::string id;
  std::vector<double> right;     // 1 or 0, one a sample
  std::vector<int64_t> answers;  // beside right
  std::vector<double> scores;    // of a reward model, for best@k; empty: none
};

// Of k of the n samples the commonest answer decides; of several that are equally common each has its share.
// The mean over all subsets of k if there are at most 1,000, else over 1,000 drawn by `seed`.
double vote_at_k(const QuestionSamples& question, int64_t k, uint64_t seed);

// Of k of the n samples the one with the highest score decides; equal scores share. The mean over all
// subsets, exactly. Needs scores.
double best_at_k(const QuestionSamples& question, int64_t k);

struct Estimate {
  double mean = 0;
  double error = 0;  // standard error, clustered by question: sqrt(variance over questions / questions)
};
Estimate estimate(const std::vector<double>& per_question);

// Second less first on the same questions; from and to hold 95 % of the bootstrap of questions.
struct PairedDifference {
  double mean = 0, from = 0, to = 0;
  int64_t questions = 0;
};
PairedDifference paired_bootstrap(const std::vector<double>& first, const std::vector<double>& second,
                                  uint64_t seed, int64_t rounds = 10'000);

// A number for each answer, equal for those that `same` says are; "" has -1. same(a, b) compares b with a.
std::vector<int64_t> answer_classes(const std::vector<std::string>& answers,
                                    const std::function<bool(const std::string&, const std::string&)>& same);

// A file that hadal eval --out wrote. Throws corrupt with FILE:line.
std::vector<QuestionSamples> read_task_results(const std::filesystem::path& path);

// The share of right samples of the questions that are in both, in the same order. Throws invalid_argument if
// they are not the same questions.
PairedDifference compare_results(const std::vector<QuestionSamples>& first,
                                 const std::vector<QuestionSamples>& second, uint64_t seed);

}  // namespace hadal
