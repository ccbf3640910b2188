#include "hadal/engine/speculation_gauge.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "hadal/base/random.h"

namespace hadal {
namespace {

// Steps of a machine with a known gain and cost. Counts what the gauge chose.
struct Machine {
  SpeculationGauge gauge;
  uint64_t step = 0;
  int64_t with = 0, without = 0;

  void run(int64_t steps, int64_t sequences, double acceptance, double cost, double noise = 0) {
    with = without = 0;
    for (int64_t i = 0; i < steps; ++i, ++step) {
      const bool on = gauge.speculate(sequences);
      DecodeTiming timing{.sequences = sequences, .drafted = on ? sequences : 0, .seconds = 0.01};
      for (int64_t s = 0; on && s < sequences; ++s)
        timing.accepted += uniform(1, static_cast<uint64_t>(s), step) <= acceptance;
      if (on) timing.seconds *= cost;
      timing.seconds *= 1 + noise * normal(2, 0, step);
      if (noise > 0 && uniform(3, 0, step) < 0.05) timing.seconds *= 20;  // the machine was elsewhere
      (on ? with : without) += 1;
      gauge.record(timing);
    }
  }
};

TEST(SpeculationGauge, StaysOnWhileItPays) {
  Machine machine;
  machine.run(20'000, 1, 0.85, 1.2);
  EXPECT_GT(machine.with, 19'000);
  EXPECT_NEAR(machine.gauge.gain(), 1.85, 0.15);  // 256 draws: 6 standard deviations
  EXPECT_NEAR(machine.gauge.cost(1), 1.2, 1e-9);
  EXPECT_EQ(machine.gauge.switches(), 0);
}

TEST(SpeculationGauge, SwitchesOffSoonWhenItDoesNotPay) {
  Machine machine;
  machine.run(200, 1, 0.3, 1.6);
  EXPECT_LT(machine.with, 80);
  machine.run(20'000, 1, 0.3, 1.6);
  EXPECT_LT(machine.with, 400);  // probes only
  EXPECT_GT(machine.with, 0);
}

TEST(SpeculationGauge, SwitchesBackWhenItPaysAgainAndOffWhenItDoesNot) {
  Machine machine;
  machine.run(3000, 1, 0.1, 1.5);
  EXPECT_FALSE(machine.gauge.speculate(1));
  machine.run(20'000, 1, 0.9, 1.3);
  EXPECT_TRUE(machine.gauge.speculate(1));
  EXPECT_GT(machine.with, 15'000);
  machine.run(400, 1, 0.05, 1.3);  // acceptance is seen without a probe
  EXPECT_FALSE(machine.gauge.speculate(1));
}

TEST(SpeculationGauge, SeesAnotherTextWithinAFewProbes) {
  Machine machine;
  machine.run(300, 8, 0.1, 1.5);  // much was seen of the old text
  machine.run(20'000, 1, 0.1, 1.5);
  machine.run(4 * 1024, 1, 0.95, 1.4);
  EXPECT_TRUE(machine.gauge.speculate(1));
}

TEST(SpeculationGauge, NoiseAroundTheBreakEvenSwitchesSeldom) {
  Machine machine;
  machine.run(50'000, 1, 0.5, 1.5, 0.05);
  EXPECT_LT(machine.gauge.switches(), 60);  // fewer than one in 800 steps
}

TEST(SpeculationGauge, SlowStepsByAccidentDoNotDecide) {
  Machine machine;
  machine.run(20'000, 1, 0.85, 1.2, 0.1);
  EXPECT_GT(machine.with, 18'500);
  Machine other;
  other.run(20'000, 1, 0.2, 1.6, 0.1);
  EXPECT_LT(other.with, 1'000);
}

TEST(SpeculationGauge, DecidesForEachNumberOfSequencesByItself) {
  Machine machine;
  for (int round = 0; round < 50; ++round) {
    machine.run(100, 1, 0.7, 1.2);
    machine.run(100, 32, 0.7, 2.0);
  }
  EXPECT_TRUE(machine.gauge.speculate(1));
  EXPECT_FALSE(machine.gauge.speculate(32));
  machine.run(100, 1, 0.7, 1.2);
  EXPECT_GE(machine.with, 90);
  machine.run(100, 32, 0.7, 2.0);
  EXPECT_GE(machine.without, 90);
}

TEST(SpeculationGauge, MixedStepsCountForTheGainAlone) {
  SpeculationGauge gauge;
  for (int i = 0; i < 100; ++i) gauge.record({.sequences = 4, .drafted = 2, .accepted = 1, .seconds = 1e3});
  EXPECT_NEAR(gauge.gain(), 1.5, 1e-12);
  EXPECT_EQ(gauge.cost(4), 0);
  EXPECT_TRUE(gauge.speculate(4));
}

TEST(SpeculationGauge, SameMeasurementsGiveTheSameChoices) {
  Machine a, b;
  for (Machine* machine : {&a, &b}) machine->run(5000, 3, 0.5, 1.4, 0.1);
  EXPECT_EQ(a.with, b.with);
  EXPECT_EQ(a.gauge.switches(), b.gauge.switches());
}

}  // namespace
}  // namespace hadal
