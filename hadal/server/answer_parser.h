// What a model wrote, taken apart while it is being written: reasoning, answer and tool calls in DeepSeek's
// formats (V3, R1: type, name and fenced arguments; V3.1: name and bare arguments). Torch-free.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

struct AnswerPiece {
  enum Kind { kContent, kReasoning, kToolCall };
  Kind kind = kContent;
  std::string text;  // kToolCall: the arguments, whole
  std::string name;  // of the tool
};

struct AnswerFormat {
  bool reasoning = true;             // a leading <think>...</think> is split off; false: it is text
  bool starts_in_reasoning = false;  // the prompt ended with <think>
  bool tools = false;                // calls are split off; false: they are text
};

// The pieces, concatenated by kind, do not depend on how the text was cut. What may be the start of a marker
// is held back until that is known, a tool call until it is whole. Blanks around the parts are dropped. A
// call that breaks its format or is cut off is content, spelled as written: nothing a model wrote is lost.
class AnswerParser {
 public:
  explicit AnswerParser(const AnswerFormat& format);

  std::vector<AnswerPiece> push(std::string_view text);
  std::vector<AnswerPiece> finish();  // what was held back

  bool in_reasoning() const { return where_ == Where::kReasoning; }
  size_t num_tool_calls() const { return num_calls_; }

 private:
  enum class Where { kStart, kReasoning, kContent, kCalls };
  using Pieces = std::vector<AnswerPiece>;

  bool advance(Pieces& out);  // false: more text is needed
  bool leave_start();
  bool read_part(Pieces& out, AnswerPiece::Kind kind, std::string_view end, Where next);
  bool read_call(Pieces& out);
  void spell(Pieces& out, size_t n);
  void give(Pieces& out, AnswerPiece::Kind kind, std::string_view text);

  AnswerFormat format_;
  Where where_;
  std::string held_;         // not yet given
  bool part_began_ = false;  // the part being read has given something
  size_t num_calls_ = 0;
  std::string unsaid_;    // blanks and marker before the first call: written out if it proves to be none
  bool spelled_ = false;  // the last call was none
};

}  // namespace hadal
