"""hadal launch: output, failures, signals and what is left behind, with programs of a line or two as ranks."""

import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from program import HADAL, ProgramTest, hadal, is_running, main  # noqa: E402


def ranks(n, script, *more, **how):
    return hadal("launch", "-n", str(n), "--program", *more, "--", "sh", "-c", script, **how)


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Launch(ProgramTest):
    def start(self, n, script):
        """The launcher and the pids that the ranks print first."""
        process = subprocess.Popen(
            [HADAL, "launch", "-n", str(n), "--program", "--", "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(process.kill)
        self.addCleanup(process.communicate)
        pids = []
        while len(pids) < n:
            pids += [int(pid) for pid in re.findall(rb"\] pids? ([0-9]+)", process.stdout.readline())]
        return process, pids

    def test_each_line_is_after_its_rank_and_on_its_stream(self):
        done = ranks(3, 'echo "out $RANK of $WORLD_SIZE"; echo "err $LOCAL_RANK of $LOCAL_WORLD_SIZE" >&2; printf "no end"')
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(
            sorted(done.out.splitlines()), sorted(line for r in range(3) for line in (f"[{r}] out {r} of 3", f"[{r}] no end"))
        )
        self.assertEqual(sorted(done.err.splitlines()), [f"[{r}] err {r} of 3" for r in range(3)])

    def test_ranks_meet_at_one_address_and_read_no_input(self):
        done = ranks(2, "echo $MASTER_ADDR:$MASTER_PORT; cat", stdin=b"typed")
        lines = {line.split("] ")[1] for line in done.out.splitlines()}
        self.assertEqual(len(lines), 1, done.out)
        self.assertRegex(lines.pop(), r"^127\.0\.0\.1:[0-9]+$")

    def test_without_program_the_arguments_are_hadals(self):
        done = hadal("launch", "-n", "2", "--", "--version")
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(len(re.findall(r"^\[[01]\] hadal ", done.out, re.M)), 2, done.out)

    def test_first_failure_ends_all_within_two_seconds_and_is_named(self):
        begin = time.monotonic()
        done = ranks(3, 'trap "" TERM; if [ $RANK = 1 ]; then sleep 0.3; exit 7; fi; while :; do sleep 1; done')
        self.assertLess(time.monotonic() - begin, 0.3 + 2)
        self.assertEqual(done.code, 7)
        self.assertIn("[launch] rank 1 ended with exit code 7; the others are ended.", done.err)

    def test_a_rank_ended_by_a_signal_is_named_with_it(self):
        done = ranks(2, "[ $RANK = 1 ] && kill -SEGV $$; sleep 30")
        self.assertEqual(done.code, 128 + signal.SIGSEGV)
        self.assertIn("rank 1 was ended by SIGSEGV", done.err)

    def test_who_only_lost_its_peers_is_not_the_cause(self):
        done = ranks(3, "[ $RANK = 2 ] && { sleep 0.05; exit 3; }; exit 6")
        self.assertEqual(done.code, 3)
        self.assertIn("rank 2 ended with exit code 3", done.err)

    def test_a_program_that_does_not_start_is_an_error(self):
        done = hadal("launch", "-n", "2", "--program", "--", "/no/such/program")
        self.assertEqual(done.code, 127)
        self.assertIn("cannot start /no/such/program", done.err)

    def test_signals_are_passed_on_and_ranks_may_finish(self):
        for number, name in ((signal.SIGINT, "INT"), (signal.SIGTERM, "TERM")):
            # Rank 1 answers at once; that does not cut rank 0 short.
            script = f'trap "[ \\$RANK = 0 ] && sleep 1.5; echo saved; exit 4" {name}; echo "pid $$"; while :; do sleep 0.05; done'
            process, _ = self.start(2, script)
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
            self.assertEqual(process.returncode, 4, err)
            self.assertEqual(out.count(b"saved"), 2, out)

    def test_sigusr1_reaches_the_ranks_and_ends_nothing(self):
        process, _ = self.start(2, 'trap "echo got it; exit 0" USR1; echo "pid $$"; while :; do sleep 0.05; done')
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=20)
        self.assertEqual((process.returncode, out.count(b"got it")), (0, 2), err)

    def test_a_killed_launcher_leaves_no_rank(self):
        process, pids = self.start(3, 'echo "pid $$"; exec sleep 60')
        process.kill()
        process.wait()
        self.assertTrue(wait_until(lambda: not any(map(is_running, pids)), 2), pids)

    def test_what_ranks_started_ends_with_them(self):
        process, pids = self.start(2, 'sleep 60 & echo "pid $!"; sleep 0.2; exit 0')
        process.wait(timeout=10)
        self.assertTrue(wait_until(lambda: not any(map(is_running, pids)), 2), pids)

    def test_bad_usage_is_refused(self):
        self.assertEqual(hadal("launch", "-n", "0", "--", "train").code, 2)
        self.assertEqual(hadal("launch", "-n", "2").code, 2)


if __name__ == "__main__":
    main()
