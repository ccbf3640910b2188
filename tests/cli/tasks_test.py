"""hadal tasks and hadal eval --task, on files made here and the golden model with a token for each byte."""

import collections
import json
import pathlib
import tempfile

from program import ProgramTest, hadal, main, make_byte_model


class Tasks(ProgramTest):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.folder = pathlib.Path(self.scratch.name)

    def make(self, name, *flags, command="make", kind="addition"):
        path = str(self.folder / name)
        self.assert_answers(hadal("tasks", command, kind, "--count", "20", "--out", path, *flags))
        return path

    def lines(self, path):
        return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]

    def test_parts_are_disjoint_and_a_file_is_not_disjoint_from_itself(self):
        train, held_out = self.make("a"), self.make("b", "--part", "held-out", "--seed", "3")
        self.assertIn("no prompt in both", self.assert_answers(hadal("tasks", "check", train, held_out)))
        self.assert_fails(hadal("tasks", "check", train, train), 1, "20 of 20 held-out prompts are also trained on")

    def test_demonstrations_and_preferences_have_their_columns(self):
        one = self.lines(self.make("a", "--demonstrations", "--messages"))[0]
        self.assertTrue(one["completion"][0]["content"].startswith("<think>"))
        one = self.lines(self.make("b", command="preferences", kind="words"))[0]
        self.assertGreater(one["chosen_score"], one["rejected_score"])

    def test_wrong_requests_say_what_is_wrong(self):
        out = str(self.folder / "x")
        self.assert_fails(hadal("tasks", "make", "additon", "--out", out), 2, 'did you mean "addition"')
        self.assert_fails(hadal("tasks", "make", "addition", "--out", out, "--level", "12"), 1, "has levels 1 to 9")
        self.assert_fails(hadal("eval", out, "--task", out, "--k", "4"), 1, "--k is 4, --samples 1")
        self.assert_fails(hadal("eval", out), 1, "Give --data or --task")
        self.assert_fails(hadal("tasks", "make", "needle", "--out", out, "--level", "8"), 1, "needle has levels 16 to")

    def model(self):
        make_byte_model(self.folder / "model")
        return str(self.folder / "model")

    def test_eval_by_columns_covers_every_task_and_is_drawn(self):
        model, tasks, out = self.model(), self.make("a", "--level", "16", kind="needle"), self.folder / "e.json"
        lines = self.lines(tasks)
        ask = ("eval", model, "--task", tasks, "--max-tokens", "1", "--template", "none", "--threads", "1")
        found = json.loads(self.assert_answers(hadal(*ask, "--by", "length,depth", "--json")))
        self.assertEqual(found["by"]["columns"], ["length", "depth"])
        counted = {tuple(group["values"]): group["tasks"] for group in found["by"]["groups"]}
        self.assertEqual(counted, collections.Counter((line["length"], line["depth"]) for line in lines))
        self.assertIn("of 20", self.assert_answers(hadal(*ask, "--by", "length")))
        self.assert_fails(hadal(*ask, "--by", "deepness"), 1, "has no such column")
        out.write_text(json.dumps(found))
        self.assert_answers(hadal("plot", str(out), "--out", str(self.folder / "p.html")))
        self.assertIn("Right answers by depth, length 16, %", (self.folder / "p.html").read_text())
        self.assert_fails(hadal("plot", str(out), model, "--out", str(self.folder / "p.html")), 1, "is a run beside evaluations")

    def test_eval_by_document_begins_rows_where_documents_begin(self):
        model, shards, text = self.model(), str(self.folder / "shards"), self.folder / "text.jsonl"
        text.write_text("".join(json.dumps({"text": "a" * n}) + "\n" for n in (1, 10, 20)))
        self.assert_answers(hadal("data", "build", shards, "--tokenizer", model, "--format", "jsonl", "--input", str(text)))
        ask = ("eval", model, "--length", "16", "--threads", "1", "--json", "--data")
        found = json.loads(self.assert_answers(hadal(*ask, shards, "--by-document", "--positions", "2")))
        # Ten bytes and EOS less the first and what MTP looks ahead; the longer one is cut; "a" has too few tokens.
        self.assertEqual(found["tokens"], 9 + 16)
        self.assertNotEqual(found["loss"], json.loads(self.assert_answers(hadal(*ask, shards)))["loss"])
        self.assert_fails(hadal(*ask, str(text), "--by-document"), 1, "is a text, need token shards")

    def test_eval_answers_every_task_and_compare_reads_the_results(self):
        model, tasks, results = self.model(), self.make("a", "--level", "1"), str(self.folder / "r")
        done = hadal("eval", model, "--task", tasks, "--samples", "2", "--k", "1,2", "--max-tokens", "4", "--profile", "reward", "--out",
                     results, "--json", "--threads", "1")
        figures = json.loads(self.assert_answers(done))
        self.assertEqual((figures["tasks"], figures["samples"], figures["avg@2"]["mean"]), (20, 2, 0))
        self.assertEqual(figures["pass@2"]["mean"], 0)
        found = self.lines(results)
        self.assertEqual([len(line["samples"]) for line in found], [2] * 20)
        self.assertTrue(all(s["tokens"] <= 4 and s["right"] == 0 for line in found for s in line["samples"]))
        # The byte tokenizer has V3's markers: a text is a user's turn, as in hadal grpo, unless told otherwise.
        plain = hadal("eval", model, "--task", tasks, "--samples", "2", "--max-tokens", "4", "--template", "none", "--json",
                      "--out", results + "2", "--threads", "1")
        self.assert_answers(plain)
        self.assertNotEqual(self.lines(results + "2"), found)
        compared = json.loads(self.assert_answers(hadal("tasks", "compare", results, results, "--json")))
        self.assertEqual((compared["difference"], compared["questions"]), (0, 20))


main()
