"""hadal agent: a model that knows nothing still runs to an end, and its transcript says what happened."""

import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from program import ProgramTest, hadal, main, make_byte_model  # noqa: E402


class Agent(ProgramTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        make_byte_model(self.folder.name, positions=8192)  # room for a prompt of bytes

    def run_agent(self, *flags):
        return hadal("agent", self.folder.name, "-p", "What is 2 + 2?", "--threads", "1", *flags)

    def test_ends_with_a_reason_and_a_transcript(self):
        path = os.path.join(self.folder.name, "transcript.jsonl")
        done = self.run_agent("--tools", "calculator,note", "--max-tokens", "12", "--greedy", "--transcript", path)
        self.assertIn("[agent] ended: ", done.err)
        with open(path, encoding="utf-8") as file:
            events = [json.loads(line) for line in file]
        self.assertEqual(events[0], {"event": "task", "text": "What is 2 + 2?"})
        self.assertEqual(events[1]["event"], "turn")
        self.assertLessEqual(events[1]["tokens"], 12)
        self.assertEqual(events[-1]["event"], "end")
        self.assertEqual(done.code, 0 if events[-1]["reason"] == "answered" else 1)

    def test_json_is_the_transcript_and_a_seed_repeats_it(self):
        def events():
            lines = [json.loads(x) for x in self.run_agent("--max-tokens", "8", "--seed", "3", "--json").out.splitlines()]
            return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

        first = events()
        self.assertEqual(first, events())
        self.assertEqual([first[0]["event"], first[-1]["event"]], ["task", "end"])

    def test_bad_usage_is_refused(self):
        self.assert_fails(self.run_agent("--tools", "calculater"), 1, "did you mean \"calculator\"")
        self.assert_fails(self.run_agent("--tools", "search"), 1, "--documents DIR")
        self.assert_fails(self.run_agent("--tools", "read", "--documents", "/no/such", "--tools", "search"), 1, "/no/such is no folder")
        self.assertEqual(self.run_agent("--turns", "0").code, 2)
        self.assert_fails(self.run_agent("--transcript", "/no/such/file"), 1, "cannot write /no/such/file")


if __name__ == "__main__":
    main()
