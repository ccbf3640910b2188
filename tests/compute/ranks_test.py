"""hadal train as several processes: the bytes of one process, faults, stops, resumes in other layouts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cli"))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
import kill_test  # noqa: E402
import rank_kills  # noqa: E402
from program import HADAL, ProgramTest, is_running, main  # noqa: E402

TORCHRUN = os.environ.get("HADAL_TORCHRUN") or shutil.which("torchrun")
MPIRUN = shutil.which("mpirun")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


class Ranks(ProgramTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.text = os.path.join(self.folder, "text.txt")
        with open(self.text, "w") as file:
            file.write(kill_test.TEXT)

    def command(self, out, *more, steps=6):
        return [
            *("train", "--data", self.text, "--out", os.path.join(self.folder, out), "--batch", "4", "--length", "32"),
            *("--threads", "1", "--batch.workers", "2", "--save-every", "3", "--steps", str(steps), *more),
        ]

    def run_it(self, command, code=0):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, check=False)
        self.assertEqual(done.returncode, code, done.stdout.decode())
        return done.stdout.decode()

    def launched(self, n, *arguments):
        return [HADAL, "launch", "-n", str(n), "--", *arguments]

    def bytes_of(self, out):
        """The trained model, the newest checkpoint and what was measured."""
        found = {}
        for name in ("model.safetensors", "metrics.jsonl"):
            with open(os.path.join(self.folder, out, name), "rb") as file:
                found[name] = file.read()
        checkpoints = os.path.join(self.folder, out, "checkpoints")
        newest = max(os.listdir(checkpoints))
        for name in ("model.safetensors", "optimizer.safetensors"):
            with open(os.path.join(checkpoints, newest, name), "rb") as file:
                found["last " + name] = file.read()
        # The first line says when and how: without it the numbers of the steps are left.
        lines = found["metrics.jsonl"].splitlines()
        found["metrics.jsonl"] = [line for line in lines if b'"kind":"run"' not in line.replace(b" ", b"")]
        return found

    def assert_same_run(self, got, want):
        got, want = self.bytes_of(got), self.bytes_of(want)
        for name, value in want.items():
            self.assertTrue(got[name] == value, name)

    def start(self, n, *arguments):
        """A launcher once its ranks train, and the pids of the ranks in order."""
        process = subprocess.Popen(self.launched(n, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        for line in process.stderr:
            if line.startswith(b"[0] step"):
                break
        return process, sorted(children(process.pid))

    def end_of(self, process, seconds):
        begin = time.monotonic()
        text = process.stderr.read().decode()
        code = process.wait(timeout=60)
        self.assertLess(time.monotonic() - begin, seconds, text)
        return code, text


class Layouts(Ranks):
    def test_any_layout_trains_the_model_of_one_process_byte_for_byte(self):
        self.run_it([HADAL, *self.command("one")])
        self.run_it(self.launched(2, *self.command("two")))
        self.assert_same_run("two", "one")
        said = self.run_it(self.launched(2, *self.command("zero", "--parallel.shard_optimizer", "true")))
        self.assertIn("2 ranks", said)
        self.assertNotIn("[1] ", said)  # rank 0 alone speaks
        self.assert_same_run("zero", "one")

    def test_stopped_with_two_ranks_and_finished_by_one_is_the_unbroken_run_and_back(self):
        zero = ("--parallel.shard_optimizer", "true")
        self.run_it([HADAL, *self.command("whole", steps=60)])
        process, _ = self.start(2, *self.command("first two", *zero, steps=60))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.end_of(process, 30)[0], 75)
        self.run_it([HADAL, *self.command("first two", steps=60)])
        self.assert_same_run("first two", "whole")
        alone = subprocess.Popen([HADAL, *self.command("first one", steps=60)], stderr=subprocess.PIPE)
        self.addCleanup(alone.kill)
        for line in alone.stderr:
            if line.startswith(b"step"):
                break
        alone.send_signal(signal.SIGTERM)
        alone.stderr.read(), alone.stderr.close()
        self.assertEqual(alone.wait(timeout=60), 75)
        self.run_it(self.launched(2, *self.command("first one", *zero, steps=60)))
        self.assert_same_run("first one", "whole")

    def tensors_of(self, folder):
        """Of all safetensors of a model folder, by name."""
        found = {}
        for name in os.listdir(folder):
            if not (name.startswith("model") and name.endswith(".safetensors")):
                continue
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            length = int.from_bytes(data[:8], "little")
            for tensor, entry in json.loads(data[8 : 8 + length]).items():
                if tensor != "__metadata__":
                    begin, end = entry["data_offsets"]
                    found[tensor] = data[8 + length + begin : 8 + length + end]
        return found

    def steps_of(self, out):
        with open(os.path.join(self.folder, out, "metrics.jsonl")) as file:
            return [line for line in file if json.loads(line)["kind"] != "run"]

    def assert_same_model(self, got, want):
        got_folder, want_folder = (os.path.join(self.folder, out) for out in (got, want))
        self.assertTrue(self.tensors_of(want_folder))
        self.assertTrue(self.tensors_of(got_folder) == self.tensors_of(want_folder))
        self.assertEqual(self.steps_of(got), self.steps_of(want))

    def test_a_pipeline_trains_the_model_of_one_process_byte_for_byte(self):
        self.run_it([HADAL, *self.command("one")])
        for schedule in ("1f1b", "zb-v"):
            pipeline = ("--parallel.pipeline", "2", "--parallel.schedule", schedule)
            said = self.run_it(self.launched(2, *self.command(schedule, *pipeline)))
            self.assertIn("pipeline of 2", said)
            self.assert_same_model(schedule, "one")
            self.run_it([HADAL, "inspect", os.path.join(self.folder, schedule)])

    def test_a_pipeline_stopped_is_finished_by_one_process(self):
        self.run_it([HADAL, *self.command("whole", steps=60)])
        process, _ = self.start(2, *self.command("piped", "--parallel.pipeline", "2", steps=60))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.end_of(process, 30)[0], 75)
        self.run_it([HADAL, *self.command("piped", steps=60)])
        self.assert_same_model("piped", "whole")

    def test_experts_over_two_processes_are_those_of_one_byte_for_byte_and_go_on_alone(self):
        experts = ("--parallel.experts", "2")
        self.run_it([HADAL, *self.command("one")])
        said = self.run_it(self.launched(2, *self.command("two", *experts)))
        self.assertIn("experts over 2", said)
        self.assert_same_model("two", "one")
        self.run_it([HADAL, "inspect", os.path.join(self.folder, "two")])
        self.run_it([HADAL, *self.command("whole", steps=60)])
        process, _ = self.start(2, *self.command("shared out", *experts, steps=60))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.end_of(process, 30)[0], 75)
        self.run_it([HADAL, *self.command("shared out", steps=60)])
        self.assert_same_model("shared out", "whole")
        # Its weights, as the start of another run: each rank takes its experts from them.
        start = ("--model.start", os.path.join(self.folder, "one"))
        self.run_it([HADAL, *self.command("tuned", *start, steps=2)])
        self.run_it(self.launched(2, *self.command("tuned by two", *start, *experts, steps=2)))
        self.assert_same_model("tuned by two", "tuned")

    def test_heads_and_columns_over_two_processes_train_the_model_of_one_and_go_on_alone(self):
        self.run_it([HADAL, *self.command("one", steps=9)])
        said = self.run_it(self.launched(2, *self.command("two", "--parallel.tensor", "2", steps=9)))
        self.assertIn("heads and columns over 2", said)
        self.run_it([HADAL, "inspect", os.path.join(self.folder, "two")])
        losses = [
            [step["loss"] for step in map(json.loads, self.steps_of(out)) if step["kind"] == "step"]
            for out in ("two", "one")
        ]
        self.assertEqual(len(losses[0]), 9)
        for got, want in zip(*losses, strict=True):
            self.assertLess(abs(got - want), 1e-6 * want)
        process, _ = self.start(2, *self.command("cut", "--parallel.tensor", "2", steps=60))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.end_of(process, 30)[0], 75)
        self.run_it([HADAL, *self.command("cut", steps=60)])

    def test_under_torchrun(self):
        if not TORCHRUN:
            self.skipTest("no torchrun here")
        self.run_it([HADAL, *self.command("one", steps=3)])
        self.run_it([TORCHRUN, "--standalone", "--nproc-per-node", "2", "--no-python", HADAL, *self.command("two", steps=3)])
        self.assert_same_run("two", "one")

    def test_under_mpirun(self):
        if not MPIRUN or b"Open MPI" not in subprocess.check_output([MPIRUN, "--version"]):
            self.skipTest("no mpirun of Open MPI here")
        self.run_it([HADAL, *self.command("one", steps=3)])
        as_root = "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1".split() if os.getuid() == 0 else []
        self.run_it([*as_root, MPIRUN, "--oversubscribe", "-n", "2", HADAL, *self.command("two", steps=3)])
        self.assert_same_run("two", "one")


MEASURED = """
import os, subprocess, sys
done = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(done.pid, 0)
print("took", usage.ru_maxrss / 1024, flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Memory(Ranks):
    def of_ranks(self, output, word):
        """MiB of each rank, from the lines "[RANK] WORD ... MiB"."""
        found = {}
        for line in output.splitlines():
            words = line.split()
            if words[1:2] == [word] and words[2] != "OF":
                found[int(words[0][1:-1])] = float(next(w for w in reversed(words) if w[0].isdigit()))
        return found

    def test_the_peak_said_beforehand_is_the_one_measured_on_every_rank(self):
        for layout in (
            ("--parallel.shard_optimizer", "true"),
            ("--parallel.pipeline", "2"),
            ("--parallel.experts", "2"),
        ):
            size = ("--batch.sequences", "8", "--batch.length", "256", "--eval.windows", "2")
            command = self.command("m", *size, "--checkpoint.background", "false", *layout, steps=3)
            said = self.of_ranks(self.run_it(self.launched(2, *command, "--dry-run")), "PEAK")
            wrapped = [HADAL, "launch", "-n", "2", "--program", "--", sys.executable, "-c", MEASURED, HADAL, *command]
            measured = self.of_ranks(self.run_it(wrapped), "took")
            self.assertEqual((sorted(said), sorted(measured)), ([0, 1], [0, 1]))
            for rank, took in measured.items():
                self.assertLess(abs(said[rank] - took) / took, 0.15, f"{layout}: rank {rank}: said {said}, measured {measured}")
            shutil.rmtree(os.path.join(self.folder, "m"))


class Faults(Ranks):
    def test_a_dead_rank_ends_the_job_within_two_seconds_and_is_named(self):
        for victim in (0, 1):
            process, pids = self.start(2, *self.command(f"dead{victim}", steps=100000))
            os.kill(pids[victim], signal.SIGKILL)
            code, text = self.end_of(process, 2)
            self.assertEqual(code, 128 + signal.SIGKILL, text)
            self.assertIn(f"[launch] rank {victim} was ended by SIGKILL", text)
            self.assertFalse(any(map(is_running, pids)))

    def test_a_stuck_rank_ends_the_job_after_the_timeout_and_is_named(self):
        process, pids = self.start(2, *self.command("stuck", "--parallel.timeout_seconds", "3", steps=100000))
        os.kill(pids[1], signal.SIGSTOP)
        code, text = self.end_of(process, 3 + 2)
        self.assertNotEqual(code, 0, text)
        self.assertIn("rank 1 has not answered for 3 s", text)
        self.assertFalse(any(map(is_running, pids)))

    def test_a_stop_signal_saves_and_the_same_command_goes_on(self):
        command = self.command("stopped", steps=100000)
        process, pids = self.start(2, *command)
        process.send_signal(signal.SIGTERM)
        code, text = self.end_of(process, 30)
        self.assertEqual(code, 75, text)
        self.assertIn("the same command goes on from here", text)
        self.assertFalse(any(map(is_running, pids)))
        process, _ = self.start(2, *command)
        process.send_signal(signal.SIGINT)
        code, text = self.end_of(process, 30)
        self.assertEqual(code, 75, text)

    def test_kills_of_random_ranks_change_no_byte_and_leave_nothing_behind(self):
        said = []
        named = rank_kills.run(HADAL, kills=5, ranks=2, seed=3, folder=self.folder, say=said.append)
        self.assertEqual(len(named), 5, said)

    def test_a_rank_killed_while_all_write_a_checkpoint_costs_no_byte(self):
        for layout in (
            ("--parallel.pipeline", "2"),
            ("--parallel.experts", "2", "--parallel.shard_optimizer", "true"),
            ("--parallel.tensor", "2"),
        ):
            with self.subTest(layout=layout):
                rank_kills.run(HADAL, kills=1, ranks=2, seed=5, folder=self.folder, say=lambda text: None, layout=layout, saving=True)

    def test_an_error_of_rank_zero_is_the_jobs(self):
        said = self.run_it(self.launched(2, *self.command("bad", "--model.config", "/no/such/config.json")), code=1)
        self.assertIn("/no/such/config.json", said)
        self.assertIn("[launch] rank ", said)

    def test_ranks_on_gpus_are_refused(self):
        command = [*self.command("gpus", "--compute.device", "cuda")]
        command[command.index("--batch.workers") + 1] = "1"
        self.assertIn("NCCL is not here yet", self.run_it(self.launched(2, *command), code=1))


if __name__ == "__main__":
    main()
