#include "hadal/server/wait_estimate.h"

#include <algorithm>
#include <cmath>

namespace hadal {
namespace {

constexpr double kMemorySeconds = 3;    // of work, for rates
constexpr int64_t kMemoryAnswers = 64;  // for their mean length

}  // namespace

void WaitEstimate::Rate::add(double more_seconds, double more_rows) {
  const double kept = std::exp(-more_seconds / kMemorySeconds);
  seconds = seconds * kept + more_seconds;
  rows = rows * kept + more_rows;
}

void WaitEstimate::add_step(double seconds, int64_t prompt_rows, int64_t tokens) {
  const auto rows = static_cast<double>(prompt_rows + tokens);
  if (rows <= 0 || seconds <= 0) return;
  const auto part = [&](int64_t of) { return static_cast<double>(of) / rows * seconds; };
  if (prompt_rows > 0) prompts_.add(part(prompt_rows), static_cast<double>(prompt_rows));
  if (tokens > 0) tokens_.add(part(tokens), static_cast<double>(tokens));
}

void WaitEstimate::add_answer(int64_t tokens) {
  num_answers_ = std::min(num_answers_ + 1, kMemoryAnswers);
  mean_answer_ += (static_cast<double>(tokens) - mean_answer_) / static_cast<double>(num_answers_);
}

// Tokens that an answer has still to go. One longer than the mean goes on for half of it.
double WaitEstimate::expected_rest(int64_t generated, int64_t at_most) const {
  const double left = static_cast<double>(std::max<int64_t>(1, at_most - generated));
  const double to_mean = mean_answer_ - static_cast<double>(generated);
  return std::min(left, to_mean > 0 ? to_mean : mean_answer_ / 2);
}

double WaitEstimate::seconds(const WaitingWork& work, int64_t slots) const {
  const double prompts = static_cast<double>(work.prompt_tokens) * prompts_.seconds_per_row();
  const auto begun = static_cast<int64_t>(work.generated.size());
  slots = std::max<int64_t>(1, slots);
  const int64_t must_end = begun + work.requests - slots;
  if (must_end <= 0) return prompts;
  std::vector<double> rest(static_cast<size_t>(std::max(slots, begun)), mean_answer_);
  for (size_t i = 0; i < work.generated.size(); ++i)
    rest[i] = expected_rest(work.generated[i], work.at_most[i]);
  const auto turn = rest.begin() + (must_end - 1) % slots;
  std::nth_element(rest.begin(), turn, rest.end());
  // Whole rounds are answers that have not begun.
  const double tokens = *turn + static_cast<double>((must_end - 1) / slots) * mean_answer_;
  return prompts + tokens * static_cast<double>(slots) * tokens_.seconds_per_row();
}

}  // namespace hadal
