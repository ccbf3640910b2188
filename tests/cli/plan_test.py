"""hadal plan experts: the published example, and what it does not take."""

import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from program import ProgramTest, hadal, main  # noqa: E402

LOADS = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
SHAPE = ("--copies", "16", "--groups", "4", "--nodes", "2", "--devices", "8")


class PlanExperts(ProgramTest):
    def plan(self, loads, *flags):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(loads if isinstance(loads, str) else json.dumps(loads))
            file.flush()
            return hadal("plan", "experts", file.name, *flags)

    def test_the_published_example_is_placed_as_published(self):
        plan = json.loads(self.assert_answers(self.plan(LOADS, *SHAPE, "--json")))
        self.assertEqual(plan["layers"][1]["expert_of_copy"], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1])
        self.assertEqual(plan["layers"][0]["copies_of_expert"][5], [0, 2])
        # Layer 0: 90 and half of 132 on device 6 of 8, 1033 in all.
        text = self.assert_answers(self.plan(LOADS, *SHAPE))
        self.assertIn("layer 0: the busiest device has 1.21 of the mean\n  device 0: 5 6\n", text)

    def test_bad_loads_and_shapes_are_refused_in_one_line(self):
        self.assert_fails(self.plan("{}"), 1, "need [[load, ...], ...]")
        self.assert_fails(self.plan("[[1, \"2\"]]"), 1, "need [[load, ...], ...]")
        self.assert_fails(self.plan("[]"), 1, "there are no loads")
        self.assert_fails(self.plan([[1, -1]], "--devices", "1"), 1, "layer 0 has the load -1")
        self.assert_fails(self.plan(LOADS, "--devices", "5"), 1, "12 copies are not a multiple of 5 devices")
        self.assert_fails(hadal("plan", "experts", "nowhere.json"), 1, "nowhere.json")


main()
