"""Training runs under faults, from the outside: kills, stops, damage, full disks, wrong configurations."""

import json
import os
import resource
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
from program import HADAL, ProgramTest, hadal, main  # noqa: E402


class Folder(ProgramTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.text = os.path.join(self.folder, "text.txt")
        with open(self.text, "w") as file:
            file.write(kill_test.TEXT)
        self.out = os.path.join(self.folder, "run")

    def command(self, *more, steps=6):
        return ["train", "--data", self.text, "--out", self.out, "--batch", "2", "--length", "32", "--threads", "1", "--steps", str(steps), *more]

    def train(self, *more, steps=6, **how):
        return hadal(*self.command(*more, steps=steps), **how)

    def checkpoints(self):
        return sorted(os.listdir(os.path.join(self.out, "checkpoints")))

    def steps_in_metrics(self):
        with open(os.path.join(self.out, "metrics.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        return [line["step"] for line in lines if line["kind"] == "step"]

    def start_and_wait_for_steps(self, *more, steps=1000000):
        process = subprocess.Popen([HADAL, *self.command(*more, steps=steps)], stderr=subprocess.PIPE)
        self.addCleanup(process.kill)
        for line in process.stderr:
            if line.startswith(b"step"):
                break
        return process

    def end(self, process, number):
        process.send_signal(number)
        text = process.stderr.read().decode()
        process.stderr.close()
        return process.wait(timeout=60), text


class Kills(Folder):
    def test_killed_runs_end_with_the_bytes_of_the_unbroken_one(self):
        differing, _ = kill_test.run(HADAL, kills=12, seed=3, threads=1, folder=self.folder, say=lambda text: None)
        self.assertEqual(differing, [])


    def test_a_run_bounded_by_time_killed_in_its_first_steps_starts_again_cleanly(self):
        command = self.command("--minutes", "0.02", "--batch.sequences", "8", steps=0)
        for pause in (0, 0, 0.02):
            process = subprocess.Popen([HADAL, *command], stderr=subprocess.PIPE)
            self.addCleanup(process.kill)
            next(line for line in process.stderr if line.startswith((b"step", b"trained")))
            time.sleep(pause)
            self.end(process, signal.SIGKILL)
        again = hadal(*command)
        self.assertEqual(again.code, 0, again.err)
        done = self.steps_in_metrics()
        self.assertEqual(done, list(range(1, len(done) + 1)))
        with open(os.path.join(self.out, "checkpoints", self.checkpoints()[-1], "state.json")) as file:
            state = json.load(file)
        self.assertEqual((state["step"], state["finished"]), (len(done), True))


class Stops(Folder):
    def test_sigterm_saves_and_the_same_command_goes_on(self):
        process = self.start_and_wait_for_steps()
        code, text = self.end(process, signal.SIGTERM)
        self.assertEqual(code, 75, text)
        self.assertIn("the same command goes on from here", text)
        done = int(self.checkpoints()[-1].split("-")[1])
        self.assertEqual(self.steps_in_metrics(), list(range(1, done + 1)))
        again = self.train("--force-config", steps=done + 2)
        self.assertEqual(again.code, 0, again.err)
        self.assertIn(f"going on after step {done}", again.err)
        self.assertEqual(self.steps_in_metrics(), list(range(1, done + 3)))

    def test_sigusr1_saves_and_training_goes_on(self):
        process = self.start_and_wait_for_steps()
        process.send_signal(signal.SIGUSR1)
        for _ in range(200):
            if any(name.startswith("step-") for name in self.checkpoints()):
                break
            time.sleep(0.05)
        self.assertIsNone(process.poll())
        self.assertTrue(any(name.startswith("step-") for name in self.checkpoints()))
        self.assertEqual(self.end(process, signal.SIGINT)[0], 75)

    def test_a_finished_run_is_left_as_it_is_and_restart_trains_anew(self):
        self.assertEqual(self.train().code, 0)
        again = self.train()
        self.assertEqual(again.code, 0, again.err)
        self.assertIn("which was the last", again.err)
        self.assertEqual(self.steps_in_metrics(), list(range(1, 7)))
        self.assertEqual(self.train("--restart", "--seed", "9").code, 0)


class Refusals(Folder):
    def test_a_run_folder_in_use_names_the_process(self):
        process = self.start_and_wait_for_steps()
        self.assert_fails(self.train(), 1, "is in use by process " + str(process.pid))
        self.assertEqual(self.end(process, signal.SIGINT)[0], 75)

    def test_another_configuration_is_refused_by_key_unless_forced(self):
        self.assertEqual(self.train().code, 0)
        self.assert_fails(self.train("--lr", "0.5"), 1, "optimizer.lr: 0.001 before, 0.5 now", "--force-config")
        self.assert_fails(self.train(steps=8), 1, "run.steps: 6 before, 8 now")
        forced = self.train("--force-config", steps=8)
        self.assertEqual(forced.code, 0, forced.err)
        self.assertIn("going on after step 6", forced.err)
        self.assertEqual(self.steps_in_metrics(), list(range(1, 9)))

    def test_other_data_are_refused(self):
        self.assertEqual(self.train().code, 0)
        with open(self.text, "a") as file:
            file.write("One more line.\n")
        result = self.train()
        self.assertEqual(result.code, 1)
        self.assertIn("trained on other data", result.err)

    def test_unknown_keys_are_refused_with_the_nearest_name(self):
        toml = os.path.join(self.folder, "run.toml")
        with open(toml, "w") as file:
            file.write("[optimizer]\nlearn_rate = 1.0\nwieght_decay = 0.1\n")
        self.assert_fails(hadal("train", "--config", toml), 3, "run.toml: line 2: there is no key optimizer.learn_rate")
        self.assert_fails(self.train("--batch.sequence", "4"), 2, "--batch.sequences")
        self.assert_fails(self.train("--batch.length", "x"), 3, 'batch.length is "x", need an integer')

    def test_a_read_only_folder_is_named(self):
        os.mkdir(self.out, 0o500)
        if os.access(self.out, os.W_OK):
            # Root writes everywhere but to /proc.
            self.out = "/proc/hadal-run"
        self.assert_fails(self.train(), 1, self.out)


class Configuration(Folder):
    def test_what_print_config_prints_is_a_run(self):
        printed = hadal(*self.command("--print-config", "--optimizer.ema", "0.5", steps=3))
        self.assertEqual(printed.code, 0, printed.err)
        self.assertFalse(os.path.exists(self.out))
        toml = os.path.join(self.folder, "run.toml")
        with open(toml, "w") as file:
            file.write(printed.out)
        self.assertEqual(hadal("train", "--config", toml).code, 0)
        self.assertEqual(self.steps_in_metrics(), [1, 2, 3])
        self.assertEqual(hadal("train", "--config", toml, "--print-config").out, printed.out)


class DryRun(Folder):
    def peak_mib(self, *flags):
        printed = hadal(*self.command("--dry-run", *flags))
        self.assertEqual(printed.code, 0, printed.err)
        self.assertFalse(os.path.exists(self.out))
        return float(next(line for line in printed.out.splitlines() if line.startswith("PEAK ")).split()[-2])

    def measured_mib(self, *flags):
        process = subprocess.Popen([HADAL, *self.command(*flags, steps=3)], stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        shutil.rmtree(self.out)
        return usage.ru_maxrss / 1024

    def test_the_peak_said_beforehand_is_the_one_measured(self):
        for flags in (["--batch.sequences", "8", "--batch.length", "256"], ["--batch.sequences", "2", "--batch.length", "512", "--compute.recompute", "full"]):
            said, measured = self.peak_mib(*flags), self.measured_mib(*flags)
            self.assertLess(abs(said - measured) / measured, 0.15, f"{flags}: said {said}, measured {measured}")


class Damage(Folder):
    def test_a_corrupt_newest_checkpoint_falls_back_and_says_so(self):
        self.assertEqual(self.train("--save-every", "3").code, 0)
        self.assertEqual(self.checkpoints(), ["step-000003", "step-000006"])
        path = os.path.join(self.out, "checkpoints", "step-000006", "optimizer.safetensors")
        with open(path, "r+b") as file:
            before = file.read()
            file.truncate(len(before) // 2)
        again = self.train("--save-every", "3")
        self.assertEqual(again.code, 0, again.err)
        self.assertIn("step-000006 cannot be used", again.err)
        self.assertIn("going on after step 3", again.err)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_every_checkpoint_is_a_model_that_runs(self):
        self.assertEqual(self.train("--save-every", "3").code, 0)
        model = os.path.join(self.out, "checkpoints", "step-000003")
        self.assertEqual(hadal("run", model, "-p", "Mira", "--greedy", "--max-tokens", "2").code, 0)

    def test_a_full_disk_ends_with_an_error_and_keeps_the_checkpoint_before(self):
        self.assertEqual(self.train(steps=3).code, 0)
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # noqa: E731
        full = self.train("--force-config", "--save-every", "4", steps=6, preexec_fn=limit)
        self.assertEqual(full.code, 1, full.err)
        self.assertIn("the checkpoint of step 4 could not be written, training goes on", full.err)
        self.assertIn("[file.write]", full.err)
        self.assertEqual(self.checkpoints(), ["step-000003"])
        again = self.train("--force-config", steps=6)
        self.assertEqual(again.code, 0, again.err)
        self.assertIn("going on after step 3", again.err)

    def test_a_truncated_shard_is_refused(self):
        path = os.path.join(self.folder, "tokens.bin")
        with open(path, "wb") as file:  # an llm.c shard that says it has 100,000 tokens
            header = [20240520, 1, 100000] + [0] * 253
            file.write(b"".join(x.to_bytes(4, "little") for x in header) + b"\1\0" * 500)
        result = hadal("train", "--data", path, "--out", self.out, "--steps", "1")
        self.assertIn(result.code, (1, 3), result.err)
        self.assertIn("tokens.bin", result.err)


class Shards(Folder):
    def test_a_run_on_shards_resumes_to_the_bytes_of_the_unbroken_one_and_refuses_others(self):
        made, shards = os.path.join(self.folder, "tokenizer"), os.path.join(self.folder, "shards")
        self.assertEqual(hadal("tokenizer", "train", "--kind", "byte", "--data", self.text, "--out", made).code, 0)
        build = ["data", "build", shards, "--tokenizer", made, "--input", self.text, "--split-documents", "line"]
        self.assertEqual(hadal(*build, "--held-out", "0.1").code, 0)
        self.text = shards
        whole = self.train("--data.mask_documents", "true")
        self.assertEqual(whole.code, 0, whole.err)
        last = os.path.join("checkpoints", "step-000006", "optimizer.safetensors")
        with open(os.path.join(self.out, last), "rb") as file:
            want = file.read()
        self.out = os.path.join(self.folder, "broken")
        self.assertEqual(self.train("--data.mask_documents", "true", "--save-every", "2").code, 0)
        shutil.rmtree(os.path.join(self.out, "checkpoints", "step-000006"))
        again = self.train("--data.mask_documents", "true", "--save-every", "2")
        self.assertIn("going on after step 4", again.err)
        with open(os.path.join(self.out, last), "rb") as file:
            self.assertEqual(file.read(), want)
        found = json.loads(hadal("eval", self.out, "--data", shards, "--length", "32", "--json").out)
        self.assertGreater(found["tokens"], 100)
        shutil.rmtree(shards)
        self.assertEqual(hadal(*build, "--held-out", "0.3").code, 0)
        other = self.train("--data.mask_documents", "true")
        self.assertEqual(other.code, 1)
        self.assertIn("trained on other data", other.err)


    def test_best_fit_packing_resumes_to_the_bytes_of_the_unbroken_run(self):
        made, shards = os.path.join(self.folder, "tokenizer"), os.path.join(self.folder, "shards")
        self.assertEqual(hadal("tokenizer", "train", "--kind", "byte", "--data", self.text, "--out", made).code, 0)
        build = ["data", "build", shards, "--tokenizer", made, "--input", self.text, "--split-documents", "line"]
        self.assertEqual(hadal(*build, "--held-out", "0.1").code, 0)
        self.assert_fails(self.train("--data.packing", "best_fit"), 3, "stream with data.text")
        self.text = shards
        flags = ["--data.packing", "best_fit", "--save-every", "2"]
        self.assertIn("filler", self.train(*flags).err)
        last = os.path.join(self.out, "checkpoints", "step-000006")
        with open(os.path.join(last, "optimizer.safetensors"), "rb") as file:
            want = file.read()
        shutil.rmtree(last)
        self.assertIn("going on after step 4", self.train(*flags).err)
        with open(os.path.join(last, "optimizer.safetensors"), "rb") as file:
            self.assertEqual(file.read(), want)
        self.assert_fails(self.train("--save-every", "2"), 1, 'data.packing: "best_fit" before, "stream" now')


class Failures(Folder):
    def test_gradients_that_stay_infinite_end_with_code_5(self):
        result = self.train("--lr", "1e30", "--checkpoint.max_skips_in_a_row", "1", steps=50)
        self.assertEqual(result.code, 5, result.err)
        self.assertIn("rolling back has not helped 2 times", result.err)


class Eval(Folder):
    def test_eval_prints_what_training_measured_in_the_units_of_the_text(self):
        self.assertEqual(self.train(steps=30).code, 0)
        result = hadal("eval", self.out, "--data", self.text, "--length", "32", "--json")
        self.assertEqual(result.code, 0, result.err)
        found = json.loads(result.out)
        self.assertGreater(found["tokens"], 1000)
        self.assertLess(found["bits_per_byte"], 8)
        self.assertAlmostEqual(found["bits_per_byte"] * found["bytes"] * 0.6931471805599453, found["loss"] * found["tokens"], 3)
        self.assertEqual(len(found["mtp_acceptance"]), 1)
        self.assertGreaterEqual(found["max_vio"], 0)
        self.assertIn("bits per byte", hadal("eval", self.out, "--data", self.text, "--rows", "4").out)
        # What comes later in a row does not count for its beginning.
        row = ["eval", self.out, "--data", self.text, "--rows", "1", "--json"]
        parts = json.loads(hadal(*row, "--length", "32", "--positions", "4").out)["positions"]
        self.assertEqual([(part["begin"], part["end"]) for part in parts], [(1, 9), (9, 17), (17, 25), (25, 33)])
        self.assertAlmostEqual(parts[0]["loss"], json.loads(hadal(*row, "--length", "8").out)["loss"], 5)
        self.assertIn("loss at 25 to 32", hadal(*row[:-1], "--length", "32", "--positions", "4").out)


if __name__ == "__main__":
    main()
