"""run, chat, logits, train and quickstart from the outside."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from program import HADAL, ProgramTest, golden, hadal, main  # noqa: E402

WORDS = "Mira has 3 shells. She finds 4 more. Olo is an eel in the deep trench, and he is calm.\n"


def read_safetensors(path):
    """Name -> (dtype, shape, numbers) of F32 and I64 tensors."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header, data = json.loads(file.read(size)), file.read()
    header.pop("__metadata__", None)
    formats = {"F32": "f", "I64": "q"}
    tensors = {}
    for name, head in header.items():
        if head["dtype"] not in formats:
            continue
        begin, end = head["data_offsets"]
        count = (end - begin) // struct.calcsize(formats[head["dtype"]])
        tensors[name] = (head["dtype"], head["shape"], struct.unpack(f"<{count}{formats[head['dtype']]}", data[begin:end]))
    return tensors


class WithModel(ProgramTest):
    """A model trained for a few steps: it knows little, but it is whole."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.text = os.path.join(cls.folder, "text.txt")
        with open(cls.text, "w") as file:
            file.write(WORDS * 300)
        cls.model = os.path.join(cls.folder, "model")
        done = hadal("train", "--data", cls.text, "--out", cls.model, "--steps", "6", "--batch", "2", "--length", "32")
        assert done.code == 0, done.err
        cls.train_err = done.err


class Train(WithModel):
    def test_writes_a_model_folder_and_says_what_it_learned(self):
        files = set(os.listdir(self.model))
        self.assertLessEqual({"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}, files)
        self.assertIn("held-out loss", self.train_err)
        self.assertEqual(hadal("inspect", self.model).code, 0)

    def test_same_seed_writes_the_same_bytes(self):
        again = os.path.join(self.folder, "again")
        hadal("train", "--data", self.text, "--out", again, "--steps", "6", "--batch", "2", "--length", "32")
        with open(os.path.join(self.model, "model.safetensors"), "rb") as a, open(os.path.join(again, "model.safetensors"), "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_fp8_training_exports_an_official_checkpoint_as_convert_does(self):
        flags = ["--data", self.text, "--steps", "4", "--batch", "2", "--length", "32"]
        out, again = os.path.join(self.folder, "fp8"), os.path.join(self.folder, "fp8-converted")
        done = hadal("train", *flags, "--out", out, "--compute.precision", "fp8", "--run.also_export", "fp8")
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(hadal("convert", out, again, "--dtype", "fp8").code, 0)
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            with open(os.path.join(out, "fp8", name), "rb") as a, open(os.path.join(again, name), "rb") as b:
                self.assertEqual(a.read(), b.read(), name)
        with open(os.path.join(out, "fp8", "config.json")) as file:
            self.assertEqual(json.load(file)["quantization_config"]["weight_block_size"], [128, 128])
        self.assertEqual(hadal("run", os.path.join(out, "fp8"), "-p", "Mira", "--max-tokens", "3").code, 0)

    def test_a_model_is_extended_by_yarn_and_trained_beyond_its_context(self):
        with open(os.path.join(self.model, "config.json")) as file:
            own = json.load(file)["max_position_embeddings"]
        longer = os.path.join(self.folder, "longer")
        text = os.path.join(self.folder, "long.txt")
        with open(text, "w") as file:
            file.write(WORDS * 3000)
        flags = ["--data", text, "--data.tokenizer", self.model, "--steps", "1", "--batch", "1", "--length", str(own + 8), "--eval.windows", "1"]
        first = [*flags, "--model.start", self.model, "--out", longer]
        self.assert_fails(hadal("train", *first), 1, f"the model's context is {own}")
        self.assert_fails(hadal("train", *first, "--model.context", str(own)), 3, "need a longer context")
        done = hadal("train", *first, "--model.context", str(8 * own))
        self.assertEqual(done.code, 0, done.err)
        with open(os.path.join(longer, "config.json")) as file:
            config = json.load(file)
        self.assertEqual(config["max_position_embeddings"], 8 * own)
        scaling = config["rope_scaling"]
        self.assertEqual((scaling["type"], scaling["factor"], scaling["original_max_position_embeddings"]), ("yarn", 8, own))
        # A second phase starts from the first context again.
        again = os.path.join(self.folder, "longest")
        done = hadal("train", *flags, "--model.start", longer, "--out", again, "--model.context", str(32 * own), "--model.yarn_factor", "40")
        self.assertEqual(done.code, 0, done.err)
        with open(os.path.join(again, "config.json")) as file:
            scaling = json.load(file)["rope_scaling"]
        self.assertEqual((scaling["factor"], scaling["original_max_position_embeddings"]), (40, own))

    def test_an_interrupt_saves_the_model_and_exits_75(self):
        out = os.path.join(self.folder, "interrupted")
        process = subprocess.Popen(
            [HADAL, "train", "--data", self.text, "--out", out, "--steps", "1000000", "--batch", "1", "--length", "16"],
            stderr=subprocess.PIPE,
        )
        for line in process.stderr:
            if line.startswith(b"step"):
                break
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        process.stderr.close()
        self.assertEqual(process.wait(timeout=60), 75)
        self.assertEqual(hadal("inspect", out).code, 0)

    def test_too_little_text_is_refused_with_the_numbers(self):
        short = os.path.join(self.folder, "short.txt")
        with open(short, "w") as file:
            file.write("Too short.")
        out = os.path.join(self.folder, "none")
        self.assert_fails(hadal("train", "--data", short, "--out", out, "--steps", "1"), 1, "[data.split]", "tokens")

    def test_a_gpu_without_its_library_is_refused_with_the_way_to_get_it(self):
        out = os.path.join(self.folder, "gpu")
        command = ("train", "--data", self.text, "--out", out, "--steps", "1", "--compute.device", "cuda")
        result = hadal(*command, env={**os.environ, "HADAL_LIBTORCH_CUDA": self.folder})
        self.assert_fails(result, 1, "no libtorch_cuda.so in " + self.folder, "pip install torch==")

    def test_a_model_with_sparse_attention_is_refused_with_what_it_is_good_for(self):
        model, out = "tests/golden/v32-tiny", os.path.join(self.folder, "sparse")
        ids = os.path.join(self.folder, "ids.json")
        chats, tasks = os.path.join(self.folder, "chats.jsonl"), os.path.join(self.folder, "tasks.jsonl")
        for path, line in ((ids, "[[1, 2]]"), (chats, '{"messages": []}'), (tasks, "{}")):
            with open(path, "w") as file:
                file.write(line + "\n")
        for command in (
            ("train", "--data", self.text, "--out", out, "--steps", "1", "--config", model + "/config.json"),
            ("train", "--data", self.text, "--out", out, "--steps", "1", "--model.start", model),
            ("train", "--data", self.text, "--out", out, "--steps", "1", "--model.start", model, "--dry-run"),
            ("sft", model, "--data", chats, "--out", out),
            ("grpo", model, "--tasks", tasks, "--held-out", tasks, "--out", out),
            ("logits", model, "--ids", ids, "--out", out),
        ):
            self.assert_fails(hadal(*command), 1, "[config.attention] " + model, "can be run, but not trained", "hadal run")
            self.assertFalse(os.path.exists(out), command)

    def test_text_that_is_not_utf8_is_refused_at_its_byte(self):
        bad = os.path.join(self.folder, "bad.txt")
        with open(bad, "wb") as file:
            file.write(b"abc\xff" * 5000)
        result = hadal("train", "--data", bad, "--out", os.path.join(self.folder, "bad"), "--steps", "1")
        self.assert_fails(result, 1, "bad.txt", "3", "UTF-8")


class Run(WithModel):
    def test_greedy_text_is_the_same_twice_and_statistics_go_to_stderr(self):
        one = hadal("run", self.model, "-p", "Mira has", "--greedy", "--max-tokens", "12")
        two = hadal("run", self.model, "-p", "Mira has", "--greedy", "--max-tokens", "12")
        self.assertEqual(one.code, 0, one.err)
        self.assertEqual(one.out, two.out)
        self.assertIn("tokens/s", one.err)
        self.assertIn("first token after", one.err)

    def test_same_seed_same_text_other_seed_other_text(self):
        texts = [hadal("run", self.model, "-p", "Mira", "--max-tokens", "20", "--seed", s).out for s in ("1", "1", "2")]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_json_holds_text_tokens_and_reason(self):
        result = hadal("run", self.model, "-p", "Mira has", "--greedy", "--max-tokens", "5", "--json")
        answer = json.loads(result.out)
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(len(answer["tokens"]), 5)
        self.assertEqual(answer["generated_tokens"], 5)
        plain = hadal("run", self.model, "-p", "Mira has", "--greedy", "--max-tokens", "5")
        self.assertEqual(plain.out, answer["text"] + "\n")

    def test_a_stop_string_ends_the_text_before_it(self):
        whole = json.loads(hadal("run", self.model, "-p", "Mira", "--greedy", "--max-tokens", "20", "--json").out)["text"]
        stop = whole[len(whole) // 2:][:2]
        result = json.loads(hadal("run", self.model, "-p", "Mira", "--greedy", "--max-tokens", "20", "--stop", stop, "--json").out)
        self.assertEqual(result["text"], whole[: whole.index(stop)])
        self.assertEqual(result["finish_reason"], "stop_string")

    def test_threads_and_dtype_are_taken(self):
        result = hadal("run", self.model, "-p", "Mira", "--greedy", "--max-tokens", "3", "--threads", "1", "--cache-dtype", "bf16")
        self.assertEqual(result.code, 0, result.err)

    def test_bad_prompts_are_refused_in_one_line(self):
        long = os.path.join(self.folder, "long.txt")
        with open(long, "w") as file:
            file.write(WORDS * 300)
        self.assert_fails(hadal("run", self.model, "--prompt-file", long), 1, "[engine.submit]", "the context is 1024")
        self.assert_fails(hadal("run", self.model, "-p", b"a\xff"), 1, "UTF-8")
        ids = os.path.join(self.folder, "ids.txt")
        with open(ids, "w") as file:
            file.write("1 2 99999\n")
        self.assert_fails(hadal("run", self.model, "--ids", ids), 1, "token id 99999", "need 0 to 511")

    def test_models_that_cannot_be_opened_are_named(self):
        self.assert_fails(hadal("run", "/no/such/model", "-p", "a"), 1, "/no/such/model")
        broken = os.path.join(self.folder, "broken")
        shutil.copytree(self.model, broken)
        with open(os.path.join(broken, "model.safetensors"), "r+b") as file:
            file.truncate(5000)
        self.assert_fails(hadal("run", broken, "-p", "a"), 3, "model.safetensors", "byte")
        bare = os.path.join(self.folder, "bare")
        shutil.copytree(self.model, bare)
        os.remove(os.path.join(bare, "tokenizer.json"))
        self.assert_fails(hadal("run", bare, "-p", "a"), 1, "tokenizer.json", "--ids")


class Chat(WithModel):
    def chat(self, lines, *flags):
        return hadal("run", self.model, "--greedy", "--max-tokens", "6", *flags, stdin=lines.encode())

    def test_each_turn_is_answered_until_exit(self):
        result = self.chat("Mira has\n/clear\nMira has\n/exit\nnever read\n")
        self.assertEqual(result.code, 0, result.err)
        answers = result.out.splitlines()
        self.assertEqual(len(answers), 2)
        self.assertEqual(answers[0], answers[1])

    def test_turns_follow_the_chat_format_of_the_models_own_tokenizer(self):
        # A second turn's prompt holds the first turn, so it is longer and the first one's full pages are reused.
        result = self.chat("Mira " * 80 + "\nOlo\n")
        usage = [line for line in result.err.splitlines() if "prompt tokens" in line]
        self.assertEqual(len(usage), 2, result.err)
        first, second = (int(line.split()[0]) for line in usage)
        self.assertGreater(second, first)
        self.assertIn("(0 reused)", usage[0])
        self.assertNotIn("(0 reused)", usage[1])

    def test_settings_change_what_follows_and_bad_ones_are_refused(self):
        result = self.chat("/set max_tokens 2\nMira\n/set temprature 1\n/set top_p 7\n/sytem x\n/help\n")
        self.assertEqual(result.code, 0)
        self.assertIn("2 new tokens", result.err)
        self.assertIn('did you mean "temperature"?', result.err)
        self.assertIn("top_p", result.err)
        self.assertIn('did you mean "/system"?', result.err)
        self.assertIn("/clear", result.err)


class Logits(WithModel):
    def test_golden_model_gives_the_golden_numbers_under_the_golden_names(self):
        case = str(golden("v3-tiny"))
        want = read_safetensors(os.path.join(case, "expected.safetensors"))
        shape, ids = want["input_ids"][1], want["input_ids"][2]
        rows = [ids[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]
        ids_file, out = os.path.join(self.folder, "golden_ids.json"), os.path.join(self.folder, "out.safetensors")
        with open(ids_file, "w") as file:
            json.dump(rows, file)
        result = hadal("logits", case, "--ids", ids_file, "--out", out, "--hidden", "--routing", "--cache", "--decode", "16")
        self.assertEqual(result.code, 0, result.err)
        got = read_safetensors(out)
        compared = 0
        for name, (dtype, shape, values) in want.items():
            if name.startswith(("grad.", "ragged.")):
                continue
            self.assertIn(name, got)
            self.assertEqual(got[name][:2], (dtype, shape), name)
            if dtype == "I64":
                self.assertEqual(got[name][2], values, name)
            else:
                worst = max(abs(a - b) for a, b in zip(got[name][2], values))
                self.assertLessEqual(worst, 3e-5 + 3e-5 * max(map(abs, values)), name)
            compared += 1
        self.assertGreater(compared, 20)

    def test_sequences_of_other_lengths_are_run_alone(self):
        ids_file, out = os.path.join(self.folder, "ragged.txt"), os.path.join(self.folder, "ragged.safetensors")
        with open(ids_file, "w") as file:
            file.write("5 6 7\n8 9\n")
        self.assertEqual(hadal("logits", self.model, "--ids", ids_file, "--out", out).code, 0)
        got = read_safetensors(out)
        self.assertEqual(got["seq.0.logits"][1], [1, 3, 512])
        self.assertEqual(got["seq.1.logits"][1], [1, 2, 512])

    def test_nothing_is_left_where_the_output_cannot_be_written(self):
        ids_file = os.path.join(self.folder, "some.txt")
        with open(ids_file, "w") as file:
            file.write("5 6 7\n")
        self.assert_fails(hadal("logits", self.model, "--ids", ids_file, "--out", "/no/such/folder/x"), 1, "/no/such/folder/x")
        with open(ids_file, "w") as file:
            file.write("5 512\n")
        out = os.path.join(self.folder, "not_written.safetensors")
        self.assert_fails(hadal("logits", self.model, "--ids", ids_file, "--out", out), 1, "token id 512")
        self.assertFalse(os.path.exists(out))


class Quickstart(ProgramTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def small_recipe(self):
        """The built-in recipe with all its commands, but little data, few steps and few answers."""
        recipe = hadal("quickstart", "--print-recipe").out
        recipe = re.sub(r"--count \d+", "--count 24", recipe)
        recipe = re.sub(r"--bytes \d+", "--bytes 60000", recipe)
        recipe = re.sub(r"--minutes {minutes}", "--steps 3", recipe)
        recipe = recipe.replace("--steps 1000000", "").replace("--steps 600", "--steps 3").replace("train --preset", "train --eval.loads_every 1 --preset").replace("--max-tokens 160", "--max-tokens 8").replace("--prompts 32", "--prompts 2")
        recipe = re.sub(r"(bench spec [^\"]*) --json", r"\1 --repeats 1 --tokens 8 --json", recipe)
        path = os.path.join(self.folder, "small.toml")
        with open(path, "w") as file:
            file.write(recipe)
        return path

    def test_every_stage_runs_once_and_the_report_tells_of_each(self):
        out = os.path.join(self.folder, "out")
        command = ("quickstart", "--recipe", self.small_recipe(), "--out", out, "--no-serve")
        result = hadal(*command)
        self.assertEqual(result.code, 0, result.err)
        with open(os.path.join(out, "report.html")) as file:
            report = file.read()
        for word in ("sums of two numbers, greedy", "C++ functions", "Stage: pretrain", "Stage: sft", "Stage: reward",
                     "Stage: grpo", "Load of the experts", "drafts of the MTP module", "the MTP module guesses", "Weights on disk", "Peak memory"):
            self.assertTrue(word in report, word)
        answer = hadal("run", os.path.join(out, "grpo"), "--chat", "-p", "1+1=", "--greedy", "--max-tokens", "4", "--json")
        self.assertEqual(answer.code, 0, answer.err)
        again = hadal(*command)
        self.assertEqual(again.code, 0, again.err)
        self.assertNotIn("$ hadal", again.err)  # all was done before
        other = hadal(*command, "--seed", "9")
        self.assert_fails(other, 1, "was done with other commands", "--out")


if __name__ == "__main__":
    main()
