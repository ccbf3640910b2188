"""hadal sft and hadal grpo from the outside: what they leave, kills, wrong data."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from program import HADAL, ProgramTest, hadal, main  # noqa: E402

MODEL = {
    "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 272, "hidden_size": 32,
    "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 128, "num_attention_heads": 2,
    "num_key_value_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "rope_theta": 10000, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1, "moe_layer_freq": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.0,
    "num_nextn_predict_layers": 1, "rms_norm_eps": 1e-6, "initializer_range": 0.06, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32",
}  # fmt: skip


def write_lines(path, lines):
    with open(path, "w") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


class PostTraining(ProgramTest):
    """From random weights to a model that answers "q3" with "\\boxed{3}", the number being the task."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        config = cls.path("model.json")
        with open(config, "w") as file:
            json.dump(MODEL, file)
        write_lines(cls.path("chats.jsonl"), [chat(f"q{i % 7}", f"\\boxed{{{i % 7}}}") for i in range(70)])
        write_lines(cls.path("tasks.jsonl"), [{"prompt": f"q{i}", "verifier": "exact", "answer": str(i)} for i in range(7)])
        write_lines(cls.path("held.jsonl"), [{"prompt": f" q{i}!", "verifier": "exact", "answer": str(i)} for i in range(3)])
        with open(cls.path("text.txt"), "w") as file:
            file.write("q0123456789\\boxed{}! ")
        assert hadal("tokenizer", "train", "--kind", "char", "--data", cls.path("text.txt"), "--out", cls.path("tok")).code == 0
        done = hadal("train", "--config", config, "--data.chat", cls.path("chats.jsonl"), "--data.tokenizer", cls.path("tok"),
                     "--out", cls.path("start"), "--steps", "30", "--batch", "4", "--length", "64", "--lr", "1e-2", "--threads", "1")  # fmt: skip
        assert done.code == 0, done.err

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def command(self, name, flags, changes):
        flags = flags | {"--threads": "1", "--save-every": "2", "--checkpoint.keep": "99"} | changes
        return [name, self.path("start"), *(word for flag in flags.items() for word in flag)]

    def sft(self, out, **changes):
        flags = {"--data": self.path("chats.jsonl"), "--out": self.path(out), "--epochs": "4", "--batch": "2",
                 "--length": "64", "--lr": "3e-3"}  # fmt: skip
        return self.command("sft", flags, {"--" + flag: text for flag, text in changes.items()})

    def grpo(self, out, **changes):
        flags = {"--tasks": self.path("tasks.jsonl"), "--held-out": self.path("held.jsonl"), "--out": self.path(out),
                 "--steps": "20", "--prompts": "3", "--group": "4", "--max-tokens": "12", "--lr": "1e-3", "--beta": "0.01",
                 "--eval.every": "5"}  # fmt: skip
        return self.command("grpo", flags, {"--" + flag.replace("_", "-"): text for flag, text in changes.items()})

    def run_with_kills(self, command, out):
        """Killed when the checkpoints of step 2 and then of step 4 are there, then to the end."""
        for step in (2, 4):
            process = subprocess.Popen([HADAL, *command], stderr=subprocess.DEVNULL)
            self.addCleanup(process.kill)
            while process.poll() is None and not os.path.exists(os.path.join(self.path(out), "checkpoints", f"step-{step:06d}")):
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            self.assertEqual(process.wait(timeout=60), -signal.SIGKILL)
        done = hadal(*command)
        self.assertEqual(done.code, 0, done.err)
        self.assertIn("going on after step", done.err)

    def assert_same_run(self, a, b, *files):
        for name in ("model.safetensors", *files):
            with open(os.path.join(self.path(a), name), "rb") as one, open(os.path.join(self.path(b), name), "rb") as other:
                self.assertEqual(one.read(), other.read(), name)

    def test_sft_improves_the_held_out_loss_and_leaves_a_model(self):
        done = hadal(*self.sft("sft"))
        self.assertEqual(done.code, 0, done.err)
        self.assertIn("of them learned", done.err)
        with open(os.path.join(self.path("sft"), "metrics.jsonl")) as file:
            evals = [line for line in map(json.loads, file) if line["kind"] == "eval"]
        self.assertLess(evals[-1]["loss"], evals[0]["loss"])
        self.assertGreater(evals[-1]["accuracy"], 0.5)
        self.assertEqual(hadal("inspect", self.path("sft")).code, 0)

    def test_a_start_without_the_weights_of_its_mtp_module_is_trained_without_one(self):
        shutil.copytree(self.path("start"), self.path("no_mtp"))
        file = os.path.join(self.path("no_mtp"), "model.safetensors")
        with open(file, "rb") as whole:
            header = json.loads(whole.read(int.from_bytes(whole.read(8), "little")))
            values = whole.read()
        kept, data = {}, b""
        for name, tensor in header.items():
            if name.startswith(f"model.layers.{MODEL['num_hidden_layers']}.") or name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            kept[name] = tensor | {"data_offsets": [len(data), len(data) + end - begin]}
            data += values[begin:end]
        text = json.dumps(kept).encode()
        with open(file, "wb") as stripped:
            stripped.write(len(text).to_bytes(8, "little") + text + data)
        for command in (self.sft("sft_no_mtp", epochs="1"), self.grpo("grpo_no_mtp", steps="2")):
            command[1] = self.path("no_mtp")
            done = hadal(*command)
            self.assertEqual(done.code, 0, done.err)
            self.assertIn("training goes on without one", done.err)
        with open(os.path.join(self.path("grpo_no_mtp"), "config.json")) as config:
            self.assertEqual(json.load(config)["num_nextn_predict_layers"], 0)

    def test_sft_killed_and_resumed_is_the_unbroken_run(self):
        self.assertEqual(hadal(*self.sft("sft_whole")).code, 0)
        self.run_with_kills(self.sft("sft_parts"), "sft_parts")
        self.assert_same_run("sft_whole", "sft_parts", "metrics.jsonl")

    def test_grpo_killed_and_resumed_is_the_unbroken_run(self):
        whole = hadal(*self.grpo("grpo_whole"))
        self.assertEqual(whole.code, 0, whole.err)
        self.assertIn("held-out tasks: ", whole.err)
        self.run_with_kills(self.grpo("grpo_parts"), "grpo_parts")
        self.assert_same_run("grpo_whole", "grpo_parts", "metrics.jsonl", "completions.jsonl")
        page = self.path("page.html")
        self.assertEqual(hadal("plot", self.path("grpo_whole"), "--out", page).code, 0)
        with open(page) as file:
            text = file.read()
        for title in ("Reward", "Right answers on held-out tasks", "KL to the reference"):
            self.assertIn(title, text)

    def test_drafts_change_no_sample(self):
        self.assertEqual(hadal(*self.grpo("plain", steps="2")).code, 0)
        self.assertEqual(hadal(*self.grpo("drafts", steps="2", **{"rollout.speculation": "on"})).code, 0)
        self.assert_same_run("plain", "drafts", "metrics.jsonl", "completions.jsonl")

    def test_mistakes_are_named(self):
        bad = self.path("bad.jsonl")
        write_lines(bad, [chat("q", "a"), {"text": "x"}])
        self.assert_fails(hadal(*self.sft("bad", data=bad)), 1, "bad.jsonl line 2", "the lines before hold messages")
        self.assert_fails(hadal("grpo", self.path("start"), "--out", self.path("bad")), 2, "--tasks")
        self.assert_fails(hadal(*self.grpo("bad", group="1")), 3, "rollout.group_size is 1")
        same = hadal(*self.grpo("bad", held_out=self.path("tasks.jsonl")))
        self.assertNotEqual(same.code, 0)
        self.assertIn("q0", same.err)

    def test_another_configuration_is_refused_on_resume(self):
        self.assertEqual(hadal(*self.grpo("twice", steps="1")).code, 0)
        again = hadal(*self.grpo("twice", steps="1", prompts="2"))
        self.assert_fails(again, 1, "rollout.prompts: 3 before, 2 now")


if __name__ == "__main__":
    main()
