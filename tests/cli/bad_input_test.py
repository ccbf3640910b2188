"""What the outside world can get wrong with torch-free commands: one line, the file, the field, the exit code."""

import json
import os
import shutil
import struct
import tempfile

from program import HADAL, ProgramTest, golden, hadal, main


def case(name):
    folder = golden(name)
    return folder if os.path.isdir(folder) else os.path.join("tests/golden", name)


class BadInput(ProgramTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o755)
        self.model = os.path.join(self.folder, "model")
        os.mkdir(self.model)
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(os.path.join(case("v3-tiny"), name), os.path.join(self.model, name))
        self.weights = os.path.join(self.model, "model.safetensors")
        self.config = os.path.join(self.model, "config.json")

    def edit_config(self, **fields):
        with open(self.config) as file:
            config = json.load(file)
        for key, value in fields.items():
            if value is None:
                del config[key]
            else:
                config[key] = value
        with open(self.config, "w") as file:
            json.dump(config, file)

    def edit_header(self, change):
        """Rewrites the safetensors header; its length follows."""
        with open(self.weights, "rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            header, data = json.loads(file.read(size)), file.read()
        text = change(header)
        with open(self.weights, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data)

    def assert_inspect_says(self, *parts):
        """inspect: still a report on stdout, the first problem as the error, exit code 3; the same in JSON."""
        result = hadal("inspect", self.model)
        self.assertEqual(result.code, 3, result.err)
        self.assertEqual(result.err.count("\n"), 1, result.err)
        for part in parts:
            self.assertIn(part, result.err)
        report = json.loads(hadal("inspect", self.model, "--json").out)
        self.assertTrue(report["problems"])

    def assert_convert_fails(self, code, *parts):
        out = os.path.join(self.folder, "out")
        self.assert_fails(hadal("convert", self.model, out, "--dtype", "bf16"), code, *parts)
        self.assertEqual(sorted(os.listdir(self.folder)), ["model"], "something half-written was left")

    def test_the_sound_model_passes_all_of_these(self):
        self.assertEqual(hadal("inspect", self.model).code, 0)
        self.assertEqual(json.loads(hadal("inspect", self.model, "--json").out)["problems"], [])
        self.assertEqual(hadal("convert", self.model, os.path.join(self.folder, "out")).code, 0)
        self.assertEqual(hadal("inspect", os.path.join(self.folder, "out")).code, 0)

    def test_a_truncated_file_is_named_with_its_bytes(self):
        size = os.path.getsize(self.weights)
        for length in (0, 5, 100, size - 1):
            shutil.copyfile(os.path.join(case("v3-tiny"), "model.safetensors"), self.weights)
            os.truncate(self.weights, length)
            self.assert_inspect_says("model.safetensors", "byte")
            self.assert_convert_fails(3, "model.safetensors", "byte")

    def test_overlapping_tensors_are_named(self):
        def overlap(header):
            names = [name for name in header if name != "__metadata__"]
            names.sort(key=lambda name: header[name]["data_offsets"][0])
            twins = [n for n in names if header[n]["shape"] == header[names[-1]]["shape"]]
            header[twins[0]]["data_offsets"] = header[names[-1]]["data_offsets"]
            return json.dumps(header).encode()

        self.edit_header(overlap)
        self.assert_inspect_says("model.safetensors")
        self.assert_convert_fails(3, "model.safetensors")

    def test_a_header_that_is_no_json_is_named_with_its_byte(self):
        self.edit_header(lambda header: json.dumps(header).encode()[:-1] + b"]")
        self.assert_inspect_says("model.safetensors", "byte")

    def test_weights_of_another_config_are_named(self):
        self.edit_config(kv_lora_rank=48)
        self.assert_inspect_says("kv_a")
        self.assert_convert_fails(3, "kv_a")

    def test_an_unknown_model_type_is_named(self):
        self.edit_config(model_type="llama")
        result = hadal("info", self.model)
        self.assertIn(result.code, (1, 3))
        self.assert_fails(result, result.code, "config.json", "model_type", "llama")

    def test_a_field_that_contradicts_another_is_named(self):
        self.edit_config(n_group=3)
        self.assert_fails(hadal("info", self.model), 3, "config.json", "n_group")

    def test_a_missing_or_mistyped_field_is_named(self):
        self.edit_config(hidden_size=None)
        self.assert_fails(hadal("info", self.model), 3, "config.json", "hidden_size")
        self.edit_config(hidden_size="64")
        self.assert_fails(hadal("info", self.model), 3, "config.json", "hidden_size")

    def test_an_absurd_size_is_refused_and_not_computed_with(self):
        for value in (2**62, 10**15, -5, 0):
            self.edit_config(vocab_size=value)
            self.assert_fails(hadal("info", self.model), 3, "vocab_size")

    def test_a_config_that_is_no_json_is_named_with_its_byte(self):
        with open(self.config, "w") as file:
            file.write('{"model_type": "deepseek_v3",')
        self.assert_fails(hadal("info", self.model), 3, "config.json", "byte")

    def test_a_missing_path_is_named(self):
        for arguments in (["info"], ["inspect"], ["tokenizer", "info"], ["tokenizer", "encode"]):
            self.assert_fails(hadal(*arguments, "/no/such/place"), 1, "/no/such/place")
        self.assert_fails(hadal("convert", "/no/such/place", os.path.join(self.folder, "out")), 1, "/no/such/place")

    def test_no_permission_is_said(self):
        program, who = HADAL, {}
        if os.geteuid() == 0:  # root may read everything: be nobody
            program = shutil.copy(HADAL, os.path.join(self.folder, "hadal"))
            who = {"user": "nobody", "group": "nogroup" if os.path.exists("/etc/debian_version") else "nobody"}
            who["extra_groups"] = []
            if hadal("--version", program=program, **who).code != 0:
                self.skipTest("nobody cannot run the program here")
        for path in (self.config, self.weights):
            os.chmod(path, 0)
            command = "info" if path == self.config else "inspect"
            self.assert_fails(
                hadal(command, path, program=program, **who), 1, os.path.basename(path), "ermission"
            )
            os.chmod(path, 0o644)
        os.chmod(self.folder, 0o555)
        self.addCleanup(os.chmod, self.folder, 0o755)
        out = os.path.join(self.folder, "out")
        self.assert_fails(hadal("convert", self.model, out, program=program, **who), 1, self.folder, "ermission")
        self.assertFalse(os.path.exists(out))

    def test_an_existing_destination_is_kept_unless_asked(self):
        out = os.path.join(self.folder, "out")
        os.mkdir(out)
        with open(os.path.join(out, "mine"), "w") as file:
            file.write("keep")
        self.assert_fails(hadal("convert", self.model, out), 1, out)
        self.assertEqual(os.listdir(out), ["mine"])

    def test_a_damaged_tokenizer_is_named(self):
        path = os.path.join(self.model, "tokenizer.json")
        for text in ("", "{", "[]", '{"model": {"type": "WordPiece"}}', '{"model": {"type": "BPE", "vocab": 3}}'):
            with open(path, "w") as file:
                file.write(text)
            result = hadal("tokenizer", "encode", self.model, "x")
            self.assertIn(result.code, (1, 3))
            self.assert_fails(result, result.code, "tokenizer.json")


if __name__ == "__main__":
    main()
