"""hadal sandbox: what people see; and that nothing outlives it."""

import json
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from program import HADAL, ProgramTest, hadal, main  # noqa: E402

CHECK = hadal("sandbox", "check", "--json")
USABLE = json.loads(CHECK.out)["usable"]
WHY_NOT = "no sandbox here: " + "; ".join(w["wall"] for w in json.loads(CHECK.out)["walls"] if w["needed"] and not w["stands"])


def run(*arguments, **how):
    return hadal("sandbox", "run", *arguments, **how)


def processes_with(mark):
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found += mark.encode() in file.read()
        except OSError:
            pass
    return found


class Check(ProgramTest):
    def test_names_each_wall_and_exits_by_what_stands(self):
        walls = {w["wall"] for w in json.loads(CHECK.out)["walls"]}
        if USABLE:
            self.assertLessEqual({"files", "network", "processes", "memory", "disk", "privileges", "system calls"}, walls)
        self.assertEqual(CHECK.code, 0 if USABLE else 1)
        self.assertIn("All needed walls stand." if USABLE else "nothing will be run", hadal("sandbox", "check").out)

    def test_without_a_wall_nothing_is_run(self):
        if USABLE:
            # A seccomp filter as of a container, that refuses new user namespaces, is the usual way to lose them.
            limited = f"echo 0 > /proc/sys/user/max_user_namespaces && exec {HADAL} sandbox run -- /bin/echo ran"
            done = subprocess.run(["unshare", "--user", "--map-root-user", "--", "sh", "-c", limited], capture_output=True, text=True)
            if "cannot" not in done.stderr and done.returncode != 1:
                self.skipTest("cannot take namespaces away here: " + done.stderr.strip())
            self.assertNotIn("ran", done.stdout)
            self.assertIn("cannot give a wall", done.stderr)
        else:
            self.assert_fails(run("--", "/bin/echo", "ran"), 1, "cannot give a wall")


@unittest.skipUnless(USABLE, WHY_NOT)
class Run(ProgramTest):
    def test_passes_streams_and_exit_code(self):
        done = run("--", "sh", "-c", "cat; echo no >&2; exit 9", stdin=b"typed")
        self.assertEqual((done.code, done.out, done.err), (9, "typed", "no\n"))

    def test_limits_end_it_with_124_and_a_reason(self):
        for flags, script, reason in (
            (["--wall", "0.3"], "sleep 60", "wall time is over"),
            (["--cpu", "0.2"], "while :; do :; done", "CPU time is over"),
            (["--memory", "50"], "tail /dev/zero", "too much memory"),
            (["--output", "10"], "yes", "too much output"),
        ):
            done = run(*flags, "--", "sh", "-c", script)
            self.assertEqual(done.code, 124, done.err)
            self.assertIn(reason, done.err)

    def test_a_crash_is_128_and_the_signal(self):
        self.assertEqual(run("--", "sh", "-c", "kill -SEGV $$").code, 128 + 11)

    def test_files_go_in_and_the_host_stays_out(self):
        done = run("--file", "README.md", "--", "sh", "-c", "ls; ls /etc /home 2>/dev/null; wc -l < README.md")
        self.assertEqual(done.code, 0, done.err)
        self.assertRegex(done.out, r"^README.md\n\d+\n$")

    def test_json_holds_the_whole_result(self):
        result = json.loads(self.assert_answers(run("--json", "--", "echo", "hello")))
        self.assertEqual((result["status"], result["out"], result["exit_code"]), ("ok", "hello\n", 0))

    def test_a_command_that_is_not_there_is_an_error(self):
        self.assert_fails(run("--", "/no/such"), 1, "cannot start /no/such")
        self.assertEqual(run("--", "no-such").code, 127)

    def test_bad_usage_is_refused(self):
        self.assertEqual(run("--wall", "0", "--", "true").code, 2)
        self.assertEqual(run().code, 2)
        self.assert_fails(run("--file", "/no/such/file", "--", "true"), 1, "/no/such/file")

    def test_a_killed_hadal_leaves_nothing(self):
        mark = f"mark{os.getpid()}"
        process = subprocess.Popen(
            [HADAL, "sandbox", "run", "--wall", "100", "--", "sh", "-c", "setsid sleep 100 & echo go; sleep 100", mark],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.assertEqual(process.stdout.readline(), b"go\n")
        self.assertGreater(processes_with(mark), 1)
        process.kill()
        process.communicate()
        end = time.monotonic() + 5
        while processes_with(mark) and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(processes_with(mark), 0)


if __name__ == "__main__":
    main()
