"""hadal tokenizer: encode, decode, info, chat, train on the published tokenizer and on one learned here."""

import json
import os
import pathlib
import tempfile
import threading

from program import ProgramTest, golden, golden_tokenizer, hadal, main

TOKENIZER = golden_tokenizer()


def lines(name):
    with open(golden("tokenizer") / name) as file:
        return [json.loads(line) for line in file]


class Published(ProgramTest):
    def setUp(self):
        self.assertIsNotNone(TOKENIZER, "no tokenizer.json: run ./dev setup")

    def test_text_comes_as_argument_file_or_stdin_and_ids_as_text_or_json(self):
        text = "Hello, Hadal!\n 深海 123"
        want = json.loads(self.assert_answers(hadal("tokenizer", "encode", TOKENIZER, text, "--json")))["ids"]
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            by_file = self.assert_answers(hadal("tokenizer", "encode", TOKENIZER, "--file", file.name))
        by_stdin = self.assert_answers(hadal("tokenizer", "encode", TOKENIZER, stdin=text.encode()))
        self.assertEqual(by_file, by_stdin)
        self.assertEqual([int(i) for i in by_file.split()], want)
        self.assertEqual(self.assert_answers(hadal("tokenizer", "decode", TOKENIZER, *map(str, want))), text + "\n")
        self.assertEqual(self.assert_answers(hadal("tokenizer", "decode", TOKENIZER, stdin=by_file.encode())), text + "\n")

    def test_a_pipe_is_read_like_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            pipe = os.path.join(folder, "pipe")
            os.mkfifo(pipe)
            writer = threading.Thread(target=lambda: pathlib.Path(pipe).write_text("Hello"))
            writer.start()
            by_pipe = self.assert_answers(hadal("tokenizer", "encode", TOKENIZER, "--file", pipe))
            writer.join()
        self.assertEqual(by_pipe, hadal("tokenizer", "encode", TOKENIZER, "Hello").out)

    def test_golden_texts_encode_to_the_reference_ids(self):
        for case in lines("encode.jsonl")[:12]:
            out = self.assert_answers(hadal("tokenizer", "encode", TOKENIZER, stdin=case["text"].encode()))
            self.assertEqual([int(i) for i in out.split()], case["ids"])

    def test_golden_chats_render_to_the_reference_text_and_ids(self):
        for case in lines("chat.jsonl"):
            flags = [] if case["add_generation_prompt"] else ["--no-generation-prompt"]
            stdin = json.dumps(case["messages"]).encode()
            result = hadal("tokenizer", "chat", TOKENIZER, "--messages", "-", "--json", *flags, stdin=stdin)
            got = json.loads(self.assert_answers(result))
            self.assertEqual((got["text"], got["ids"]), (case["text"], case["ids"]))

    def test_info_counts_the_vocabulary(self):
        info = json.loads(self.assert_answers(hadal("tokenizer", "info", TOKENIZER, "--json")))
        with open(os.path.join(TOKENIZER, "tokenizer.json")) as file:
            published = json.load(file)
        self.assertEqual(info["base_tokens"], len(published["model"]["vocab"]))
        self.assertEqual(info["merges"], len(published["model"]["merges"]))
        self.assertIn(format(info["vocab_size"], ","), self.assert_answers(hadal("tokenizer", "info", TOKENIZER)))

    def test_special_tokens_are_plain_text_when_asked(self):
        bos = "<｜begin▁of▁sentence｜>"
        self.assertEqual(self.assert_answers(hadal("tokenizer", "encode", TOKENIZER, bos)), "0\n")
        self.assertNotIn(" 0 ", " %s " % hadal("tokenizer", "encode", TOKENIZER, bos, "--plain").out.strip())

    def test_bad_text_and_ids_are_named(self):
        bad = hadal("tokenizer", "encode", TOKENIZER, stdin=b"abc\xff")
        self.assert_fails(bad, 1, "stdin: byte 3 is not UTF-8")
        self.assert_fails(hadal("tokenizer", "encode", TOKENIZER, b"\xc0\x80"), 1, "byte 0 is not UTF-8")
        self.assert_fails(hadal("tokenizer", "decode", TOKENIZER, "5000000"), 1, "5000000")
        self.assert_fails(hadal("tokenizer", "decode", TOKENIZER, stdin=b"1 2\n3 x"), 3, "stdin: line 2", '"x"')
        self.assert_fails(hadal("tokenizer", "decode", TOKENIZER, "-1"), 2, "-1")


class Learned(ProgramTest):
    TEXT = "the deep sea is cold. the hadal zone is the deepest: 海底 ümlaut\n" * 50

    def test_a_learned_tokenizer_gives_its_text_back(self):
        for kind in ("bpe", "byte", "char"):
            with tempfile.TemporaryDirectory() as folder:
                data, out = os.path.join(folder, "data.txt"), os.path.join(folder, "tokenizer")
                with open(data, "w") as file:
                    file.write(self.TEXT)
                train = ["tokenizer", "train", "--data", data, "--out", out, "--kind", kind, "--vocab-size", "300"]
                made = json.loads(self.assert_answers(hadal(*train, "--json")))
                info = json.loads(self.assert_answers(hadal("tokenizer", "info", out, "--json")))
                self.assertEqual(info["vocab_size"], made["vocab_size"], kind)
                ids = self.assert_answers(hadal("tokenizer", "encode", out, "the zone 海 never seen: ß"))
                back = self.assert_answers(hadal("tokenizer", "decode", out, stdin=ids.encode()))
                self.assertEqual(back, "the zone 海 never seen: ß\n", kind)

    def test_a_learned_tokenizer_has_the_chat_format_of_v3(self):
        with tempfile.TemporaryDirectory() as folder:
            data, out = os.path.join(folder, "data.txt"), os.path.join(folder, "tokenizer")
            pathlib.Path(data).write_text(self.TEXT)
            self.assert_answers(hadal("tokenizer", "train", "--data", data, "--out", out, "--kind", "byte"))
            info = json.loads(self.assert_answers(hadal("tokenizer", "info", out, "--json")))
            self.assertEqual(info["chat_format"], "v3")
            chat = hadal("tokenizer", "chat", out, "--messages", "-", stdin=b'[{"role": "user", "content": "hi"}]')
            self.assertEqual(self.assert_answers(chat), "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>\n")

    def test_training_text_that_is_not_utf8_leaves_nothing_behind(self):
        with tempfile.TemporaryDirectory() as folder:
            data, out = os.path.join(folder, "data.txt"), os.path.join(folder, "tokenizer")
            with open(data, "wb") as file:
                file.write(b"good\xffbad")
            result = hadal("tokenizer", "train", "--data", data, "--out", out)
            self.assert_fails(result, 1, data, "byte 4 is not UTF-8")
            self.assertFalse(os.path.exists(out))


if __name__ == "__main__":
    main()
