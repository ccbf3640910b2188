"""hadal plot: a page of runs, and what can be wrong with them."""

import json
import os
import shutil
import tempfile

from program import ProgramTest, hadal, main


class Plot(ProgramTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.out = os.path.join(self.folder, "page.html")

    def run_folder(self, name, steps=30, tail=""):
        folder = os.path.join(self.folder, name)
        os.mkdir(folder)
        with open(os.path.join(folder, "metrics.jsonl"), "w") as file:
            for step in range(1, steps + 1):
                line = {"kind": "step", "step": step, "tokens": step, "loss": 3 / step, "lr": 1e-3, "grad_norm": 1.0}
                file.write(json.dumps(line) + "\n")
            file.write(tail)
        return folder

    def page(self):
        with open(self.out) as file:
            return file.read()

    def test_several_runs_make_one_page_and_nothing_on_stdout(self):
        one, two = self.run_folder("one"), self.run_folder("two & more")
        for more in ([], ["--x", "tokens", "--log-loss", "--smooth", "5", "--title", "A < B"]):
            self.assertEqual(self.assert_answers(hadal("plot", one, two, "--out", self.out, *more)), "")
            self.assertIn("two &amp; more", self.page())
        self.assertIn("<title>A &lt; B</title>", self.page())
        self.assertEqual(self.assert_answers(hadal("plot", os.path.join(one, "metrics.jsonl"), "--out", self.out)), "")

    def test_a_run_that_goes_on_is_drawn_without_its_torn_line(self):
        run = self.run_folder("run", tail='{"kind":"step","st')
        self.assert_answers(hadal("plot", run, "--out", self.out))
        self.assertIn("line 31: torn", self.page())

    def test_what_is_no_run_is_named_and_nothing_is_written(self):
        empty = os.path.join(self.folder, "empty")
        os.mkdir(empty)
        self.assert_fails(hadal("plot", empty, "--out", self.out), 1, empty, "metrics.jsonl")
        self.assert_fails(hadal("plot", "/no/such/run", "--out", self.out), 1, "/no/such/run")
        bad = self.run_folder("bad", steps=2, tail="nonsense\n")
        self.assert_fails(hadal("plot", bad, "--out", self.out), 3, "metrics.jsonl line 3", "byte")
        good = self.run_folder("good")
        self.assert_fails(hadal("plot", good, "--out", self.out, "--x", "hours"), 1, good, "timing.jsonl")
        self.assertFalse(os.path.exists(self.out))
        self.assert_fails(hadal("plot", good, "--out", "/no/such/place/p.html"), 1, "/no/such/place/p.html")

    def test_wrong_usage_is_said(self):
        run = self.run_folder("run")
        self.assert_fails(hadal("plot", "--out", self.out), 2, "RUN")
        self.assert_fails(hadal("plot", run), 2, "--out")
        self.assert_fails(hadal("plot", run, "--out", self.out, "--x", "token"), 2, "tokens")
        self.assert_fails(hadal("plot", run, "--out", self.out, "--smooth", "-1"), 2, "--smooth")


if __name__ == "__main__":
    main()
