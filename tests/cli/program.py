"""Runs the built program. Each test file gets its path as the first argument."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from golden import golden, make_byte_model  # noqa: E402, F401: for the tests

HADAL = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "hadal"

class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

def hadal(*arguments, stdin=b"", program=None, **more):
    """Runs hadal with the arguments; out and err are text. A test that hangs fails after a minute."""
    more.setdefault("stdout", subprocess.PIPE)
    done = subprocess.run(
        [program or HADAL, *arguments], input=stdin, stderr=subprocess.PIPE, timeout=60, check=False, **more
    )
    done.stdout = (done.stdout or b"").decode("utf-8", "surrogateescape")
    done.stderr = done.stderr.decode("utf-8", "surrogateescape")
    return Result(done)

def is_running(pid):
    """A zombie that its new parent has not collected yet runs no more."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

class ProgramTest(unittest.TestCase):
    """With the checks that every failing command must pass."""

    def assert_fails(self, result, code, *parts):
        """One line on stderr that says all `parts`, nothing on stdout, this exit code."""
        self.assertEqual(result.code, code, result.err)
        self.assertEqual(result.out, "")
        self.assertTrue(result.err.startswith("hadal: "), result.err)
        self.assertEqual(result.err.count("\n"), 1, result.err)
        for part in parts:
            self.assertIn(part, result.err)

    def assert_answers(self, result):
        self.assertEqual((result.code, result.err), (0, ""))
        return result.out

def golden_tokenizer():
    """Folder of the published tokenizer, or None."""
    for folder in (golden("tokenizer"), ".deps/tokenizer"):
        if os.path.exists(os.path.join(folder, "tokenizer.json")):
            return folder
    return None

main = unittest.main
