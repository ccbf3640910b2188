// Needles: one fact in a text of other facts and filler, asked for where the text ends.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/rewards/made_tasks.h"

namespace hadal {
namespace {

using Words = std::vector<const char*>;

const Words kNames = {"Ada", "Ben",  "Cleo", "Dan", "Eva", "Finn", "Gus", "Hal", "Ida", "Jon", "Kay",
                      "Leo", "Mia",  "Ned",  "Ola", "Pam", "Quin", "Rex", "Sal", "Tom", "Una", "Vic",
                      "Wes", "Xena", "Yan",  "Zoe", "Abe", "Bea",  "Cal", "Dot", "Eli", "Fay"};
const Words kValues = {"amber", "apple", "arrow", "basil", "bell",  "bird",  "cedar", "chalk",
                       "clay",  "cloud", "coral", "cork",  "daisy", "drum",  "eagle", "ember",
                       "fern",  "flint", "frost", "glass", "grape", "hazel", "honey", "iron",
                       "ivory", "jade",  "kite",  "lamp",  "leaf",  "lemon", "lily",  "maple"};
const Words kAdjectives = {"old", "grey", "quiet", "tall", "young", "tired", "busy", "small"};
const Words kNouns = {"sailor", "farmer", "baker", "miller", "weaver", "teacher", "pilot", "fisher"};
const Words kVerbs = {"walks", "waits", "sings", "reads", "sleeps", "works", "listens", "rests"};
const Words kAdverbs = {"slowly", "here", "today", "alone", "again", "often", "outside", "early"};

// A full stop counts as a word: it is a token too.
constexpr int64_t kFactWords = 3, kQuestionWords = 2, kLeastFiller = 4, kMostFiller = 8;

// May a sentence of so many words come where so many are left? What is left then is nothing or a sentence.
bool fits(int64_t words, int64_t left) {
  return words == left || words <= left - kFactWords;
}

std::string fact(const char* name, const char* value) {
  return cat(name, " ", value, ".");
}

std::string filler(TaskRandom& random, int64_t words) {
  const int64_t more = words - kLeastFiller, adjectives = random.between(0, more);
  std::string text = "The ";
  for (int64_t i = 0; i < adjectives; ++i) text += cat(random.one_of(kAdjectives), " ");
  text += cat(random.one_of(kNouns), " ", random.one_of(kVerbs));
  for (int64_t i = adjectives; i < more; ++i) text += cat(" ", random.one_of(kAdverbs));
  return text + ".";
}

struct Sentence {
  std::string text;
  int64_t words;
};

// Exactly `words` of them. Facts about `names`, each with its one value, as often as they come; the rest is
// filler. How many facts there are differs from text to text.
std::vector<Sentence> haystack(TaskRandom& random, int64_t words, const Words& names, const Words& values) {
  const int64_t facts_of_ten = random.between(5, 10);
  std::vector<Sentence> sentences;
  for (int64_t left = words; left > 0; left -= sentences.back().words) {
    const bool may = fits(kFactWords, left), must = left < kLeastFiller;
    if (must || (may && random.between(1, 10) <= facts_of_ten)) {
      const auto which = static_cast<size_t>(random.between(0, std::ssize(names) - 1));
      sentences.push_back({fact(names[which], values[which]), kFactWords});
    } else {
      std::vector<int64_t> sizes;
      for (int64_t size = kLeastFiller; size <= kMostFiller; ++size)
        if (fits(size, left)) sizes.push_back(size);
      const int64_t size = random.one_of(sizes);
      sentences.push_back({filler(random, size), size});
    }
  }
  return sentences;
}

// Before which sentence so many percent of the words are over, as nearly as sentences end.
size_t sentence_at(const std::vector<Sentence>& sentences, int64_t words, int64_t percent) {
  const double wanted = static_cast<double>(words * percent) / 100;
  size_t best = 0;
  double begin = 0, distance = wanted;
  for (size_t i = 0; i < sentences.size(); ++i) {
    begin += static_cast<double>(sentences[i].words);
    if (std::abs(begin - wanted) < distance) best = i + 1, distance = std::abs(begin - wanted);
  }
  return best;
}

}  // namespace

MadeTask needle(TaskRandom& random, int64_t level) {
  Words names = kNames;
  for (size_t i = names.size() - 1; i > 0; --i)
    std::swap(names[i], names[static_cast<size_t>(random.between(0, static_cast<int64_t>(i)))]);
  const char* asked = names.back();
  names.pop_back();
  // A name stands about three times in a text, until all names do.
  names.resize(static_cast<size_t>(std::clamp<int64_t>(level / 16, 4, std::ssize(names))));
  Words values;
  for (size_t i = 0; i < names.size(); ++i) values.push_back(random.one_of(kValues));
  const char* value = random.one_of(kValues);

  const int64_t depth = 10 * random.between(0, 10), words = level - kFactWords - kQuestionWords;
  std::vector<Sentence> sentences = haystack(random, words, names, values);
  const size_t at = sentence_at(sentences, words, depth);
  sentences.insert(sentences.begin() + static_cast<std::ptrdiff_t>(at), {fact(asked, value), kFactWords});
  MadeTask task{.verifier = "exact", .answer = value, .solution = value, .continued = true};
  for (const Sentence& sentence : sentences) task.prompt += sentence.text + " ";
  task.prompt += asked;
  task.columns = {{"length", level}, {"depth", depth}};
  task.thought = cat("The text says: ", fact(asked, value));
  return task;
}

}  // namespace hadal
