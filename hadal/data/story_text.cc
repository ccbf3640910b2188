#include "hadal/data/story_text.h"

#include <array>
#include <string_view>

#include "hadal/base/random.h"
#include "hadal/base/text.h"

namespace hadal {
namespace {

constexpr std::array<std::string_view, 16> kNames = {"Mira", "Olo",  "Pip", "Suna", "Tarn", "Wim",
                                                     "Yara", "Zed",  "Ada", "Bo",   "Cora", "Dov",
                                                     "Ena",  "Finn", "Gus", "Hana"};
constexpr std::array<std::string_view, 10> kCreatures = {"crab",  "eel",    "squid", "whale",  "seal",
                                                         "prawn", "turtle", "ray",   "urchin", "snail"};
constexpr std::array<std::string_view, 8> kThings = {"shells",  "pearls", "stones", "lamps",
                                                     "bottles", "coins",  "ropes",  "anchors"};
constexpr std::array<std::string_view, 8> kPlaces = {"the reef",    "the trench", "a cold cave", "the kelp",
                                                     "an old ship", "the vent",   "the beach",   "the deep"};
constexpr std::array<std::string_view, 6> kMoods = {"happy", "tired", "proud", "hungry", "calm", "brave"};

// Draws of one story, in order.
class Dice {
 public:
  Dice(uint64_t seed, uint64_t index) : seed_(seed), stream_(index) {}
  int64_t below(int64_t n) {
    return static_cast<int64_t>(philox(seed_, stream_, draws_++)[0] % static_cast<uint32_t>(n));
  }
  template <size_t N>
  std::string_view pick(const std::array<std::string_view, N>& words) {
    return words[static_cast<size_t>(below(N))];
  }

 private:
  uint64_t seed_, stream_, draws_ = 0;
};

std::string count_story(Dice& dice, std::string_view name, std::string_view thing) {
  const int64_t first = 1 + dice.below(9), second = 1 + dice.below(9);
  const std::string_view place = dice.pick(kPlaces);
  if (dice.below(2) == 0) {
    return cat(name, " has ", first, " ", thing, ". In ", place, ", ", name, " finds ", second, " more. ",
               first, " + ", second, " = ", first + second, ", so now there are ", first + second, " ", thing,
               ".");
  }
  return cat(name, " has ", first + second, " ", thing, " and leaves ", second, " in ", place, ". ",
             first + second, " - ", second, " = ", first, ", so ", first, " ", thing, " are left.");
}

std::string journey_story(Dice& dice, std::string_view name, std::string_view thing) {
  const std::string_view from = dice.pick(kPlaces), to = dice.pick(kPlaces), mood = dice.pick(kMoods);
  return cat(name, " swims from ", from, " to ", to, ". It is dark in ", to, ", but ", name, " is ", mood,
             ". \"I am ", mood, "\", says ", name, ", \"because I have my ", thing, ".\"");
}

std::string friend_story(Dice& dice, std::string_view name, std::string_view thing) {
  const std::string_view other = dice.pick(kNames), creature = dice.pick(kCreatures),
                         place = dice.pick(kPlaces);
  return cat("In ", place, ", ", name, " meets ", other, " the ", creature, ". \"Who are you?\" asks ", name,
             ". \"I am ", other, ", and I am a ", creature, "\", says ", other, ". They share the ", thing,
             ".");
}

}  // namespace

std::string story(uint64_t seed, uint64_t index) {
  Dice dice(seed, index);
  const std::string_view name = dice.pick(kNames), creature = dice.pick(kCreatures),
                         thing = dice.pick(kThings);
  const std::string opening = cat(name, " is a ", creature, ". ");
  switch (dice.below(3)) {
    case 0:
      return opening + count_story(dice, name, thing) + "\n";
    case 1:
      return opening + journey_story(dice, name, thing) + "\n";
    default:
      return opening + friend_story(dice, name, thing) + "\n";
  }
}

std::string story_text(uint64_t seed, int64_t bytes) {
  std::string text;
  for (uint64_t index = 0; static_cast<int64_t>(text.size()) < bytes; ++index) text += story(seed, index);
  return text;
}

}  // namespace hadal
