// How long a request would wait for its first token, from what the engine did lately. Arithmetic only: no
// clock, no threads.
#pragma once
#include <cstdint>
#include <vector>

namespace hadal {

// What stands before a new request.
struct WaitingWork {
  int64_t requests = 0;                     // without a first token yet, the new one among them
  int64_t prompt_tokens = 0;                // of theirs
  std::vector<int64_t> generated, at_most;  // of each answer that has begun: tokens so far, and at the end
};

class WaitEstimate {
 public:
  // Of a step: its time, the rows of prompts and the tokens of answers that came of it. Rows of one step cost
  // alike. Each rate is a mean over the last seconds spent on its kind of row.
  void add_step(double seconds, int64_t prompt_rows, int64_t tokens);
  // An answer that ended, or whose client left.
  void add_answer(int64_t tokens);

  // Seconds until the last of these requests has its first token, with `slots` answers at a time: those that
  // have no slot wait for answers to end, all of which go on at the same pace; then come the prompts. 0 for
  // what was not measured yet.
  double seconds(const WaitingWork& work, int64_t slots) const;

 private:
  // Rows and the seconds they took, the older the lighter.
  struct Rate {
    double seconds = 0, rows = 0;
    void add(double more_seconds, double more_rows);
    double seconds_per_row() const { return rows > 0 ? seconds / rows : 0; }
  };
  double expected_rest(int64_t generated, int64_t at_most) const;

  Rate prompts_, tokens_;
  double mean_answer_ = 256;  // tokens; a guess until an answer has ended
  int64_t num_answers_ = 0;
};

}  // namespace hadal
