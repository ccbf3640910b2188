"""Help, usage errors, exit codes, streams and the hand-over to hadal-compute."""

import os
import re
import shutil
import subprocess
import tempfile

from program import HADAL, ProgramTest, hadal, main


def all_commands():
    """Every command path that --help leads to: (), ("run",), ("tokenizer", "encode"), ..."""
    paths, queue = [], [()]
    while queue:
        path = queue.pop(0)
        paths.append(path)
        text = hadal(*path, "--help").out
        if "Subcommands:" in text:
            names = re.findall(r"^  ([a-z-]+)\s", text.split("Subcommands:")[1], re.M)
            queue += [path + (name,) for name in names]
    return paths


class Commands(ProgramTest):
    def test_every_command_of_the_table_has_help_on_stdout(self):
        paths = all_commands()
        for name in ("run", "serve", "logits", "train", "eval", "quickstart", "info", "inspect", "convert", "tokenizer", "completion"):
            self.assertIn((name,), paths)
        for name in ("encode", "decode", "info", "chat", "train"):
            self.assertIn(("tokenizer", name), paths)
        for path in paths:
            text = self.assert_answers(hadal(*path, "--help"))
            self.assertIn("Usage: " + " ".join(("hadal",) + path), text)
            self.assertEqual(text, self.assert_answers(hadal(*path, "-h")))

    def test_only_help_prompt_and_number_of_ranks_have_single_letters(self):
        for path in all_commands():
            letters = re.findall(r"^\s+(-\w)\b", hadal(*path, "--help").out, re.M)
            self.assertLessEqual(set(letters), {"-h", "-p", "-n"}, path)

    def test_version_is_one_line(self):
        self.assertRegex(self.assert_answers(hadal("--version")), r"^hadal \d+\.\d+\.\d+\n$")

    def test_no_command_is_bad_usage_and_shows_the_commands(self):
        for path in ((), ("tokenizer",)):
            result = hadal(*path)
            self.assertEqual((result.code, result.out), (2, ""))
            self.assertIn("Subcommands:", result.err)

    def test_wrong_flags_and_commands_get_the_nearest_name(self):
        self.assertEqual(
            hadal("run", "m", "--temprature", "0.7").err,
            'hadal: unknown option --temprature (did you mean "--temperature"?)\n',
        )
        for arguments, nearest in (
            (["run", "m", "--temprature=0.7"], "--temperature"),
            (["rnu", "m"], "run"),
            (["tokenizer", "encdoe"], "encode"),
            (["info", "--jsno"], "--json"),
            (["info", "--preset", "v2lite"], "v2-lite"),
            (["run", "--max-token", "3"], "--max-tokens"),
        ):
            self.assert_fails(hadal(*arguments), 2, 'did you mean "%s"?' % nearest)

    def test_other_bad_usage_says_where_the_help_is(self):
        for arguments, part in (
            (["run"], "MODEL is required"),
            (["run", "m", "--cache-dtype", "q9"], 'got "q9", need auto, f32, bf16, int8, fp8'),
            (["info", "a", "b"], 'unexpected argument "b"'),
            (["logits", "m", "--ids", "i", "--out", "o", "--decode", "x"], 'got "x"'),
        ):
            self.assert_fails(hadal(*arguments), 2, part, "see hadal " + arguments[0] + " --help")

    def test_an_argument_that_spells_a_command_is_an_argument(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assert_fails(hadal("info", "train", cwd=folder), 1, "train does not exist")
            self.assert_fails(hadal("tokenizer", "encode", "info", "decode", cwd=folder), 1, "info")

    def test_a_full_disk_is_noticed(self):
        with open("/dev/full", "wb") as full:
            for arguments in (["--help"], ["info", "--preset", "v3"], ["completion", "bash"], ["--version"]):
                result = hadal(*arguments, stdout=full)
                self.assertEqual(result.code, 1, arguments)
                self.assertIn("cannot write to stdout: No space left", result.err)

    def test_a_reader_that_has_gone_is_no_failure(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        result = hadal("info", "--preset", "v3", stdout=write_end)
        os.close(write_end)
        self.assertEqual((result.code, result.err), (0, ""))

    def test_trace_adds_the_code_of_the_error(self):
        result = hadal("info", "/nowhere", env={**os.environ, "HADAL_TRACE": "1"})
        self.assertEqual(result.code, 1)
        self.assertIn("code: not_found", result.err)
        self.assertIn("command: ", result.err)
        self.assertNotIn("code:", hadal("info", "/nowhere", env={**os.environ, "HADAL_TRACE": ""}).err)

    def test_control_characters_of_a_path_do_not_reach_the_terminal(self):
        result = hadal("info", "/no\x1b[31m\nwhere")
        self.assert_fails(result, 1, "/no?[31m where")


class HandOver(ProgramTest):
    """The front end alone, and with a stand-in for hadal-compute."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        os.mkdir(os.path.join(self.folder, "bin"))
        self.program = shutil.copy(HADAL, os.path.join(self.folder, "bin", "hadal"))

    def install(self, *where, mode=0o755):
        path = os.path.join(self.folder, *where)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as script:
            script.write('#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done\nexit 7\n')
        os.chmod(path, mode)

    def test_without_hadal_compute_the_error_names_it(self):
        for arguments in (["logits", "m", "--ids", "x", "--out", "y"], ["train", "--data", "x", "--out", "y", "--steps", "1"]):
            result = hadal(*arguments, program=self.program)
            self.assert_fails(result, 1, "[cli." + arguments[0] + "]", "needs hadal-compute", "./dev build")

    def test_arguments_and_exit_code_pass_through_unchanged(self):
        for where in (("bin", "hadal-compute"), ("libexec", "hadal", "hadal-compute")):
            with self.subTest(where=where):
                self.install(*where)
                result = hadal("logits", "m", "--ids", "a 'b'\n*", "--out=x", "--decode=3", program=self.program)
                self.assertEqual((result.code, result.out, result.err), (7, "<logits><m><--ids><a 'b'\n*><--out=x><--decode=3>", ""))
                os.remove(os.path.join(self.folder, *where))

    def test_a_wrong_flag_is_refused_before_the_hand_over(self):
        self.install("bin", "hadal-compute")
        self.assert_fails(hadal("run", "m", "--top-p", "2", program=self.program), 2, "--top-p: got 2")
        self.assert_fails(hadal("run", "m", "-p", b"\xff", program=self.program), 1, "--prompt: byte 0 is not UTF-8")

    def test_it_is_found_from_a_link_and_from_the_path(self):
        self.install("bin", "hadal-compute")
        link = os.path.join(self.folder, "link")
        os.symlink(self.program, link)
        self.assertEqual(hadal("sft", "m", "--data", "x", "--out", "y", program=link).out, "<sft><m><--data><x><--out><y>")
        env = {**os.environ, "PATH": os.path.dirname(self.program) + ":" + os.environ["PATH"]}
        done = subprocess.run(["hadal", "sft", "m", "--data", "x", "--out", "y"], env=env, stdout=subprocess.PIPE, check=False)
        self.assertEqual(done.stdout, b"<sft><m><--data><x><--out><y>")

    def test_the_front_end_links_no_tensor_library(self):
        ldd = shutil.which("ldd")
        if not ldd:
            self.skipTest("no ldd")
        libraries = subprocess.run([ldd, HADAL], stdout=subprocess.PIPE, check=True).stdout.decode()
        self.assertNotIn("torch", libraries)
        self.assertNotIn("c10", libraries)


if __name__ == "__main__":
    main()
