// Rewards for the manner of an answer: its language, its length, its repetitions.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <numbers>
#include <unordered_set>

#include "hadal/rewards/answer_text.h"
#include "hadal/rewards/reward_options.h"
#include "hadal/rewards/rule_rewards.h"

namespace hadal {
namespace {

int64_t num_tokens(const Completion& completion) {
  return completion.num_tokens > 0 ? completion.num_tokens : static_cast<int64_t>(completion.ids.size());
}

// --- language

// Without fenced code, `code` and $formulas$: what is in them has no language.
std::string prose(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    size_t end = std::string_view::npos;
    for (const std::string_view mark : {"```", "$$", "`", "$"}) {
      if (text.substr(i, mark.size()) != mark) continue;
      end = text.find(mark, i + mark.size());
      if (end != std::string_view::npos) end += mark.size();
      break;
    }
    if (end != std::string_view::npos) {
      out += ' ', i = end;
    } else {
      out += text[i++];
    }
  }
  return out;
}

// The code point at i, and moves behind it; a byte that is no UTF-8 stands for itself.
uint32_t next_code_point(std::string_view text, size_t& i) {
  const auto lead = static_cast<unsigned char>(text[i++]);
  const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
  uint32_t code = more == 3 ? lead & 7 : more == 2 ? lead & 15 : more == 1 ? lead & 31 : lead;
  for (int k = 0; k < more && i < text.size(); ++k)
    code = code << 6 | (static_cast<unsigned char>(text[i++]) & 63);
  return code;
}

enum class Script { kNone, kLatin, kHan, kOther };

Script script_of(uint32_t code) {
  if ((code | 32) >= 'a' && (code | 32) <= 'z' && code < 128) return Script::kLatin;
  if (code < 0xC0) return Script::kNone;
  if (code < 0x250) return code == 0xD7 || code == 0xF7 ? Script::kNone : Script::kLatin;
  if (code < 0x370) return Script::kNone;  // marks
  if ((code >= 0x3400 && code < 0xA000) || (code >= 0x20000 && code < 0x32000)) return Script::kHan;
  if (code >= 0x2000 && code < 0x2C00) return Script::kNone;  // punctuation, signs, arrows
  if ((code >= 0x3000 && code < 0x3040) || (code >= 0xFF00 && code < 0xFF66)) return Script::kNone;
  if (code >= 0x1F000) return Script::kNone;  // pictures
  return Script::kOther;
}

// Words of the target script as a share of all: runs of letters, a Chinese character each; 1 if there are
// none.
double language_share(std::string_view text, Script target) {
  int64_t all = 0, right = 0;
  Script run = Script::kNone;
  for (size_t i = 0; i < text.size();) {
    const Script script = script_of(next_code_point(text, i));
    if (script != Script::kNone && (script == Script::kHan || script != run))
      ++all, right += script == target;
    run = script;
  }
  return all == 0 ? 1 : static_cast<double>(right) / static_cast<double>(all);
}

class LanguageReward : public Reward {
 public:
  explicit LanguageReward(Script target) : target_(target) {}

  RewardScore score(const Task&, const Completion& completion) const override {
    std::string_view text = completion.text;
    if (const size_t end = text.rfind("</think>"); end != std::string_view::npos) text = text.substr(0, end);
    std::string thought = prose(text);
    for (const std::string_view tag : {"<think>", "<answer>", "</answer>"})
      for (size_t at; (at = thought.find(tag)) != std::string::npos;) thought.erase(at, tag.size());
    const double share = language_share(thought, target_);
    return {.value = share, .verdict = share == 1 ? "pure" : "mixed"};
  }

 private:
  Script target_;
};

// --- length

class OverlongReward : public Reward {
 public:
  OverlongReward(double most, double cache) : most_(most), cache_(cache) {}

  RewardScore score(const Task&, const Completion& completion) const override {
    const auto length = static_cast<double>(num_tokens(completion));
    if (length == 0) return {.verdict = "no_tokens"};
    const double over = length - (most_ - cache_);
    if (over <= 0) return {.value = 0, .verdict = "short"};
    return {.value = cache_ > 0 ? -std::min(1.0, over / cache_) : -1, .verdict = "overlong"};
  }

 private:
  double most_, cache_;
};

struct CosineRange {
  double right_short, right_long, wrong_short, wrong_long;
};

class CosineReward : public Reward {
 public:
  CosineReward(double most, CosineRange range)
      : most_(most), range_(range), accuracy_(accuracy_reward(Json::object())) {}

  RewardScore score(const Task& task, const Completion& completion) const override {
    RewardScore score = accuracy_->score(task, completion);
    const auto length = static_cast<double>(num_tokens(completion));
    if (std::isnan(score.value)) return score;
    if (length == 0) return {.verdict = "no_tokens"};
    const bool right = score.value >= 1;
    const double start = right ? range_.right_short : range_.wrong_short;
    const double end = right ? range_.right_long : range_.wrong_long;
    // Held at its end beyond `most`, where the cosine would rise again.
    const double progress = std::min(1.0, length / most_);
    score.value = end + (start - end) * (1 + std::cos(progress * std::numbers::pi)) / 2;
    return score;
  }

 private:
  double most_;
  CosineRange range_;
  std::unique_ptr<Reward> accuracy_;
};

// --- repetition

std::vector<uint64_t> words_of(const Completion& completion) {
  std::vector<uint64_t> words(completion.ids.begin(), completion.ids.end());
  if (!words.empty()) return words;
  std::string word;
  const std::string text = completion.text + " ";
  for (const char c : text) {
    if (!std::isspace(static_cast<unsigned char>(c))) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!word.empty()) {
      words.push_back(std::hash<std::string>()(word));
      word.clear();
    }
  }
  return words;
}

class RepetitionReward : public Reward {
 public:
  RepetitionReward(int64_t size, double penalty) : size_(static_cast<size_t>(size)), penalty_(penalty) {}

  RewardScore score(const Task&, const Completion& completion) const override {
    const std::vector<uint64_t> words = words_of(completion);
    if (words.size() < size_) return {.value = 0, .verdict = "short"};
    std::unordered_set<std::string> unique;
    const size_t total = words.size() - size_ + 1;
    for (size_t i = 0; i < total; ++i)
      unique.emplace(reinterpret_cast<const char*>(&words[i]), size_ * sizeof(uint64_t));
    const double repeated = 1 - static_cast<double>(unique.size()) / static_cast<double>(total);
    return {.value = repeated * penalty_, .verdict = repeated > 0 ? "repeats" : "new"};
  }

 private:
  size_t size_;
  double penalty_;
};

}  // namespace

std::unique_ptr<Reward> language_reward(const Json& json) {
  RewardOptions options("language", json);
  const std::string target = options.word("target", "en", {"en", "zh"});
  options.end();
  return std::make_unique<LanguageReward>(target == "en" ? Script::kLatin : Script::kHan);
}

std::unique_ptr<Reward> overlong_reward(const Json& json) {
  RewardOptions options("overlong", json);
  const double most = options.number("max", 1024, 1, 1e9);
  const double cache = options.number("cache", most / 4, 0, most);
  options.end();
  return std::make_unique<OverlongReward>(most, cache);
}

std::unique_ptr<Reward> cosine_reward(const Json& json) {
  RewardOptions options("cosine", json);
  const double most = options.number("max", 1024, 1, 1e9);
  CosineRange range{};
  range.right_short = options.number("right_short", 1, -100, 100);
  range.right_long = options.number("right_long", 0.5, -100, 100);
  range.wrong_short = options.number("wrong_short", -1, -100, 100);
  range.wrong_long = options.number("wrong_long", -0.5, -100, 100);
  options.end();
  return std::make_unique<CosineReward>(most, range);
}

std::unique_ptr<Reward> repetition_reward(const Json& json) {
  RewardOptions options("repetition", json);
  const double size = options.number("ngram", 3, 1, 64);
  const double penalty = options.number("penalty", -1, -100, 0);
  options.end();
  return std::make_unique<RepetitionReward>(static_cast<int64_t>(size), penalty);
}

}  // namespace hadal
