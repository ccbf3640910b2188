// Whether speculation pays, measured: acceptance and step times, passed in. Torch-free, no clock.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace hadal {

struct SpeculationGaugeOptions {
  double margin = 0.05;       // the way changes only when the other is this much faster
  int64_t probe_steps = 8;    // measured steps of a probe
  int64_t min_interval = 64;  // steps between probes; doubles with every probe that changes nothing
  int64_t max_interval = 1024;
  bool start = true;  // speculate before anything is known
};

// A step of decoding alone (no prompts in it).
struct DecodeTiming {
  int64_t sequences = 0;  // >= 1
  int64_t drafted = 0;    // of them, those that brought drafts
  int64_t accepted = 0;   // drafts that stood, in all
  double seconds = 0;     // from one step to the next: drafting included
};

// Speculation multiplies the tokens of a step by the gain g = 1 + drafts accepted a sequence and step, and
// its time by the cost c. It pays if g > c. g is a property of text and draft: one running mean over all
// steps. c depends on how many sequences share a step: a class for each number up to 8, above it four to the
// octave; times are medians of the last 15, so that one slow step does not count. The way that is not taken
// is measured again from time to time (probes), and hysteresis keeps noise from flipping it.
//
// Probes measure acceptance too, so the draft's cache rows must be kept up to date while speculation is off,
// or the sequences that are drafted for must have them.
class SpeculationGauge {
 public:
  explicit SpeculationGauge(const SpeculationGaugeOptions& options = {});

  // Should the next step, of so many sequences, bring drafts?
  bool speculate(int64_t sequences) const;
  // Steps in which only some sequences were drafted for count for the gain alone.
  void record(const DecodeTiming& step);

  double gain() const { return gain_; }  // 1 while nothing was drafted
  double cost(int64_t sequences) const;  // time of a step with drafts to one without; 0 while unknown
  int64_t switches() const { return switches_; }
  int64_t probes() const { return probes_; }

 private:
  static constexpr int64_t kWindow = 15;
  struct Times {
    std::vector<double> last;  // seconds, a ring of kWindow
    size_t next = 0;
    void add(double seconds);
    double median() const;  // 0: none so far
  };
  struct Class {
    bool on = false;  // the way taken, probes aside
    Times with, without;
    int64_t interval = 0, steps = 0;  // steps since the last probe
    int64_t probe_left = 0;           // steps, while probing
  };

  static int64_t class_of(int64_t sequences);
  void learn_gain(const DecodeTiming& step);
  void decide(Class& c);

  SpeculationGaugeOptions options_;
  std::map<int64_t, Class> classes_;
  double gain_ = 1;
  double gain_samples_ = 0;  // its weight: sequences and steps
  int64_t switches_ = 0, probes_ = 0;
};

}  // namespace hadal
