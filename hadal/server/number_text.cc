// Decimals within a range, digit by digit.
#include <algorithm>

#include "hadal/server/json_text.h"

namespace hadal {
namespace {

using Wide = unsigned __int128;
constexpr int kMaxDigits = 15;

Wide power(int exponent) {
  Wide p = 1;
  for (int i = 0; i < exponent; ++i) p *= 10;
  return p;
}

std::string text_of(Wide value, int length) {
  std::string text(static_cast<size_t>(length), '0');
  for (auto digit = text.rbegin(); digit != text.rend(); ++digit, value /= 10)
    *digit = static_cast<char>('0' + static_cast<int>(value % 10));
  return text;
}

// digits * 10^(places - d.places), rounded down or up.
Wide scaled(const Decimal& d, int places, bool up) {
  if (places >= d.places) return d.digits * power(places - d.places);
  const Wide unit = power(d.places - places);
  return (d.digits + (up ? unit - 1 : 0)) / unit;
}

// Numbers with exactly `places` digits behind the point, as their digits without it.
class DigitWriter {
 public:
  using State = Grammar::State;
  DigitWriter(Grammar& grammar, int places, State to) : g_(grammar), places_(places), free_({to}) {}

  void add_between(State from, Wide low, Wide high) {
    for (int length = places_ + 1; length <= 36; ++length) {
      const Wide shortest = length == places_ + 1 ? 0 : power(length - 1);
      const Wide a = std::max(low, shortest), b = std::min(high, power(length) - 1);
      if (a <= b) add_same_length(from, text_of(a, length), text_of(b, length));
    }
  }

 private:
  // Behind the point, if it comes before the last `left` digits.
  State pass_point(State from, size_t left) {
    return places_ > 0 && left == static_cast<size_t>(places_) ? g_.then_literal(from, ".") : from;
  }
  // From here `left` digits follow, whichever.
  State free_digits(size_t left) {
    while (free_.size() <= left) {
      const State from = g_.state_beside(free_[0]);
      const State behind = pass_point(from, free_.size());
      g_.add_bytes(behind, '0', '9', free_.back());
      free_.push_back(from);
    }
    return free_[left];
  }
  void add_same_length(State from, std::string_view low, std::string_view high) {
    const size_t left = low.size();
    const auto is_all = [](std::string_view text, char digit) {
      return text.find_first_not_of(digit) == text.npos;
    };
    if (left == 0 || (is_all(low, '0') && is_all(high, '9'))) return g_.add_empty(from, free_digits(left));
    from = pass_point(from, left);
    const auto digit = [&](char first, char last, State to) {
      if (first <= last) g_.add_bytes(from, static_cast<uint8_t>(first), static_cast<uint8_t>(last), to);
    };
    if (low[0] == high[0]) {
      const State next = g_.state_beside(from);
      digit(low[0], low[0], next);
      return add_same_length(next, low.substr(1), high.substr(1));
    }
    char first = low[0], last = high[0];
    if (!is_all(low.substr(1), '0')) {
      const State next = g_.state_beside(from);
      digit(first, first, next);
      add_same_length(next, low.substr(1), std::string(left - 1, '9'));
      ++first;
    }
    if (!is_all(high.substr(1), '9')) {
      const State next = g_.state_beside(from);
      digit(last, last, next);
      add_same_length(next, std::string(left - 1, '0'), high.substr(1));
      --last;
    }
    if (first <= last) digit(first, last, free_digits(left - 1));
  }

  Grammar& g_;
  int places_;
  std::vector<State> free_;  // [i]: i digits follow
};

}  // namespace

std::optional<Decimal> parse_decimal(const std::string& text) {
  Decimal d;
  int exponent = 0, digits = 0;
  bool behind = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '-') {
      d.negative = true;
    } else if (c == '.') {
      behind = true;
    } else if (c == 'e' || c == 'E') {
      exponent = std::stoi(text.substr(i + 1));
      break;
    } else {
      if (++digits > 2 * kMaxDigits) return std::nullopt;
      d.digits = d.digits * 10 + static_cast<Wide>(c - '0');
      d.places += behind;
    }
  }
  if (d.digits == 0) return Decimal{};
  for (; exponent < 0 || d.places > 0; d.digits /= 10) {  // trailing zeros
    if (d.digits % 10 != 0) break;
    if (d.places > 0)
      --d.places;
    else
      ++exponent;
  }
  d.places -= exponent;
  for (; d.places < 0; ++d.places) {
    if (d.places < -40 || d.digits > power(2 * kMaxDigits)) return std::nullopt;
    d.digits *= 10;
  }
  if (d.places > kMaxDigits || d.digits >= power(kMaxDigits + 4 + d.places)) return std::nullopt;
  return d;
}

// With 0, 1, 2 .. places behind the point each: as integers, with the bounds rounded inwards.
bool JsonText::add_number(State from, const NumberRange& range, State to) {
  int whole_digits = 1, places = 0;
  for (const auto& bound : {range.low, range.high}) {
    if (!bound) continue;
    places = std::max(places, bound->places);
    for (int n = 1; n <= kMaxDigits + 4; ++n)
      if (bound->digits / power(bound->places) >= power(n)) whole_digits = std::max(whole_digits, n + 1);
  }
  // As many as a double holds, and at least those of the bounds.
  places = std::min(range.max_places, std::max(places, kMaxDigits - whole_digits));
  bool any = false;
  const Wide unbounded = power(std::max(kMaxDigits, whole_digits)) - 1;
  // The magnitudes of one sign. `inner` is the bound nearer to zero.
  const auto add = [&](State begin, const std::optional<Decimal>& inner, bool above, bool zero,
                       const std::optional<Decimal>& outer, bool below) {
    for (int k = 0; k <= places; ++k) {
      Wide low = zero ? 0 : 1, high = unbounded * power(k);
      if (inner)
        low = std::max(
            low, scaled(*inner, k, true) + (above && scaled(*inner, k, true) == scaled(*inner, k, false)));
      if (outer) {
        high = scaled(*outer, k, false);
        if (below && high == scaled(*outer, k, true)) {
          if (high == 0) continue;
          --high;
        }
      }
      if (low > high) continue;
      any = true;
      DigitWriter(g_, k, to).add_between(begin, low, high);
    }
  };
  const bool low_negative = !range.low || range.low->negative,
             high_negative = range.high && range.high->negative;
  if (!high_negative)
    add(from, low_negative ? std::nullopt : range.low, range.above_low, true, range.high, range.below_high);
  if (low_negative)
    add(g_.then_literal(from, "-"), high_negative ? range.high : std::nullopt, range.below_high, false,
        range.low, range.above_low);
  return any;
}

}  // namespace hadal
