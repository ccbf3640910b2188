// Needles: one fact in a text of other facts and filler, asked for where the text ends.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "hadal/base/text.h"
#include "hadal/rewards/made_tasks.h"

namespace hadal {
namespace {

using Words = std::vector<const char*>;

// What a fact is about, and the words that it may give.
struct Topic {
  const char* name;
  Words words;
};
const std::vector<Topic> kTopics = {{"Colour",
                                     {"amber", "beige", "black", "blue", "brown", "coral", "gold", "green",
                                      "grey", "lilac", "olive", "pink", "purple", "red", "violet", "white"}},
                                    {"Fruit",
                                     {"apple", "banana", "cherry", "date", "fig", "grape", "kiwi", "lemon",
                                      "lime", "mango", "melon", "orange", "papaya", "peach", "pear", "plum"}},
                                    {"Animal",
                                     {"badger", "bear", "camel", "cat", "cow", "deer", "dog", "fox", "goat",
                                      "horse", "lion", "otter", "rabbit", "sheep", "tiger", "wolf"}},
                                    {"Bird",
                                     {"crane", "crow", "dove", "duck", "eagle", "finch", "goose", "hawk",
                                      "heron", "jay", "kestrel", "lark", "owl", "raven", "robin", "swan"}},
                                    {"Tool",
                                     {"anvil", "axe", "brush", "chisel", "drill", "file", "hammer", "hoe",
                                      "lathe", "pliers", "rake", "saw", "shovel", "spade", "vice", "wrench"}},
                                    {"Drink",
                                     {"ale", "beer", "broth", "cider", "cocoa", "coffee", "juice", "lemonade",
                                      "mead", "milk", "punch", "rum", "sherry", "tea", "water", "wine"}}};
const Words kAdjectives = {"old", "brave", "quiet", "tall", "young", "tired", "busy", "small"};
const Words kNouns = {"sailor", "farmer", "baker", "miller", "weaver", "teacher", "pilot", "fisher"};
const Words kVerbs = {"walks", "waits", "sings", "reads", "sleeps", "works", "listens", "rests"};
const Words kAdverbs = {"slowly", "here", "today", "alone", "again", "often", "outside", "early"};

// A full stop counts as a word: it is a token too.
constexpr int64_t kFactWords = 3, kQuestionWords = 2, kLeastFiller = 4, kMostFiller = 8;

// May a sentence of so many words come where so many are left? What is left then is nothing or a sentence.
bool fits(int64_t words, int64_t left) {
  return words == left || words <= left - kFactWords;
}

// A topic with the word that a text has for it.
struct Fact {
  const char* topic;
  const char* word;
  std::string text() const { return cat(topic, " ", word, "."); }
};

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

// Exactly `words` of them: the facts, as often as they come, and filler. How many there are of each differs
// from text to text.
std::vector<Sentence> haystack(TaskRandom& random, int64_t words, const std::vector<Fact>& facts) {
  const int64_t facts_of_ten = random.between(4, 9);
  std::vector<Sentence> sentences;
  for (int64_t left = words; left > 0; left -= sentences.back().words) {
    const bool may = fits(kFactWords, left), must = left < kLeastFiller;
    if (must || (may && random.between(1, 10) <= facts_of_ten)) {
      sentences.push_back({random.one_of(facts).text(), kFactWords});
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
  std::vector<Fact> facts;
  for (const Topic& topic : kTopics) facts.push_back({topic.name, random.one_of(topic.words)});
  const auto which = random.between(0, std::ssize(facts) - 1);
  const Fact asked = facts[static_cast<size_t>(which)];
  facts.erase(facts.begin() + which);

  const int64_t depth = 10 * random.between(0, 10), words = level - kFactWords - kQuestionWords;
  std::vector<Sentence> sentences = haystack(random, words, facts);
  const size_t at = sentence_at(sentences, words, depth);
  sentences.insert(sentences.begin() + static_cast<std::ptrdiff_t>(at), {asked.text(), kFactWords});
  MadeTask task{.verifier = "exact", .answer = asked.word, .solution = asked.word, .continued = true};
  for (const Sentence& sentence : sentences) task.prompt += sentence.text + " ";
  task.prompt += asked.topic;
  task.columns = {{"length", level}, {"depth", depth}};
  task.thought = cat("The text says: ", asked.text());
  return task;
}

}  // namespace hadal
