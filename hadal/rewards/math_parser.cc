#include "hadal/rewards/math_parser.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>

namespace hadal {
namespace {

constexpr int kDeepest = 32;
constexpr size_t kMostParts = 128;  // of a list, sum, product

// Words behind a number that name what is counted.
const std::set<std::string_view> kUnits = {
    "cm",      "mm",      "km",     "m",     "meters",  "meter",   "metres",  "metre",    "inches",  "inch",
    "ft",      "feet",    "foot",   "yards", "yard",    "miles",   "mile",    "mi",       "in",      "kg",
    "g",       "mg",      "grams",  "gram",  "lbs",     "lb",      "pounds",  "pound",    "oz",      "ounces",
    "tons",    "ton",     "liters", "liter", "litres",  "l",       "ml",      "gallons",  "gallon",  "cups",
    "seconds", "second",  "sec",    "s",     "minutes", "minute",  "min",     "mins",     "hours",   "hour",
    "hr",      "hrs",     "h",      "days",  "day",     "weeks",   "week",    "months",   "month",   "years",
    "year",    "dollars", "dollar", "cents", "cent",    "usd",     "euros",   "euro",     "yuan",    "rupees",
    "mph",     "kmh",     "units",  "unit",  "sq",      "square",  "cubic",   "students", "people",  "apples",
    "ways",    "points",  "times",  "items", "books",   "coins",   "marbles", "eggs",     "cookies", "pages",
    "radians", "rad",     "volts",  "watts", "joules",  "newtons", "kmph",    "bushels",  "pieces",  "dozen"};
// Of these a letter alone may be a variable too: "3m" is a product, "3 m" a length.
bool is_unit(const MathToken& token) {
  return token.kind == MathTokenKind::kWord && kUnits.count(token.text) &&
         (token.text.size() > 2 || token.spaced);
}

const std::set<std::string_view> kRelations = {"=", "!=", "<", "<=", ">", ">=", "~", "in"};
const std::set<std::string_view> kMatrices = {"pmatrix", "bmatrix", "Bmatrix",
                                              "matrix",  "array",   "smallmatrix"};

class Parser {
 public:
  Parser(std::vector<MathToken> tokens, AnswerProfile profile, MathTree& tree)
      : tokens_(std::move(tokens)), strict_(profile == AnswerProfile::kReward), tree_(tree) {}

  int run() {
    const int answer = list_of_lists();
    if (peek().kind != MathTokenKind::kEnd) throw MathUnreadable{};
    return answer;
  }

 private:
  struct Nesting {
    explicit Nesting(Parser& parser) : depth(parser.depth_) {
      if (++depth > kDeepest) throw MathTooLarge{};
      parser.tree_.spend();
    }
    ~Nesting() { --depth; }
    int& depth;
  };

  const MathToken& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  bool is_mark(std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == MathTokenKind::kMark && peek(ahead).text == text;
  }
  bool is_command(std::string_view text) const {
    return peek().kind == MathTokenKind::kCommand && peek().text == text;
  }
  bool take(std::string_view text) {
    if (!is_mark(text)) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view text) {
    if (take(text)) return;
    if (strict_ || peek().kind != MathTokenKind::kEnd) throw MathUnreadable{};
  }

  // a, b; c, d: lists of values, apart by semicolons.
  int list_of_lists() {
    std::vector<int> lists;
    const bool nested = std::any_of(tokens_.begin(), tokens_.end(), [](const MathToken& token) {
      return token.kind == MathTokenKind::kSeparator && token.text == ",";
    });
    do lists.push_back(list(nested ? ";" : ""));
    while (peek().kind == MathTokenKind::kSeparator && lists.size() < kMostParts && (++at_, true));
    return lists.size() == 1 ? lists[0] : tree_.group(MathKind::kList, std::move(lists));
  }

  // Values apart by separators other than `stop`.
  int list(std::string_view stop) {
    std::vector<int> items;
    while (true) {
      while (peek().kind == MathTokenKind::kSeparator && peek().text != stop) ++at_;
      if (ends_group()) break;
      items.push_back(relation());
      if (items.size() > kMostParts) throw MathTooLarge{};
      if (peek().kind != MathTokenKind::kSeparator || peek().text == stop) break;
    }
    if (items.empty()) throw MathUnreadable{};
    return items.size() == 1 ? items[0] : tree_.group(MathKind::kList, std::move(items));
  }

  bool ends_group() const {
    const MathToken& token = peek();
    if (token.kind == MathTokenKind::kEnd || token.kind == MathTokenKind::kRow) return true;
    if (token.kind == MathTokenKind::kCommand) return token.text.rfind("end:", 0) == 0;
    return token.kind == MathTokenKind::kMark &&
           (token.text == ")" || token.text == "]" || token.text == "}" || token.text == "\\}" ||
            token.text == "&" || token.text == "rfloor" || token.text == "rceil");
  }

  int relation() {
    const Nesting nesting(*this);
    std::vector<int> parts = {ratio()};
    std::vector<std::string> operators;
    while (peek().kind == MathTokenKind::kMark && kRelations.count(peek().text)) {
      operators.push_back(tokens_[at_++].text);
      if (operators.back() == "<" && take("=")) operators.back() = "<=";
      if (operators.back() == ">" && take("=")) operators.back() = ">=";
      parts.push_back(ratio());
      if (parts.size() > kMostParts) throw MathTooLarge{};
    }
    return operators.empty() ? parts[0] : settled(std::move(parts), std::move(operators));
  }

  // A chain as what it states: "x = 5 + 6 = 11" is x = 11, "x = 1/3 ~ 0.33" is x = 1/3.
  int settled(std::vector<int> parts, std::vector<std::string> operators) {
    for (size_t i = 0; i < operators.size(); ++i) {
      if (operators[i] != "~") continue;
      if (i == 0 && is_math_name(tree_, parts[0])) {
        operators[0] = "=";
        continue;
      }
      parts.resize(i + 1), operators.resize(i);
    }
    if (operators.empty()) return parts[0];
    MathNode node{.kind = MathKind::kRelation};
    const bool equations =
        std::all_of(operators.begin(), operators.end(), [](const std::string& one) { return one == "="; });
    if (equations && parts.size() > 2) {
      const auto name =
          std::find_if(parts.begin(), parts.end() - 1, [&](int id) { return is_math_name(tree_, id); });
      parts = {name == parts.end() - 1 ? parts.front() : *name, parts.back()};
      operators = {"="};
      node.chain = true;
    }
    node.parts = std::move(parts), node.operators = std::move(operators);
    return tree_.add(std::move(node));
  }

  int ratio() {
    std::vector<int> parts = {sets()};
    while (take(":")) parts.push_back(sets());
    if (parts.size() > kMostParts) throw MathTooLarge{};
    return parts.size() == 1 ? parts[0] : tree_.group(MathKind::kRatio, std::move(parts));
  }

  int sets() {
    int left = sum();
    for (int64_t n = 0;; ++n) {
      MathKind kind;
      if (take("cup")) {
        kind = MathKind::kUnion;
      } else if (take("cap")) {
        kind = MathKind::kIntersection;
      } else if (take("setminus")) {
        kind = MathKind::kDifference;
      } else {
        return left;
      }
      if (n > kDeepest) throw MathTooLarge{};  // it leans to the left
      const int right = sum();
      left = tree_.group(kind, {left, right});
    }
  }

  int plus_minus(int sign) {
    MathNode node{.kind = MathKind::kPlusMinus, .parts = {product()}};
    node.number = sign;
    return tree_.add(std::move(node));
  }

  int sum() {
    const Nesting nesting(*this);
    std::vector<int> parts;
    while (true) {
      if (take("+")) {
        parts.push_back(product());
      } else if (take("-")) {
        parts.push_back(tree_.negative(product()));
      } else if (take("pm")) {
        parts.push_back(plus_minus(1));
      } else if (take("mp")) {
        parts.push_back(plus_minus(-1));
      } else if (parts.empty()) {
        parts.push_back(product());
      } else {
        break;
      }
      if (parts.size() > kMostParts) throw MathTooLarge{};
    }
    return parts.size() == 1 ? parts[0] : tree_.group(MathKind::kAdd, std::move(parts));
  }

  int product() {
    const Nesting nesting(*this);
    std::vector<int> parts = {unary()};
    while (true) {
      if (take("*")) {
        parts.push_back(unary());
      } else if (take("/")) {
        parts.push_back(tree_.inverse(unary()));
      } else if (skip_unit()) {
        continue;
      } else if (begins_factor()) {
        parts.push_back(power());
      } else {
        break;
      }
      if (parts.size() > kMostParts) throw MathTooLarge{};
    }
    return parts.size() == 1 ? parts[0] : tree_.group(MathKind::kMultiply, std::move(parts));
  }

  int unary() {
    const Nesting nesting(*this);
    if (take("-")) return tree_.negative(unary());
    if (take("+")) return unary();
    if (take("pm")) return plus_minus(1);
    return power();
  }

  // "cm", "\text{ cm}^2", "square meters" behind a value.
  bool skip_unit() {
    if (peek().kind == MathTokenKind::kSeparator) return false;
    if (peek().kind == MathTokenKind::kText || is_unit(peek())) {
      ++at_;
      if (take("^")) atom();
      if (is_mark("/") && (peek(1).kind == MathTokenKind::kText || is_unit(peek(1)))) ++at_;
      return true;
    }
    return false;
  }

  bool begins_factor() const {
    switch (peek().kind) {
      case MathTokenKind::kWord:
      case MathTokenKind::kName:
        return true;
      case MathTokenKind::kCommand:
        return peek().text.rfind("end:", 0) != 0;
      case MathTokenKind::kMark: {
        const std::string& text = peek().text;
        return text == "(" || text == "{" || text == "lfloor" || text == "lceil" ||
               (text == "[" && !strict_) || (text == "|" && bars_ == 0);
      }
      default:
        return false;  // a number may not stand behind a factor: "2 1/2", "x2"
    }
  }

  int power() {
    const Nesting nesting(*this);
    int base = atom();
    for (int64_t n = 0; n < kDeepest; ++n) {
      if (take("^")) {
        if (take("circ") || take("degree")) continue;
        if (is_mark("{") && is_mark("circ", 1) && is_mark("}", 2)) {
          at_ += 3;
          continue;
        }
        base = tree_.power(base, exponent());
      } else if (take("degree") || take("circ")) {
        continue;
      } else if (is_mark("!") && !is_mark("=", 1)) {
        ++at_;
        base = tree_.function("fact", {base});
      } else if (take("%")) {
        base = percent(base);
      } else {
        return base;
      }
    }
    throw MathTooLarge{};
  }

  int exponent() {
    const Nesting nesting(*this);
    if (take("-")) return tree_.negative(exponent());
    if (take("+")) return exponent();
    if (is_mark("{")) return atom();
    const int base = atom();
    return take("^") ? tree_.power(base, exponent()) : base;
  }

  int percent(int id) {
    MathNode node = tree_[id];
    if (node.kind == MathKind::kNumber) {
      node.number /= 100;
    } else {
      node = {.kind = MathKind::kMultiply, .parts = {id, tree_.number(Rational(1, 100))}};
    }
    node.percent = true;
    return tree_.add(std::move(node));
  }

  int atom() {
    const Nesting nesting(*this);
    const MathToken token = peek();
    switch (token.kind) {
      case MathTokenKind::kNumber:
        return number();
      case MathTokenKind::kWord:
        return word();
      case MathTokenKind::kName: {
        ++at_;
        if (token.text == "\\mathbb{R}") return all_numbers();
        return with_subscript(token.text);
      }
      case MathTokenKind::kText:
        ++at_;
        return tree_.add({.kind = MathKind::kText, .name = token.text});
      case MathTokenKind::kCommand:
        return command();
      case MathTokenKind::kMark:
        return bracket();
      default:
        throw MathUnreadable{};
    }
  }

  int all_numbers() {
    const int infinity = tree_.add({.kind = MathKind::kInfinity});
    return tree_.add({.kind = MathKind::kTuple, .name = "()", .parts = {tree_.negative(infinity), infinity}});
  }

  int number() {
    const MathToken token = tokens_[at_++];
    MathNode node{.kind = MathKind::kNumber};
    node.number = token.value, node.decimal = token.decimal;
    if (is_mark("_")) return based(token);
    const int id = tree_.add(std::move(node));
    // 2 1/2 and 2\frac{1}{2}
    if (token.decimal) return id;
    if (peek().kind == MathTokenKind::kNumber && peek().spaced && is_mark("/", 1) &&
        peek(2).kind == MathTokenKind::kNumber && !peek().decimal && !peek(2).decimal &&
        peek().value < peek(2).value) {
      const Rational fraction = peek().value / peek(2).value;
      at_ += 3;
      return tree_.number(token.value + fraction);
    }
    if (!is_command("frac")) return id;
    const int fraction = command();
    const MathNode& found = tree_[fraction];
    const MathNode& top = tree_[found.parts[0]];
    const MathNode& bottom = tree_[tree_[found.parts[1]].parts[0]];
    const bool proper = top.kind == MathKind::kNumber && bottom.kind == MathKind::kNumber && top.number > 0 &&
                        top.number < bottom.number;
    return tree_.group(proper ? MathKind::kAdd : MathKind::kMultiply, {id, fraction});
  }

  int based(const MathToken& digits) {
    ++at_;
    const int base = atom();
    const MathNode& node = tree_[base];
    if (node.kind != MathKind::kNumber) throw MathUnreadable{};
    return tree_.add({.kind = MathKind::kBased, .name = digits.text + "_" + node.number.str()});
  }

  // A run of letters: a function, a constant, or symbols side by side.
  int word() {
    MathToken& token = tokens_[at_];
    const std::string run = token.text;
    if (run == "pi") return ++at_, tree_.add({.kind = MathKind::kConstant, .name = "pi"});
    if (run == "infty" || run == "infinity" || run == "inf" || run == "oo")
      return ++at_, tree_.add({.kind = MathKind::kInfinity});
    if (run == "sqrt") return ++at_, root();
    if (is_known_function(run)) return ++at_, function(run);
    const std::string letter(1, run[0]);
    if (run.size() > 1) {
      token.text = run.substr(1);
      token.spaced = false;
    } else {
      ++at_;
    }
    if (run.size() == 1 && !is_mark("_") && (letter == "e" || letter == "i"))
      return tree_.add({.kind = MathKind::kConstant, .name = letter});
    if (run.size() > 1) return tree_.symbol(letter);
    return with_subscript(letter);
  }

  // x, x_1, x', f(x)
  int with_subscript(std::string name) {
    if (take("_")) name += "_" + subscript();
    while (take("'")) name += "'";
    const bool function = std::string_view("fghFGHW").find(name[0]) != std::string_view::npos;
    if (!function || !is_mark("(")) return tree_.symbol(std::move(name));
    ++at_;
    const int argument = list("");
    expect(")");
    const MathNode& node = tree_[argument];
    std::vector<int> arguments = node.kind == MathKind::kList ? node.parts : std::vector<int>{argument};
    return tree_.function(std::move(name), std::move(arguments));
  }

  std::string subscript() {
    if (!take("{")) {
      MathToken& token = tokens_[at_];
      if (token.kind == MathTokenKind::kEnd) throw MathUnreadable{};
      if (token.kind != MathTokenKind::kWord || token.text.size() == 1) return tokens_[at_++].text;
      const std::string first(1, token.text[0]);
      token.text = token.text.substr(1);  // F_kF is a product
      return first;
    }
    std::string text;
    for (int depth = 1; depth > 0; ++at_) {
      if (peek().kind == MathTokenKind::kEnd) throw MathUnreadable{};
      depth += is_mark("{") ? 1 : is_mark("}") ? -1 : 0;
      if (depth > 0) text += peek().text;
    }
    return text;
  }

  int command() {
    const std::string name = tokens_[at_++].text;
    if (name == "frac") return fraction();
    if (name == "sqrt") return root();
    if (name == "binom") {
      const int n = argument(), k = argument();
      return tree_.function("binom", {n, k});
    }
    if (name.rfind("function:", 0) == 0) return function(name.substr(9));
    if (name.rfind("begin:", 0) == 0 && kMatrices.count(name.substr(6))) return matrix();
    throw MathUnreadable{};
  }

  // {...}; \frac12 takes one digit each, where that is forgiven.
  int argument() {
    if (is_mark("{")) return atom();
    if (strict_) throw MathUnreadable{};
    MathToken& token = tokens_[at_];
    const bool digits = token.kind == MathTokenKind::kNumber &&
                        token.text.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || token.text.size() < 2) return atom();
    const int digit = token.text[0] - '0';
    token.text = token.text.substr(1);
    const size_t first = std::min(token.text.find_first_not_of('0'), token.text.size() - 1);
    token.value = Rational(BigInt(token.text.substr(first)));
    return tree_.number(digit);
  }

  int fraction() {
    const int top = argument(), bottom = argument();
    return tree_.group(MathKind::kMultiply, {top, tree_.inverse(bottom)});
  }

  int root() {
    int degree = -1;
    if (take("[")) {
      degree = sum();
      expect("]");
    }
    const int inside = is_mark("(") || is_mark("{") ? atom() : argument();
    return degree < 0 ? tree_.function("sqrt", {inside}) : tree_.function("root", {inside, degree});
  }

  int function(const std::string& name) {
    const Nesting nesting(*this);
    if (name == "sum" || name == "prod" || name == "int" || name == "lim") return big_operator(name);
    int base = -1, exponent_id = -1;
    if (take("_")) base = atom();
    if (take("^")) exponent_id = exponent();
    std::vector<int> arguments = function_arguments();
    std::string called = name;
    if (base >= 0 && name == "log") called = "logb", arguments.push_back(base);
    if (exponent_id >= 0 && tree_[exponent_id].kind == MathKind::kNumber && tree_[exponent_id].number == -1 &&
        (name == "sin" || name == "cos" || name == "tan"))
      called = "arc" + name, exponent_id = -1;
    const int value = tree_.function(called, std::move(arguments));
    return exponent_id < 0 ? value : tree_.power(value, exponent_id);
  }

  // (x, y), {x}, or without brackets the factors up to the next function or sign.
  std::vector<int> function_arguments() {
    if (take("(")) {
      const int inside = list("");
      expect(")");
      return tree_[inside].kind == MathKind::kList ? tree_[inside].parts : std::vector<int>{inside};
    }
    std::vector<int> factors;
    if (peek().kind == MathTokenKind::kNumber) factors.push_back(power());
    while (begins_factor() && !begins_function() && !is_mark("(")) {
      factors.push_back(power());
      if (factors.size() > kMostParts) throw MathTooLarge{};
    }
    if (factors.empty()) factors.push_back(unary());
    return {factors.size() == 1 ? factors[0] : tree_.group(MathKind::kMultiply, std::move(factors))};
  }

  bool begins_function() const {
    if (peek().kind == MathTokenKind::kCommand) return peek().text.rfind("function:", 0) == 0;
    return peek().kind == MathTokenKind::kWord && is_known_function(peek().text);
  }

  // \sum_{k=0}^{n} body: never computed, compared by its parts.
  int big_operator(const std::string& name) {
    std::vector<int> parts;
    std::string lower;
    if (take("_")) lower = subscript();
    if (take("^")) parts.push_back(exponent());
    parts.push_back(product());
    return tree_.function("\\" + name + "_" + lower, std::move(parts));
  }

  int matrix() {
    MathNode node{.kind = MathKind::kMatrix};
    int columns = 0;
    while (true) {
      if (peek().kind == MathTokenKind::kEnd) throw MathUnreadable{};
      if (peek().kind == MathTokenKind::kCommand && peek().text.rfind("end:", 0) == 0) break;
      if (peek().kind == MathTokenKind::kRow) {
        ++at_;
        if (columns > 0) close_row(node, columns);
      } else if (!take("&")) {
        node.parts.push_back(relation());
        ++columns;
        if (node.parts.size() > kMostParts) throw MathTooLarge{};
        if (!is_mark("&") && !ends_group()) throw MathUnreadable{};
      }
    }
    ++at_;
    if (columns > 0) close_row(node, columns);
    if (node.columns == 0) throw MathUnreadable{};
    return tree_.add(std::move(node));
  }

  static void close_row(MathNode& node, int& columns) {
    if (node.columns != 0 && node.columns != columns) throw MathUnreadable{};
    node.columns = columns;
    columns = 0;
  }

  int bracket() {
    if (take("\\{")) return set();
    if (take("{")) {
      const int inside = list("");
      expect("}");
      return inside;
    }
    if (take("|")) return absolute("|", "abs");
    if (take("lfloor")) return absolute("rfloor", "floor");
    if (take("lceil")) return absolute("rceil", "ceil");
    const bool open = take("(");
    if (!open && !take("[")) throw MathUnreadable{};
    const int bars = std::exchange(bars_, 0);
    const int inside = list("");
    bars_ = bars;
    const bool closed_open = take(")");
    if (!closed_open) expect("]");
    const std::string brackets = {open ? '(' : '[', closed_open ? ')' : ']'};
    const MathNode& node = tree_[inside];
    if (node.kind != MathKind::kList) {
      if (brackets != "()" && (brackets != "[]" || strict_) && node.kind != MathKind::kMatrix)
        throw MathUnreadable{};
      return base_of_group(inside);
    }
    std::vector<int> parts = node.parts;
    if (parts.size() != 2 && brackets != "()" && brackets != "[]") throw MathUnreadable{};
    return tree_.add({.kind = MathKind::kTuple, .name = brackets, .parts = std::move(parts)});
  }

  // (1011)_2
  int base_of_group(int inside) {
    const MathNode& node = tree_[inside];
    if (!is_mark("_") || node.kind != MathKind::kNumber || node.decimal) return inside;
    return based({.kind = MathTokenKind::kNumber, .text = node.number.str()});
  }

  int absolute(std::string_view close, const char* name) {
    ++bars_;
    const int inside = sum();
    --bars_;
    expect(close);
    return tree_.function(name, {inside});
  }

  int set() {
    const int bars = std::exchange(bars_, 1);  // a bar in a set is not an absolute value
    std::vector<int> parts;
    if (!is_mark("\\}")) {
      const int inside = list("");
      parts = tree_[inside].kind == MathKind::kList ? tree_[inside].parts : std::vector<int>{inside};
    }
    bars_ = bars;
    expect("\\}");
    return tree_.group(MathKind::kSet, std::move(parts));
  }

  std::vector<MathToken> tokens_;
  bool strict_;
  MathTree& tree_;
  size_t at_ = 0;
  int depth_ = 0;
  int bars_ = 0;  // open absolute values: the next bar closes one
};

}  // namespace

int parse_math(std::vector<MathToken> tokens, AnswerProfile profile, MathTree& tree) {
  return Parser(std::move(tokens), profile, tree).run();
}

bool is_math_name(const MathTree& tree, int id) {
  const MathNode& node = tree[id];
  switch (node.kind) {
    case MathKind::kSymbol:
    case MathKind::kText:
    case MathKind::kConstant:
      return true;
    case MathKind::kFunction:
      if (!is_known_function(node.name)) return true;
      return node.name == "abs" && is_math_name(tree, node.parts[0]);
    case MathKind::kPower:
      return is_math_name(tree, node.parts[0]) && tree[node.parts[1]].kind == MathKind::kNumber &&
             tree[node.parts[1]].number == -1;
    case MathKind::kMultiply:
    case MathKind::kRatio:
    case MathKind::kTuple:
      return std::all_of(node.parts.begin(), node.parts.end(),
                         [&](int part) { return is_math_name(tree, part); });
    default:
      return false;
  }
}

}  // namespace hadal
