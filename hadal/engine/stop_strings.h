// Ends a stream of text at the first stop string. Torch-free.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// Text goes in by pieces cut anywhere and comes out as soon as it cannot be the start of a stop string. The
// stop string whose last byte comes first ends the stream (of several that end there, the longest); neither
// it nor anything after it comes out. What comes out in total does not depend on the cuts. Linear in the text
// for each stop.
class StopStrings {
 public:
  StopStrings() = default;
  // Throws invalid_argument on an empty stop string.
  explicit StopStrings(std::vector<std::string> stops);

  // Takes the next piece, gives what may be shown now. After a match: "".
  std::string push(std::string_view piece);

  // The stream has ended without a match: gives what was held back.
  std::string finish();

  bool stopped() const { return stopped_; }
  const std::string& matched() const { return matched_; }  // the stop string; "" before a match

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t>
        border;        // border[i]: longest proper prefix of text that ends text[0..i] (Knuth, Morris, Pratt)
    size_t state = 0;  // bytes of text that the stream ends with
  };
  std::vector<Pattern> patterns_;
  std::string held_;
  std::string matched_;
  bool stopped_ = false;
};

}  // namespace hadal
