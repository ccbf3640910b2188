"""hadal data: build from text and JSONL, convert, info, verify, on files made here."""

import json
import os
import pathlib
import struct
import tempfile

from program import ProgramTest, hadal, main


class Data(ProgramTest):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.folder = pathlib.Path(self.scratch.name)
        self.text = self.folder / "text.txt"
        self.text.write_text("to be or not\n\nthat is\n\nthe question\n")
        self.tokenizer = str(self.folder / "tokenizer")
        self.assert_answers(
            hadal("tokenizer", "train", "--kind", "byte", "--data", str(self.text), "--out", self.tokenizer))

    def build(self, *flags, out="out", data=None):
        return hadal("data", "build", str(self.folder / out), "--tokenizer", self.tokenizer, "--input",
                     str(data or self.text), *flags)

    def test_text_becomes_a_data_set_that_info_and_verify_agree_on(self):
        built = json.loads(self.assert_answers(self.build("--split-documents", "blank-line", "--json")))
        self.assertEqual(built["train"], {"documents": 3, "tokens": 12 + 7 + 12, "shards": 1})
        out = str(self.folder / "out")
        info = json.loads(self.assert_answers(hadal("data", "info", out, "--json")))
        self.assertEqual((info["format"], info["train"]["documents"], info["train"]["tokens"]), ("hadal", 3, 31))
        self.assertIn("31 tokens, all right", self.assert_answers(hadal("data", "verify", out)))
        self.assertIn("3 documents", self.assert_answers(hadal("data", "info", out)))

    def test_jsonl_takes_the_field_asked_for(self):
        lines = self.folder / "a.jsonl"
        lines.write_text('{"q": "one", "text": "x"}\n{"q": "three", "text": "y"}\n')
        built = self.build("--format", "jsonl", "--field", "q", "--json", data=lines)
        self.assertEqual(json.loads(self.assert_answers(built))["train"]["tokens"], 8)
        self.assert_fails(self.build("--format", "jsonl", "--field", "z", "--overwrite", data=lines), 3,
                          "a.jsonl: byte 0", '"z"', "--field")
        self.assert_fails(self.build("--format", "jsonl", "--split-documents", "line", data=lines), 1,
                          "each line is a document")

    def test_a_finished_data_set_is_not_replaced_unasked(self):
        self.assert_answers(self.build())
        self.assert_fails(self.build(), 1, "--overwrite")
        self.assert_answers(self.build("--overwrite"))

    def test_damage_is_found_by_verify_and_truncation_by_info(self):
        self.assert_answers(self.build())
        shard = self.folder / "out" / "train-000000.tokens"
        good = shard.read_bytes()
        shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        self.assert_answers(hadal("data", "info", str(self.folder / "out")))
        self.assert_fails(hadal("data", "verify", str(self.folder / "out")), 3, "train-000000.tokens", "hash")
        shard.write_bytes(good[:-1])
        self.assert_fails(hadal("data", "info", str(self.folder / "out")), 3, "train-000000.tokens", "byte")

    def test_files_of_other_trainers_are_read_and_converted(self):
        nano = self.folder / "nano"
        nano.mkdir()
        (nano / "train.bin").write_bytes(struct.pack("<7H", 5, 6, 0, 7, 0, 8, 9))
        (nano / "val.bin").write_bytes(struct.pack("<2H", 5, 6))
        info = json.loads(self.assert_answers(hadal("data", "info", str(nano), "--json")))
        self.assertEqual((info["format"], info["train"]["tokens"], info["held_out"]["tokens"]), ("nanoGPT", 7, 2))
        out = str(self.folder / "converted")
        done = json.loads(self.assert_answers(hadal("data", "convert", str(nano), out, "--eos", "0", "--json")))
        self.assertEqual(done["train"], {"documents": 3, "tokens": 5, "shards": 1})
        self.assertEqual((done["held_out"]["tokens"], done["vocab_size"], done["eos_id"]), (2, 10, 0))
        self.assert_answers(hadal("data", "verify", out))

    def test_what_cannot_be_read_says_what_can(self):
        parquet = self.folder / "a.parquet"
        parquet.write_bytes(b"PAR1xxxx")
        self.assert_fails(self.build(data=parquet), 1, "a.parquet", "JSONL")
        self.assert_fails(hadal("data", "info", str(parquet)), 1, "Parquet", "JSONL")
        self.assert_fails(hadal("data", "info", str(self.folder / "nothing")), 1, "Check the path")
        self.assert_fails(hadal("data", "info", self.tokenizer), 1, "hadal data build")
        self.assert_fails(self.build(data=self.folder / "nothing"), 1, "Check the path")

    def test_bad_flags_are_bad_usage(self):
        for flags in (["--held-out", "1"], ["--held-out", "-0.1"], ["--shard-tokens", "0"], ["--workers", "x"],
                      ["--split-documents", "page"], ["--format", "parquet"]):
            self.assert_fails(self.build(*flags), 2, flags[0])

    def test_a_read_only_folder_is_an_error_without_leftovers(self):
        if os.geteuid() == 0:
            self.skipTest("root may write anywhere")
        (self.folder / "out").mkdir(mode=0o500)
        self.assert_fails(self.build(), 1, "Check the permissions")


if __name__ == "__main__":
    main()
