#!/usr/bin/env python3
"""Kills a random rank of a training job with SIGKILL at random moments, under hadal launch --max-restarts.

usage: rank_kills.py build/release/bin/hadal [--kills 100] [--ranks 2] [--seed 1] [--saving] [--parallel.pipeline 2 ...]

After every kill the rank must be named within two seconds, all ranks of that start be gone, and the job start again
by itself; at the end it must have trained what an unbroken process trains, byte for byte. Ranks that share a model out
(--parallel.KEY) are held against an unbroken run of theirs. --saving: only kills count that leave a checkpoint half
written. New jobs are started until there were enough kills. Exit code 1 at the first fault, and the folder is kept.
"""
import argparse
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cli"))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
import kill_test  # noqa: E402
from program import HADAL, is_running  # noqa: E402

NAMED_SECONDS, START_SECONDS, END_SECONDS = 2, 60, 600


class Fault(Exception):
    pass


def command(program, text, out, layout=()):
    return [*kill_test.command(program, text, out, threads=1), "--batch.workers", "2", *layout]


class Saves:
    """The checkpoints of a run folder that are being written, or were when it was killed."""

    def __init__(self, out):
        self.folder, self.left = os.path.join(out, "checkpoints"), set()

    def partial(self):
        found = set()
        try:
            for entry in os.scandir(self.folder):
                if entry.name.endswith(".partial"):
                    about = entry.stat()
                    found.add((entry.name, about.st_ino, about.st_ctime_ns))
        except OSError:
            pass
        return found

    def wait_for_one(self, process):
        """Until one is begun, or the process has ended."""
        while process.poll() is None and not self.partial() - self.left:
            time.sleep(0.0005)

    def was_hit(self):
        """Is one left half written that was not before?"""
        left = self.partial()
        hit, self.left = bool(left - self.left), left
        return hit


def rank_of(pid):
    """RANK in a process's environment; None until it runs the program, or if it is gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            found = re.search(rb"(?:^|\0)RANK=(\d+)\0", file.read())
        return int(found[1]) if found else None
    except OSError:
        return None


class Job:
    """A launcher and what it says."""

    def __init__(self, program, ranks, arguments):
        launch = [program, "launch", "-n", str(ranks), "--max-restarts", "1000", "--"]
        self.process = subprocess.Popen([*launch, *arguments[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.said, self.lines, self.seen = queue.Queue(), [], set()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with self.process.stderr as stderr:
            for line in stderr:
                self.said.put(line.decode())
        self.said.put(None)

    def wait_for(self, what, seconds):
        """Seconds until a line with `what`; None: the launcher ended without. Too late: a fault."""
        begin = time.monotonic()
        while True:
            try:
                line = self.said.get(timeout=max(0, begin + seconds - time.monotonic()))
            except queue.Empty:
                raise Fault(f"not said within {seconds} s: {what}\n{self.text()}") from None
            if line is None:
                self.said.put(None)
                return None
            self.lines.append(line)
            if what in line:
                return time.monotonic() - begin

    def text(self):
        return "".join(self.lines[-30:])

    def ranks(self):
        """{rank: pid} of those that run the program now."""
        try:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
                found = {rank_of(pid): int(pid) for pid in file.read().split()}
        except OSError:
            return {}
        found.pop(None, None)
        self.seen.update(found.values())
        return found

    def kill_one(self, draw):
        """Kills a random rank. Seconds until it was named; None: the job ended before."""
        begin = time.monotonic()
        while not (there := self.ranks()):
            if self.process.poll() is not None:
                return None
            if time.monotonic() - begin > START_SECONDS:
                raise Fault("no rank runs\n" + self.text())
            time.sleep(0.01)
        rank, pid = draw.choice(sorted(there.items()))
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            return None
        named = self.wait_for(f"[launch] rank {rank} was ended by SIGKILL", NAMED_SECONDS) if self.process.poll() is None else None
        if named is None:
            return None
        if self.wait_for("all ranks are started again", NAMED_SECONDS) is None:
            raise Fault("not started again\n" + self.text())
        if left := [one for one in there.values() if is_running(one)]:
            raise Fault(f"left behind after the restart: {left}")
        return named

    def end(self):
        code = self.process.wait(timeout=END_SECONDS)
        self.wait_for("\0", END_SECONDS)  # all that is left
        if code != 0:
            raise Fault(f"exit code {code}\n{self.text()}")
        if left := [pid for pid in self.seen if is_running(pid)]:
            raise Fault(f"left behind at the end: {left}")


def unbroken(program, ranks, layout, text, out):
    """Seconds that it took."""
    begin = time.monotonic()
    alone = command(program, text, out, layout)
    kill_test.until_killed([program, "launch", "-n", str(ranks), "--", *alone[1:]] if layout else alone, END_SECONDS)
    return time.monotonic() - begin


def run(program, kills, ranks, seed, folder, say=print, layout=(), saving=False):
    """Seconds from each kill to its rank's name. Throws Fault."""
    draw = random.Random(seed)
    text, whole = os.path.join(folder, "text.txt"), os.path.join(folder, "whole")
    with open(text, "w") as file:
        file.write(kill_test.TEXT)
    duration = unbroken(program, ranks, layout, text, whole)
    want, named, jobs = kill_test.result(whole), [], 0
    while len(named) < kills:
        out = os.path.join(folder, f"broken-{jobs}")
        job, saves = Job(program, ranks, command(program, text, out, layout)), Saves(out)
        try:
            for _ in range(draw.randint(2, 8)):
                if len(named) == kills:
                    break
                if saving:
                    saves.wait_for_one(job.process)
                    time.sleep(draw.uniform(0, 0.004))
                else:
                    try:
                        job.process.wait(timeout=draw.uniform(0, 1.1) * duration)
                    except subprocess.TimeoutExpired:
                        pass
                seconds = job.kill_one(draw)
                if seconds is None:
                    break
                if not saving or saves.was_hit():
                    named.append(seconds)
            job.end()
        finally:
            job.process.kill()
        if differing := kill_test.different(kill_test.result(out), want):
            raise Fault("not the unbroken run's: " + ", ".join(differing))
        jobs += 1
        say(f"{len(named)} kills, {jobs} jobs: the same bytes, nothing left; named after at most {max(named, default=0):.2f} s")
        shutil.rmtree(out)
    shutil.rmtree(whole)
    return named


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--saving", action="store_true")
    options, layout = parser.parse_known_args()
    folder = tempfile.mkdtemp(prefix="hadal-rank-kill-")
    try:
        run(HADAL, options.kills, options.ranks, options.seed, folder, layout=layout, saving=options.saving)
    except Fault as fault:
        print(f"{fault}\nkept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
