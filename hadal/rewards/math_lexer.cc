#include "hadal/rewards/math_lexer.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

namespace hadal {
namespace {

constexpr size_t kMostDigits = 400;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Unicode that stands for LaTeX or ASCII.
const std::pair<std::string_view, std::string_view> kUnicode[] = {{"\u2212", "-"},
                                                                  {"\u2013", "-"},
                                                                  {"\u00d7", "*"},
                                                                  {"\u00b7", "*"},
                                                                  {"\u22c5", "*"},
                                                                  {"\u2217", "*"},
                                                                  {"\u00f7", "/"},
                                                                  {"\u2044", "/"},
                                                                  {"\u03c0", "\\pi "},
                                                                  {"\u221e", "\\infty "},
                                                                  {"\u00b1", "\\pm "},
                                                                  {"\u2213", "\\mp "},
                                                                  {"\u2264", "<="},
                                                                  {"\u2265", ">="},
                                                                  {"\u2260", "\\ne "},
                                                                  {"\u2248", "\\approx "},
                                                                  {"\u2208", "\\in "},
                                                                  {"\u222a", "\\cup "},
                                                                  {"\u2229", "\\cap "},
                                                                  {"\u2216", "\\setminus "},
                                                                  {"\u2205", "\\emptyset "},
                                                                  {"\u221a", "\\sqrt "},
                                                                  {"\u00b0", "^\\circ "},
                                                                  {"\u00b2", "^2 "},
                                                                  {"\u00b3", "^3 "},
                                                                  {"\u00b9", "^1 "},
                                                                  {"\u2074", "^4 "},
                                                                  {"\u2075", "^5 "},
                                                                  {"\u00a0", " "},
                                                                  {"\u2009", " "},
                                                                  {"\u202f", " "},
                                                                  {"\u2003", " "},
                                                                  {"\u3000", " "},
                                                                  {"\u20ac", ""},
                                                                  {"\u00a3", ""},
                                                                  {"\u00a5", ""},
                                                                  {"\u211d", "\\mathbb{R}"},
                                                                  {"\u03b1", "\\alpha "},
                                                                  {"\u03b2", "\\beta "},
                                                                  {"\u03b8", "\\theta "},
                                                                  {"\u00bd", "\\frac{1}{2}"},
                                                                  {"\u00bc", "\\frac{1}{4}"},
                                                                  {"\u00be", "\\frac{3}{4}"}};

// Commands that only change how things look.
const std::set<std::string_view> kInvisible = {
    "left",         "right",          "big",       "Big",       "bigg",
    "Bigg",         "bigl",           "bigr",      "Bigl",      "Bigr",
    "displaystyle", "textstyle",      "limits",    "quad",      "qquad",
    "boxed",        "fbox",           "overline",  "vec",       "hat",
    "bar",          "overrightarrow", "widehat",   "mathcal",   "thinspace",
    "hspace",       "phantom",        "rm",        "bf",        "it",
    "nolimits",     "middle",         "underline", "mathsf",    "mathfrak",
    "hfill",        "small",          "large",     "normalsize"};

const std::set<std::string_view> kTextCommands = {"text",   "mbox",   "textbf", "textit", "textnormal",
                                                  "textrm", "texttt", "textsf", "hbox"};
const std::set<std::string_view> kNameCommands = {"mathrm", "operatorname", "mathbf", "mathit",
                                                  "mathbb", "boldsymbol",   "bm"};

const std::map<std::string_view, std::string_view> kMarks = {{"cdot", "*"},
                                                             {"times", "*"},
                                                             {"ast", "*"},
                                                             {"div", "/"},
                                                             {"le", "<="},
                                                             {"leq", "<="},
                                                             {"leqslant", "<="},
                                                             {"ge", ">="},
                                                             {"geq", ">="},
                                                             {"geqslant", ">="},
                                                             {"lt", "<"},
                                                             {"gt", ">"},
                                                             {"ne", "!="},
                                                             {"neq", "!="},
                                                             {"approx", "~"},
                                                             {"simeq", "~"},
                                                             {"equiv", "="},
                                                             {"in", "in"},
                                                             {"cup", "cup"},
                                                             {"cap", "cap"},
                                                             {"setminus", "setminus"},
                                                             {"backslash", "setminus"},
                                                             {"pm", "pm"},
                                                             {"mp", "mp"},
                                                             {"lbrace", "\\{"},
                                                             {"rbrace", "\\}"},
                                                             {"langle", "("},
                                                             {"rangle", ")"},
                                                             {"lvert", "|"},
                                                             {"rvert", "|"},
                                                             {"vert", "|"},
                                                             {"mid", "|"},
                                                             {"lfloor", "lfloor"},
                                                             {"rfloor", "rfloor"},
                                                             {"lceil", "lceil"},
                                                             {"rceil", "rceil"},
                                                             {"colon", ":"},
                                                             {"circ", "circ"},
                                                             {"degree", "degree"},
                                                             {"prime", "'"},
                                                             {"lbrack", "["},
                                                             {"rbrack", "]"},
                                                             {"lparen", "("},
                                                             {"rparen", ")"}};

const std::map<std::string_view, std::string_view> kCommands = {
    {"frac", "frac"},   {"dfrac", "frac"},   {"tfrac", "frac"},   {"cfrac", "frac"},  {"sqrt", "sqrt"},
    {"binom", "binom"}, {"dbinom", "binom"}, {"tbinom", "binom"}, {"begin", "begin"}, {"end", "end"}};

const std::set<std::string_view> kDots = {"dots", "ldots", "cdots", "dotsc", "dotsb", "vdots", "ddots"};
const std::set<std::string_view> kFunctionCommands = {
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh",   "tanh", "exp",
    "ln",  "log", "lg",  "max", "min", "gcd", "sum",    "prod",   "int",    "lim",  "arccot", "coth", "det"};

class Lexer {
 public:
  Lexer(std::string text, AnswerProfile profile) : text_(std::move(text)), profile_(profile) {}

  std::vector<MathToken> run() {
    while (at_ < text_.size()) step();
    push(MathTokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool ahead(std::string_view what) const { return std::string_view(text_).substr(at_, what.size()) == what; }

  void push(MathTokenKind kind, std::string text) {
    tokens_.push_back({.kind = kind, .text = std::move(text), .spaced = spaced_});
    spaced_ = false;
  }
  void mark(std::string text) {
    if (text == "(" || text == "[" || text == "\\{") ++depth_;
    if (text == ")" || text == "]" || text == "\\}") --depth_;
    push(MathTokenKind::kMark, std::move(text));
  }

  void step() {
    const char c = peek();
    if (std::isspace(static_cast<unsigned char>(c)) || c == '~') {
      spaced_ = true;
      ++at_;
    } else if (is_digit(c) || (c == '.' && is_digit(peek(1)))) {
      number();
    } else if (c == '\\') {
      backslash();
    } else if (is_letter(c)) {
      word();
    } else {
      sign();
    }
  }

  void sign() {
    for (const char* two : {"<=", ">=", "!=", "=="})
      if (ahead(two)) {
        at_ += 2;
        return mark(two[0] == '=' ? "=" : two);
      }
    if (ahead("...") || ahead("\u2026")) throw MathUnreadable{};
    if (ahead("**")) ++at_;  // a power in Python's words
    const bool power = at_ > 0 && ahead("*") && text_[at_ - 1] == '*';
    const char c = text_[at_++];
    if (power) return mark("^");
    if (c == '$' || c == '`') return;
    if (c == '.') {  // a full stop: the end, or nothing that mathematics has
      if (std::all_of(text_.begin() + static_cast<std::ptrdiff_t>(at_), text_.end(),
                      [](unsigned char x) { return std::isspace(x) || x == '$'; }))
        return;
      throw MathUnreadable{};
    }
    if (c == ',' || c == ';') return push(MathTokenKind::kSeparator, std::string(1, c));
    if (std::string_view("+-*/^_=<>()[]{}|!%:'&").find(c) == std::string_view::npos) throw MathUnreadable{};
    mark(std::string(1, c));
  }

  // Three digits that a separator of thousands announces; at_ is behind the separator then.
  bool thousands() {
    size_t i = at_;
    const auto skip = [&](std::string_view what) {
      if (std::string_view(text_).substr(i, what.size()) != what) return false;
      i += what.size();
      return true;
    };
    const auto blanks = [&] {
      while (skip(" ")) {
      }
      return true;
    };
    bool found = false;
    if (skip(",\\!")) {
      found = blanks();
    } else if (const size_t start = i;
               blanks() && skip("{") && blanks() && skip(",") && blanks() && skip("}")) {
      found = true;
    } else if (i = start; depth_ <= 0 && skip(",")) {
      found = true;
    } else {
      found = skip("\\,") || skip(" ") || skip("~");
    }
    for (size_t k = 0; found && k < 3; ++k) found = i + k < text_.size() && is_digit(text_[i + k]);
    if (!found || (i + 3 < text_.size() && is_digit(text_[i + 3]))) return false;
    at_ = i;
    return true;
  }

  void number() {
    std::string digits;
    while (is_digit(peek())) digits += text_[at_++];
    if (!digits.empty() && digits.size() <= 3 && digits[0] != '0')
      while (thousands()) digits += text_.substr(at_, 3), at_ += 3;
    MathToken token{.kind = MathTokenKind::kNumber, .spaced = spaced_};
    BigInt scale = 1, repeat_scale = 0;
    std::string repeat;
    if (peek() == '.' && (is_digit(peek(1)) || repeats(at_ + 1))) {
      token.decimal = true;
      token.text = (digits.empty() ? "0" : digits) + ".";
      for (++at_; is_digit(peek());) scale *= 10, token.text += peek(), digits += text_[at_++];
      if (repeats(at_)) {
        token.decimal = false;  // exact
        for (at_ += 10; is_digit(peek());) repeat += text_[at_++];
        ++at_;
        token.text += "(" + repeat + ")";
      }
    } else {
      token.text = digits;
    }
    if (digits.size() + repeat.size() > kMostDigits) throw MathTooLarge{};
    token.value = Rational(BigInt(stripped(digits)), scale);
    if (!repeat.empty()) {
      for (size_t i = 0; i < repeat.size(); ++i) repeat_scale = repeat_scale * 10 + 9;
      token.value += Rational(BigInt(stripped(repeat)), repeat_scale * scale);
    }
    exponent(token);
    spaced_ = false;
    tokens_.push_back(std::move(token));
  }

  bool repeats(size_t at) const {
    const std::string_view rest = std::string_view(text_).substr(std::min(at, text_.size()));
    if (rest.substr(0, 10) != "\\overline{") return false;
    size_t i = 10;
    while (i < rest.size() && is_digit(rest[i])) ++i;
    return i > 10 && i < rest.size() && rest[i] == '}';
  }

  // "1.5e3": only directly behind the digits.
  void exponent(MathToken& token) {
    size_t i = at_ + 1;
    if ((peek() != 'e' && peek() != 'E') || i >= text_.size()) return;
    const bool negative = text_[i] == '-';
    if (text_[i] == '-' || text_[i] == '+') ++i;
    int value = 0;
    const size_t begin = i;
    for (; i < text_.size() && is_digit(text_[i]) && i < begin + 4; ++i)
      value = value * 10 + (text_[i] - '0');
    if (i == begin || (i < text_.size() && (is_digit(text_[i]) || is_letter(text_[i])))) return;
    if (value > static_cast<int>(kMostDigits)) throw MathTooLarge{};
    const Rational factor(boost::multiprecision::pow(BigInt(10), static_cast<unsigned>(value)));
    token.value = negative ? Rational(token.value / factor) : Rational(token.value * factor);
    token.text += text_.substr(at_, i - at_);
    at_ = i;
  }

  // Without leading zeros, which cpp_int would take for octal.
  static std::string stripped(const std::string& digits) {
    const size_t first = digits.find_first_not_of('0');
    return first == std::string::npos ? "0" : digits.substr(first);
  }

  void word() {
    std::string run;
    while (is_letter(peek())) run += text_[at_++];
    // "x=1orx=2"
    const bool behind_value = !spaced_ && !tokens_.empty() &&
                              (tokens_.back().kind == MathTokenKind::kNumber || tokens_.back().text == ")");
    for (const std::string_view word : {"or", "and"})
      if (behind_value && run.size() > word.size() && run.compare(0, word.size(), word) == 0) {
        push(MathTokenKind::kSeparator, ",");
        run = run.substr(word.size());
        break;
      }
    plain_word(std::move(run));
  }

  void plain_word(std::string run) {
    std::string lower = run;
    for (char& c : lower) c = static_cast<char>(std::tolower(c));
    if (lower == "and" || lower == "or") return push(MathTokenKind::kSeparator, ",");
    if (lower == "percent" || lower == "pct" || lower == "percentage") return mark("%");
    if (lower == "degrees" || lower == "degree") return mark("degree");
    if (lower == "nan") throw MathUnreadable{};
    push(MathTokenKind::kWord, std::move(run));
  }

  void backslash() {
    if (peek(1) == '\\' && (environments_ > 0 || !is_letter(peek(2)))) {
      at_ += 2;
      if (environments_ > 0) return push(MathTokenKind::kRow, "\\\\");
      spaced_ = true;
      return;
    }
    ++at_;
    if (peek() == '\\') ++at_;  // doubled by someone's escaping
    if (is_letter(peek())) {
      std::string name;
      while (is_letter(peek())) name += text_[at_++];
      return command(name);
    }
    const char c = peek();
    if (at_ < text_.size()) ++at_;
    if (c == '{' || c == '}') return mark(std::string("\\") + c);
    if (c == '%') return mark("%");
    if (c == '|') return mark("|");
    spaced_ = true;  // \, \; \: \! \( \) \[ \] \$ and a blank
  }

  void command(const std::string& name) {
    if (kInvisible.count(name)) return;
    if (name == "pmod" || name == "bmod" || name == "tag") {
      if (peek() == '{') braces();
    } else if (kDots.count(name)) {
      throw MathUnreadable{};
    } else if (kTextCommands.count(name)) {
      text_argument(braces());
    } else if (kNameCommands.count(name)) {
      name_argument(name, braces());
    } else if (const auto found = kMarks.find(name); found != kMarks.end()) {
      mark(std::string(found->second));
    } else if (const auto one = kCommands.find(name); one != kCommands.end()) {
      structure(std::string(one->second));
    } else if (kFunctionCommands.count(name)) {
      push(MathTokenKind::kCommand, "function:" + name);
    } else if (name == "infty") {
      push(MathTokenKind::kWord, "infty");
    } else if (name == "pi") {
      push(MathTokenKind::kWord, "pi");
    } else if (name == "emptyset" || name == "varnothing") {
      mark("\\{");
      mark("\\}");
    } else if (name == "to" || name == "rightarrow" || name == "Rightarrow" || name == "implies") {
      throw MathUnreadable{};
    } else if (name.rfind("quad", 0) == 0 || name.rfind("qquad", 0) == 0) {  // "\quadx": a slip of old data
      at_ -= name.size() - (name[1] == 'q' ? 5 : 4);
      spaced_ = true;
    } else {
      push(MathTokenKind::kName, "\\" + name);
    }
  }

  void structure(const std::string& name) {
    if (name != "begin" && name != "end") return push(MathTokenKind::kCommand, name);
    const std::string kind = braces();
    environments_ += name == "begin" ? 1 : -1;
    if (name == "begin" && kind == "array" && peek() == '{') braces();  // its columns
    push(MathTokenKind::kCommand, name + ":" + kind);
  }

  void text_argument(std::string content) {
    std::string bare;
    for (const char c : content)
      if (is_letter(c)) bare += static_cast<char>(std::tolower(c));
    const bool letters = std::all_of(content.begin(), content.end(), [](unsigned char c) {
      return is_letter(static_cast<char>(c)) || c == ' ' || c == ',';
    });
    if (letters && (bare == "and" || bare == "or")) return push(MathTokenKind::kSeparator, ",");
    if (bare == "percent" || bare == "pct" || content == "%") return mark("%");
    if (bare == "degrees" || bare == "degree") return mark("degree");
    if (trimmed(content).empty()) return;
    push(MathTokenKind::kText, std::string(trimmed(content)));
  }

  void name_argument(const std::string& command, const std::string& content) {
    if (command == "mathbb") return push(MathTokenKind::kName, "\\mathbb{" + content + "}");
    if (content.size() == 1 && is_letter(content[0])) return push(MathTokenKind::kWord, content);
    if (kFunctionCommands.count(content)) return push(MathTokenKind::kCommand, "function:" + content);
    text_argument(content);
  }

  // The content of {...}, or one character without braces, and moves behind it.
  std::string braces() {
    while (peek() == ' ') ++at_;
    if (peek() == '*') ++at_;
    if (peek() != '{') return at_ < text_.size() ? std::string(1, text_[at_++]) : "";
    int depth = 0;
    const size_t begin = at_ + 1;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '{') ++depth;
      if (text_[at_] == '}' && --depth == 0) return text_.substr(begin, at_++ - begin);
    }
    if (profile_ == AnswerProfile::kReward) throw MathUnreadable{};
    return text_.substr(begin);
  }

  std::string text_;
  AnswerProfile profile_;
  size_t at_ = 0;
  int depth_ = 0, environments_ = 0;
  bool spaced_ = false;
  std::vector<MathToken> tokens_;
};

// `text` with ASCII or LaTeX in place of the Unicode that mathematics uses; other bytes as they are.
std::string without_unicode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      out += text[i++];
      continue;
    }
    bool known = false;
    for (const auto& [from, to] : kUnicode) {
      if (text.substr(i, from.size()) != from) continue;
      out += to, i += from.size(), known = true;
      break;
    }
    if (known) continue;
    if (text.substr(i, 2) == "\xef\xbc" && i + 2 < text.size() &&
        static_cast<unsigned char>(text[i + 2]) >= 0x81) {
      out += static_cast<char>(static_cast<unsigned char>(text[i + 2]) - 0x60);  // fullwidth ASCII
      i += 3;
      continue;
    }
    out += text[i++];
  }
  return out;
}

}  // namespace

std::vector<MathToken> read_math_tokens(std::string_view text, AnswerProfile profile) {
  return Lexer(without_unicode(text), profile).run();
}

std::string bare_math_text(const std::vector<MathToken>& tokens) {
  std::string text;
  for (const MathToken& token : tokens)
    for (const char c : token.text)
      if (!std::isspace(static_cast<unsigned char>(c))) text += c;
  while (!text.empty() && text.back() == '.') text.pop_back();
  if (text.size() > 2 && text.front() == '(' && text.back() == ')' && text.size() == 3)
    text = text.substr(1, 1);
  if (text.size() > 1 && std::all_of(text.begin(), text.end(), is_letter))
    for (char& c : text) c = static_cast<char>(std::tolower(c));
  return text;
}

}  // namespace hadal
