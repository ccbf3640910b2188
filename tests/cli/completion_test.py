"""Completion scripts: complete, well-formed, and the bash one driven."""

import re
import shutil
import subprocess
import tempfile

from program import ProgramTest, hadal, main

# Calls the completion function as bash does, on words with the cursor after the last; prints what it offers.
DRIVER = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_hadal
printf '%s\n' "${COMPREPLY[@]}"
"""


class Completion(ProgramTest):
    def script(self, shell):
        text = self.assert_answers(hadal("completion", shell))
        file = tempfile.NamedTemporaryFile("w", suffix="." + shell)
        self.addCleanup(file.close)
        file.write(text)
        file.flush()
        return file.name

    def offered(self, *words):
        command = ["bash", "-c", DRIVER, "bash", self.script("bash"), "hadal", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode().split()

    def test_each_script_is_well_formed_for_its_shell(self):
        for shell in ("bash", "zsh", "fish"):
            if shutil.which(shell):
                subprocess.run([shell, "-n", self.script(shell)], check=True)

    def test_every_flag_of_every_help_is_in_every_script(self):
        flags = set()
        for path in (["run"], ["logits"], ["train"], ["convert"], ["tokenizer", "chat"], ["tokenizer", "train"]):
            flags |= set(re.findall(r"--([a-z][\w-]*)", hadal(*path, "--help").out.split("Options:")[1]))
        self.assertIn("repetition-penalty", flags)
        for shell in ("bash", "zsh", "fish"):
            with open(self.script(shell)) as file:
                text = file.read()
            for flag in flags:
                self.assertRegex(text, r"(--|-l )%s\b" % flag, shell)

    def test_bash_offers_commands_flags_and_values(self):
        self.assertIn("tokenizer", self.offered(""))
        self.assertEqual(self.offered("tok"), ["tokenizer"])
        self.assertEqual(self.offered("tokenizer", ""), ["encode", "decode", "info", "chat", "train"])
        self.assertEqual(self.offered("run", "--temp"), ["--temperature", "--template"])
        self.assertEqual(self.offered("run", "model", "--speculation", ""), ["auto", "on", "off"])
        self.assertEqual(self.offered("info", "--preset", "v2"), ["v2-lite", "v2"])
        self.assertEqual(self.offered("completion", "z"), ["zsh"])
        self.assertEqual(self.offered("tokenizer", "encode", "--pl"), ["--plain"])
        self.assertEqual(self.offered("run", "model", "--max-tokens", ""), [])

    def test_bash_offers_files_where_a_file_is_wanted(self):
        self.assertEqual(self.offered("run", "m", "--ids", "tests/cli/pro"), ["tests/cli/program.py"])
        self.assertEqual(self.offered("inspect", "tests/cli/pro"), ["tests/cli/program.py"])

    def test_an_argument_that_spells_a_command_changes_nothing(self):
        self.assertEqual(self.offered("run", "train", "--temp"), ["--temperature", "--template"])


if __name__ == "__main__":
    main()
