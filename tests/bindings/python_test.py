"""python_test.py HADAL: the module `hadal` (on PYTHONPATH) against the program."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import hadal  # noqa: E402
from golden import make_byte_model  # noqa: E402

PROGRAM = sys.argv.pop(1)


class Module(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="hadal_python_test_")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        make_byte_model(cls.folder)
        cls.model = hadal.Model.open(cls.folder, threads=1, cache_tokens=4096)

    def test_pieces_are_the_answer_of_the_program(self):
        command = [PROGRAM, "run", self.folder, "--prompt", "The sea", "--temperature", "0.8", "--seed", "7",
                   "--max-tokens", "20", "--json"]
        want = json.loads(subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout)
        answer = self.model.generate("The sea", temperature=0.8, seed=7, max_tokens=20)
        self.assertIsNone(answer.finish_reason)
        pieces = list(answer)
        self.assertEqual("".join(p.text for p in pieces), want["text"])
        self.assertEqual([i for p in pieces for i in p.ids], want["tokens"])
        self.assertEqual(answer.finish_reason, want["finish_reason"])
        self.assertEqual(answer.usage["prompt_tokens"], want["prompt_tokens"])

    def test_text_of_an_answer_is_its_pieces_together(self):
        pieces = self.model.generate("abc", temperature=0, max_tokens=12)
        self.assertEqual(self.model.generate("abc", temperature=0, max_tokens=12).text(), "".join(map(str, pieces)))

    def test_ids_and_text_are_the_same_prompt(self):
        ids = self.model.tokenizer.encode_prompt("abc")
        self.assertEqual(self.model.generate(ids, temperature=0, max_tokens=8).text(),
                         self.model.generate("abc", temperature=0, max_tokens=8).text())

    def test_the_tokenizer_makes_a_round_trip(self):
        tokenizer = self.model.tokenizer
        text = "Grüße, 🐟"
        self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)
        self.assertEqual(tokenizer.encode_prompt("a"), [tokenizer.bos_id] + tokenizer.encode("a"))
        self.assertEqual(hadal.Tokenizer.load(self.folder).encode(text), tokenizer.encode(text))
        self.assertGreater(len(tokenizer.encode("<｜User｜>", special=False)), len(tokenizer.encode("<｜User｜>")))

    def test_a_chat_is_the_prompt_of_its_template(self):
        messages = [{"role": "user", "content": "Hi"}]
        ids = self.model.chat_prompt(messages, format="v3")
        self.assertEqual(self.model.tokenizer.decode(ids), "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>")
        with self.assertRaisesRegex(hadal.Error, r'messages\[0\] has no "content"'):
            self.model.chat_prompt([{"role": "user"}], format="v3")

    def test_threads_get_what_each_gets_alone_and_the_interpreter_goes_on(self):
        prompts = [f"{i} fish" for i in range(4)]
        alone = [self.model.generate(p, temperature=0, max_tokens=30).text() for p in prompts]
        together = [None] * len(prompts)

        def ask(i):
            together[i] = self.model.generate(prompts[i], temperature=0, max_tokens=30).text()

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(together, alone)

    def test_an_answer_can_be_left_and_ended(self):
        answer = self.model.generate("abc", max_tokens=200, ignore_end=True)
        next(answer)
        answer.cancel()
        self.assertEqual(answer.finish_reason, "cancelled")
        self.assertEqual(list(answer), [])
        del answer
        model = hadal.Model.open(self.folder, threads=1, cache_tokens=1024)
        answer = model.generate("abc", max_tokens=20, ignore_end=True)
        del model  # the answer keeps it
        self.assertEqual(sum(len(piece.ids) for piece in answer), 20)

    def test_the_example_in_the_documents_runs(self):
        (code,) = re.findall(r"^```python\n(.*?)^```", pathlib.Path("docs/python.md").read_text(), re.M | re.S)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code.replace('"MODEL"', repr(self.folder)), {})  # pylint: disable=exec-used
        self.assertTrue(out.getvalue().endswith("Grüße\n"))

    def test_errors_are_exceptions_with_a_code(self):
        for code, text, call in (
            ("not_found", "/no/such", lambda: hadal.Model.open("/no/such")),
            ("invalid_argument", "sideways", lambda: hadal.Model.open(self.folder, speculation="sideways")),
            ("invalid_argument", "temperature", lambda: self.model.generate("a", temperature=-1).text()),
            ("invalid_argument", "prompt", lambda: self.model.generate([]).text()),
            ("invalid_argument", "99999", lambda: self.model.tokenizer.decode([99999])),
            ("invalid_argument", "v4", lambda: self.model.chat_prompt([], format="v4")),
        ):
            with self.subTest(text), self.assertRaises(hadal.Error) as caught:
                call()
            self.assertEqual(caught.exception.code, code)
            self.assertIn(text, str(caught.exception))
        self.assertIsInstance(caught.exception, RuntimeError)
        with self.assertRaises(TypeError):
            self.model.generate("a", temperatur=1)


if __name__ == "__main__":
    unittest.main()
