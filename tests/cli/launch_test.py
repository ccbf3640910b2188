"""hadal launch: output, failures, signals and what is left behind, with programs of a line or two as ranks."""

import os
import re
import signal
import subprocess
import sys
import tempfile
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
    def start(self, n, script, *more):
        """The launcher and the pids that the ranks print first."""
        process = subprocess.Popen(
            [HADAL, "launch", "-n", str(n), "--program", *more, "--", "sh", "-c", script],
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

    # Counts its starts in a file of its own.
    COUNTED = 'at={}/$RANK; echo >> $at; starts=$(wc -l < $at); '

    def counted(self, script):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return self.COUNTED.format(folder.name) + script

    def test_after_a_failure_all_ranks_are_started_again(self):
        script = 'echo "rank $RANK start $starts"; [ $RANK = 1 ] && [ $starts -lt 3 ] && exit 7; [ $starts = 3 ] || sleep 60'
        begin = time.monotonic()
        done = ranks(3, self.counted(script), "--max-restarts", "5")
        self.assertLess(time.monotonic() - begin, 2 * 2 + 1)
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(len(set(re.findall(r"rank (\d start \d)", done.out))), 9, done.out)
        self.assertEqual(done.err.count("rank 1 ended with exit code 7; the others are ended."), 2)
        self.assertIn("[launch] restart 1 of 5: all ranks are started again.\n", done.err)
        self.assertIn("[launch] restart 2 of 5: all ranks are started again.\n", done.err)
        self.assertNotIn("restart 3", done.err)

    def test_it_gives_up_after_so_many_restarts_with_the_last_causes_code(self):
        done = ranks(2, self.counted("[ $RANK = 0 ] && exit $((40 + starts)); sleep 60"), "--max-restarts", "2")
        self.assertEqual(done.code, 43, done.err)
        self.assertIn("[launch] gives up after 2 restarts.\n", done.err)
        self.assertEqual(done.err.count("all ranks are started again"), 2)
        without = ranks(2, "exit 9")
        self.assertEqual((without.code, without.err.count("\n")), (9, 1), without.err)

    def test_a_stop_is_no_failure_and_starts_nothing_again(self):
        script = self.counted('trap "exit 4" TERM; echo "pid $$"; while :; do sleep 0.05; done')
        process, pids = self.start(2, script, "--max-restarts", "3")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 4, err)
        self.assertNotIn(b"restart", err)
        self.assertFalse(any(map(is_running, pids)))
        stopped = ranks(2, "exit 75", "--max-restarts", "3")  # stopped and saved: someone asked a rank
        self.assertEqual(stopped.code, 75)
        self.assertNotIn("restart", stopped.err)

    def test_a_stop_while_a_failure_is_handled_starts_nothing_again(self):
        script = self.counted('trap "" TERM; echo "pid $$"; [ $RANK = 1 ] && { sleep 0.3; exit 7; }; while :; do sleep 0.05; done')
        process, _ = self.start(2, script, "--max-restarts", "3")
        for line in process.stderr:
            if b"rank 1 ended" in line:
                break
        process.send_signal(signal.SIGTERM)  # rank 0 does not end by it: a second is left before it is killed
        _, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 7, err)
        self.assertNotIn(b"started again", err)

    def test_nothing_of_an_earlier_start_is_left(self):
        script = self.counted('sleep 60 & echo "pids $$ pid $!"; trap "" TERM; [ $RANK = 1 ] && [ $starts = 1 ] && exit 7; '
                              '[ $starts = 1 ] || exit 0; while :; do sleep 0.05; done')
        done = ranks(2, script, "--max-restarts", "1")
        self.assertEqual(done.code, 0, done.err)
        pids = [int(pid) for pid in re.findall(r"pids? ([0-9]+)", done.out)]
        self.assertEqual(len(pids), 8, done.out)
        self.assertTrue(wait_until(lambda: not any(map(is_running, pids)), 2), pids)

    def test_signals_reach_the_ranks_of_a_later_start(self):
        script = self.counted('trap "echo got it; exit 0" USR1; [ $starts = 1 ] && { [ $RANK = 0 ] && exit 3; sleep 60; }; '
                              'echo "pid $$"; while :; do sleep 0.05; done')
        process, _ = self.start(2, script, "--max-restarts", "1")
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=20)
        self.assertEqual((process.returncode, out.count(b"got it")), (0, 2), err)

    def test_bad_usage_is_refused(self):
        self.assertEqual(hadal("launch", "-n", "2", "--max-restarts", "-1", "--", "train").code, 2)
        self.assertEqual(hadal("launch", "-n", "0", "--", "train").code, 2)
        self.assertEqual(hadal("launch", "-n", "2").code, 2)


if __name__ == "__main__":
    main()
