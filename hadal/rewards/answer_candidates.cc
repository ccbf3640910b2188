// What an evaluation may take for the answer where nothing marks it as a reward demands.
#include <algorithm>
#include <cctype>

#include "hadal/base/text.h"
#include "hadal/rewards/answer_text.h"

namespace hadal {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0;
}

struct Span {
  size_t begin = 0, end = 0;  // of the whole, marks included
  std::string_view content;
};

// End of a formula that opens with `open` at `at`; npos: none. One that is inline ends on its line.
size_t formula_end(std::string_view text, size_t at, std::string_view close, bool inline_form) {
  for (size_t i = at; i + close.size() <= text.size(); ++i) {
    if (inline_form && text[i] == '\n') return std::string_view::npos;
    if (text.substr(i, close.size()) == close) return i;
    if (text[i] == '\\') ++i;
  }
  return std::string_view::npos;
}

// $$..$$, \[..\], $..$, \(..\), in order, not overlapping.
std::vector<Span> formulas(std::string_view text) {
  struct Form {
    std::string_view open, close;
    bool inline_form;
    bool none_ahead = false;  // nothing closes it from here on: searched once, not at every opening
  } forms[] = {{"$$", "$$", false}, {"\\[", "\\]", false}, {"\\(", "\\)", true}, {"$", "$", true}};
  std::vector<Span> found;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$' && text[i] != '\\') continue;
    bool taken = false;
    for (Form& form : forms) {
      if (form.none_ahead || text.substr(i, form.open.size()) != form.open) continue;
      const size_t begin = i + form.open.size();
      const size_t end = formula_end(text, begin, form.close, form.inline_form);
      if (end == std::string_view::npos) {
        form.none_ahead = !form.inline_form;
        continue;
      }
      if (end > begin) {
        found.push_back(
            {.begin = i, .end = end + form.close.size(), .content = text.substr(begin, end - begin)});
        i = end + form.close.size() - 1;
        taken = true;
        break;
      }
    }
    if (!taken && text[i] == '\\') ++i;
  }
  return found;
}

// " %", " percent", " pct" right behind an answer.
bool percent_follows(std::string_view rest) {
  while (!rest.empty() && (rest[0] == ' ' || rest[0] == '$')) rest.remove_prefix(1);
  for (const char* word : {"%", "\\%", "percent", "pct"})
    if (rest.substr(0, std::string_view(word).size()) == word) return true;
  return false;
}

std::string with_percent(std::string content, std::string_view rest) {
  if (content.find('%') == std::string::npos && percent_follows(rest)) content += "\\%";
  return content;
}

// The last formula, or the last few that "and", "or" or a comma joins into a list.
std::string last_formulas(std::string_view text) {
  const std::vector<Span> all = formulas(text);
  if (all.empty()) return "";
  std::string answer = with_percent(std::string(all.back().content), text.substr(all.back().end));
  for (size_t i = all.size() - 1; i > 0; --i) {
    const std::string_view gap = trimmed(text.substr(all[i - 1].end, all[i].begin - all[i - 1].end));
    if (gap != "and" && gap != "or" && gap != "," && gap != ", and" && gap != ", or") break;
    answer = cat(all[i - 1].content, ", ", answer);
  }
  return answer;
}

// Digits with separators of thousands, a decimal point or comma: "1,234.5", "1 000", "2,74", ".4". Gives the
// plain number and moves `at` behind it; "" if there is none.
std::string read_number(std::string_view text, size_t& at) {
  size_t i = at;
  std::string digits;
  while (i < text.size() && is_digit(text[i])) digits += text[i++];
  const auto group = [&](size_t from, char mark) {  // a mark and exactly three digits
    return from + 3 < text.size() && text[from] == mark && is_digit(text[from + 1]) &&
           is_digit(text[from + 2]) && is_digit(text[from + 3]) &&
           (from + 4 == text.size() || !is_digit(text[from + 4]));
  };
  if (!digits.empty() && digits.size() <= 3 && digits[0] != '0')
    for (const char mark : {',', ' '})
      while (group(i, mark)) digits += text.substr(i + 1, 3), i += 4;
  if (i + 1 < text.size() && (text[i] == '.' || (text[i] == ',' && !digits.empty())) &&
      is_digit(text[i + 1])) {
    if (digits.empty()) digits = "0";
    digits += '.';
    for (++i; i < text.size() && is_digit(text[i]); ++i) digits += text[i];
  }
  if (!digits.empty()) at = i;
  return digits;
}

// The last number that is not part of a word, with its sign, as a/b if it is one, and its percent sign.
std::string last_number(std::string_view text) {
  std::string last;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!is_digit(text[i]) && text[i] != '.') continue;
    const size_t begin = i;
    std::string number = read_number(text, i);
    if (number.empty()) continue;
    if (i + 1 < text.size() && text[i] == '/' && is_digit(text[i + 1])) {
      ++i;
      number += "/" + read_number(text, i);
    }
    const size_t end = i--;
    const char before = begin > 0 ? text[begin - 1] : ' ';
    if (is_letter(before) || before == '_') continue;
    const char sign = begin > 1 ? text[begin - 2] : ' ';
    if (before == '-' && !is_letter(sign) && !is_digit(sign) && sign != ')') number = "-" + number;
    last = with_percent(number, text.substr(end));
  }
  return last;
}

// Where the statement of an answer begins that the last of these words announce; npos: nowhere.
size_t behind_last(std::string_view lower, std::initializer_list<std::string_view> words) {
  size_t best = std::string_view::npos;
  for (const std::string_view word : words)
    if (const size_t at = lower.rfind(word); at != std::string_view::npos)
      if (best == std::string_view::npos || at + word.size() > best) best = at + word.size();
  return best;
}

// Of "is $x$. I hope it is correct." the statement itself.
std::string_view statement(std::string_view text) {
  size_t end = text.find('\n');
  if (end == 0) end = text.find('\n', 1);
  for (const char* stop : {"I hope", "<|", "\n\n"}) end = std::min(end, text.find(stop));
  return trimmed(text.substr(0, std::min(end, text.size())));
}

// What stands at the front of a statement: a formula or a number or words up to the full stop.
void add_statement(std::string_view text, bool numbers, std::vector<std::string>& candidates) {
  const std::string formula = last_formulas(text);
  const std::string number = numbers ? last_number(text) : "";
  const size_t formula_at = formula.empty() ? 0 : formulas(text).back().end;
  // "The domain of $f(x)$ is 19": what comes later counts.
  const bool number_first = !number.empty() && !last_number(text.substr(formula_at)).empty();
  if (number_first) candidates.push_back(last_number(text.substr(formula_at)));
  if (!formula.empty()) candidates.push_back(formula);
  if (!number.empty()) candidates.push_back(number);
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// A decimal comma or separators of thousands and nothing else.
bool is_number(std::string_view text) {
  size_t end = 0;
  return !read_number(text, end).empty() && end == text.size();
}

// Has no word of a sentence: nothing but mathematics and names of up to two letters.
bool looks_like_formula(std::string_view text) {
  return text.size() <= kMaxAnswerBytes && text.find('\n') == std::string_view::npos &&
         text.find(". ") == std::string_view::npos;
}

}  // namespace

std::vector<std::string> answer_candidates(std::string_view text, bool numbers) {
  std::vector<std::string> candidates;
  if (const auto tags = answer_tags(text); !tags.empty()) candidates.emplace_back(trimmed(tags.back()));
  const std::vector<Box> boxes = find_boxes(text);
  const std::string lower = lower_case(text);
  const auto stated = [&](std::initializer_list<std::string_view> words, size_t behind) {
    const size_t at = behind_last(lower, words);
    if (at != std::string_view::npos && at >= behind)
      add_statement(statement(text.substr(at)), numbers, candidates);
  };
  stated({"final answer is"}, boxes.empty() ? 0 : boxes.back().end);  // boxes before it held steps
  if (!boxes.empty()) {
    const AnswerText boxed = boxed_answer(text, AnswerProfile::kEvaluation);
    if (boxed.status == AnswerStatus::kFound)
      candidates.push_back(with_percent(boxed.text, text.substr(boxes.back().end)));
  }
  if (const size_t mark = text.rfind("####"); mark != std::string_view::npos)
    candidates.emplace_back(statement(text.substr(mark + 4)));
  stated({"final answer is", "final answer:"}, 0);
  stated({"answer is", "answer:"}, 0);
  stated({"therefore,", "thus,", "hence,"}, 0);
  if (const std::string formula = last_formulas(text); !formula.empty()) candidates.push_back(formula);
  const std::string number = numbers ? last_number(text) : "";
  if (is_number(trimmed(text))) candidates.push_back(number);
  if (looks_like_formula(trimmed(text)) && formulas(text).empty()) candidates.emplace_back(trimmed(text));
  if (!number.empty()) candidates.push_back(number);
  std::erase_if(candidates, [](const std::string& one) { return trimmed(one).empty(); });
  return candidates;
}

}  // namespace hadal
