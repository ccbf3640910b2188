// Word problems: someone has things, and what happens to them in a few steps.
#include "hadal/base/text.h"
#include "hadal/rewards/made_tasks.h"

namespace hadal {
namespace {

const std::vector<std::string> kNames = {"Ada",  "Ben", "Chen", "Dora", "Emil", "Fay",  "Gus",  "Hana",
                                         "Ivan", "Jun", "Kofi", "Lena", "Max",  "Nora", "Omar", "Pia"};
const std::vector<std::string> kThings = {"apples", "books", "coins",  "stones",
                                          "cards",  "pens",  "shells", "beads"};

struct Step {
  std::string text;     // "Ada buys 3 more."
  std::string thought;  // "5+3=8"
  int64_t value = 0;    // afterwards
};

Step gain(TaskRandom& random, int64_t value) {
  const int64_t n = random.between(2, 20);
  const std::string how = random.one_of<std::string>({"finds", "buys", "is given"});
  return {cat(" ", how, " ", n, " more."), cat(value, "+", n, "=", value + n), value + n};
}

Step loss(TaskRandom& random, int64_t value) {
  const int64_t n = random.between(1, value - 1);
  const std::string how = random.one_of<std::string>({"loses", "sells", "gives away"});
  return {cat(" ", how, " ", n, " of them."), cat(value, "-", n, "=", value - n), value - n};
}

Step multiple(TaskRandom& random, int64_t value) {
  const int64_t n = random.between(2, 4);
  return {cat(" then gets ", n - 1, n == 2 ? " time" : " times", " as many again as there are."),
          cat(value, "*", n, "=", value * n), value * n};
}

Step share(TaskRandom& random, int64_t value) {
  std::vector<int64_t> divisors;
  for (int64_t n = 2; n <= 6; ++n)
    if (value % n == 0 && value / n > 1) divisors.push_back(n);
  if (divisors.empty()) return gain(random, value);
  const int64_t n = random.one_of(divisors);
  return {cat(" shares them equally among ", n, " people and keeps one share."),
          cat(value, "/", n, "=", value / n), value / n};
}

Step step(TaskRandom& random, int64_t value) {
  switch (random.between(0, 3)) {
    case 0:
      return gain(random, value);
    case 1:
      return value > 2 ? loss(random, value) : gain(random, value);
    case 2:
      return value < 60 ? multiple(random, value) : gain(random, value);
    default:
      return share(random, value);
  }
}

}  // namespace

MadeTask word_problem(TaskRandom& random, int64_t level) {
  const std::string &name = random.one_of(kNames), &thing = random.one_of(kThings);
  int64_t value = random.between(3, 30);
  MadeTask task{.prompt = cat(name, " has ", value, " ", thing, "."), .verifier = "math"};
  for (int64_t i = 0; i < level; ++i) {
    const Step next = step(random, value);
    task.prompt += cat(" ", name, next.text);
    task.thought += (i == 0 ? "" : ", ") + next.thought;
    value = next.value;
  }
  task.prompt += cat(" How many ", thing, " does ", name, " have now?\n");
  task.answer = task.solution = std::to_string(value);
  return task;
}

}  // namespace hadal
