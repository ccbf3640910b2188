"""hadal plan: a cluster on paper, as text, JSON and picture; what it refuses."""

import json
import os
import re
import tempfile
import xml.etree.ElementTree as xml

from program import ProgramTest, hadal, main

V3 = ("plan", "--preset", "v3", "--gpus", "2048")
LAYOUT = "pp=16,ep=64,schedule=dualpipe"


class Plan(ProgramTest):
    def test_text_and_json_say_the_same(self):
        text = self.assert_answers(hadal(*V3, "--layout", LAYOUT))
        said = json.loads(self.assert_answers(hadal(*V3, "--layout", LAYOUT, "--json")))
        plan = said["plan"]
        self.assertIn(format(round(plan["gpu_hours_per_trillion_tokens"]), ","), text)
        self.assertIn(format(round(plan["tokens_per_second"]), ","), text)
        self.assertIn(f"MFU {100 * plan['mfu_bf16']:.1f} %", text)
        self.assertEqual(plan["microbatches"], 120)
        self.assertTrue(plan["fits"])
        self.assertEqual(len(plan["ranks"]), 16)
        for rank in plan["ranks"]:
            parts = dict(rank["memory_bytes"])
            total = parts.pop("total")
            self.assertAlmostEqual(sum(parts.values()), total, delta=1)
            self.assertIn(f"{total / 2**30:.2f}", text)
        self.assertEqual(sum(stage["units"] for stage in plan["stages"]), 61 + 1)
        self.assertEqual(said["facts"]["peak_bf16_tflops"], 989)

    def test_seconds_and_cost_follow_from_their_parts(self):
        plan = json.loads(hadal(*V3, "--layout", LAYOUT, "--json", "--assume.price", "3").out)["plan"]
        parts = plan["pipeline_seconds"] + plan["reduction_seconds"] + plan["optimizer_seconds"]
        self.assertAlmostEqual(plan["step_seconds"], parts)
        self.assertAlmostEqual(plan["tokens_per_second"], 15360 * 4096 / parts, delta=1)
        self.assertAlmostEqual(plan["cost_per_trillion_tokens"], 3 * plan["gpu_hours_per_trillion_tokens"], delta=1)

    def test_the_picture_has_every_rank_and_all_of_its_memory(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "plan.svg")
            self.assert_answers(hadal(*V3, "--layout", LAYOUT, "--svg", path))
            root = xml.parse(path).getroot()
        tips = [tip.text for tip in root.iter("{http://www.w3.org/2000/svg}title")]
        for rank in range(16):
            self.assertEqual(sum(tip.startswith(f"rank {rank}, ") for tip in tips), 8)
        # 120 micro-batches through 16 stages, each stage on one of its two ranks: every forward is drawn once.
        self.assertEqual(len({tip.split("&")[0].split(",")[0] for tip in tips if re.match(r"F\d", tip)}), 120 * 16)

    def test_without_a_layout_it_proposes_the_fastest_that_fit(self):
        command = ("plan", "--preset", "v2-lite", "--gpus", "8", "--batch", "64", "--top", "3")
        text = self.assert_answers(hadal(*command))
        found = json.loads(hadal(*command, "--json").out)
        self.assertEqual(len(found["plans"]), 3)
        self.assertEqual(found["tried"], found["fitting"] + sum(found["refused"].values()))
        speeds = [plan["tokens_per_second"] for plan in found["plans"]]
        self.assertEqual(speeds, sorted(speeds, reverse=True))
        for plan in found["plans"]:
            self.assertIn(plan["layout"], text)
            again = json.loads(hadal(*command, "--layout", plan["layout"], "--json").out)["plan"]
            self.assertEqual(again, plan)

    def test_what_does_not_fit_is_said(self):
        text = self.assert_answers(hadal(*V3, "--layout", LAYOUT, "--assume.memory_gib", "60"))
        self.assertIn("DOES NOT FIT", text)
        self.assert_fails(hadal("plan", "--preset", "v3", "--gpus", "8"), 1, "no layout will do", "break: memory")

    def test_a_broken_rule_is_named(self):
        self.assert_fails(hadal(*V3, "--layout", "pp=16,ep=48"), 1, "ep 48 does not divide dp 128", "Rule: ep divides dp")
        self.assert_fails(hadal(*V3, "--layout", "pp=16,dp=100"), 1, "= 1600 ranks: need the 2048 GPUs")

    def test_a_model_that_cannot_be_trained_is_refused(self):
        self.assert_fails(hadal("plan", "--config", "tests/golden/v32-tiny", "--gpus", "8"), 1, "deepseek_v32", "not trained")

    def test_bad_usage_is_refused(self):
        self.assert_fails(hadal("plan"), 2, "--preset and --config")
        self.assert_fails(hadal("plan", "--preset", "v3"), 2, "--gpus")
        self.assert_fails(hadal("plan", "--preset", "v3", "--gpus", "0"), 2, "--gpus")
        self.assert_fails(hadal("plan", "--preset", "v3", "--gpus", "9000000000000000000"), 2, "from 1 to 16777216")
        self.assert_fails(hadal(*V3, "--batch", "16777217"), 2, "from 1 to 16777216")
        self.assert_fails(hadal("plan", "nothing"), 2, 'unknown command "nothing"')
        self.assert_fails(hadal(*V3, "--layout", "px=1"), 1, 'did you mean "pp"?')
        self.assert_fails(hadal(*V3, "--assume.gemm_fp8", "2"), 1, "gemm_fp8", "a share above 0, at most 1")
        self.assert_fails(hadal(*V3, "--length", "163841"), 1, "--length 163841", "163840")

    def test_the_schedule_command_below_it_still_answers(self):
        self.assertIn("dualpipe: 8 ranks", self.assert_answers(hadal("plan", "schedule")))

    def test_a_schedule_is_run_against_the_clock_beside_what_is_said_of_it(self):
        shape = ("plan", "schedule", "--kind", "dualpipe", "--ranks", "2", "--microbatches", "4", "--measure", "3")
        measured = json.loads(self.assert_answers(hadal(*shape, "--json")))["measured"]
        run, said = measured["run"], measured["said"]
        self.assertEqual((said["makespan"], said["idle"], said["peak_held"]), (12, [0, 0], [3, 3]))
        self.assertEqual(run["peak_held"], [3, 3])
        self.assertGreaterEqual(run["makespan"], 12)  # no sleep ends early
        self.assertIn("run with 3 ms a unit", self.assert_answers(hadal(*shape)))
        self.assert_fails(hadal(*shape[:-1], "-1"), 2, "--measure")


if __name__ == "__main__":
    main()
