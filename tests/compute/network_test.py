"""hadal train on two machines: two network namespaces of this one, joined by one cable that can be cut."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ranks_test import HADAL, Ranks, main  # noqa: E402

PORT, TIMEOUT = 29511, 4


def ip(*arguments):
    return subprocess.run(["ip", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


class TwoMachines(Ranks):
    def setUp(self):
        super().setUp()
        self.names = [f"hadal{os.getpid()}{end}" for end in "ab"]
        self.addCleanup(lambda: [ip("netns", "del", name) for name in self.names])
        cables = [f"hv{os.getpid()}{end}" for end in "ab"]
        steps = [("netns", "add", name) for name in self.names]
        steps.append(("link", "add", cables[0], "netns", self.names[0], "type", "veth", "peer", "name", cables[1], "netns", self.names[1]))
        for n, (name, cable) in enumerate(zip(self.names, cables)):
            steps.append(("-n", name, "addr", "add", f"10.231.77.{n + 1}/24", "dev", cable))
            steps += [("-n", name, "link", "set", device, "up") for device in (cable, "lo")]
        for step in steps:
            try:
                done = ip(*step)
            except FileNotFoundError:
                self.skipTest("no program ip here")
            if done.returncode != 0:
                self.skipTest(f"no network namespaces here: ip {' '.join(step)}: {done.stdout.decode().strip()}")
        self.cable = cables[0]

    def rank(self, n, arguments):
        """Rank n of two, on its machine."""
        place = {"RANK": n, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        place.update(MASTER_ADDR="10.231.77.1", MASTER_PORT=PORT)
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[n], HADAL, *arguments],
            env={**os.environ, **{key: str(value) for key, value in place.items()}},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_train_the_model_of_one_process_byte_for_byte(self):
        self.run_it([HADAL, *self.command("one")])
        both = [self.rank(n, self.command("two", "--parallel.timeout_seconds", "60")) for n in (0, 1)]
        for process in both:
            said = process.stderr.read().decode()
            self.assertEqual(process.wait(timeout=240), 0, said)
        self.assert_same_run("two", "one")

    def test_a_cut_cable_ends_both_after_the_timeout_and_each_names_the_other(self):
        command = self.command("cut", "--parallel.timeout_seconds", str(TIMEOUT), steps=100000)
        both = [self.rank(n, command) for n in (0, 1)]
        for line in both[0].stderr:
            if line.startswith(b"step"):
                break
        done = ip("-n", self.names[0], "link", "set", self.cable, "down")
        self.assertEqual(done.returncode, 0, done.stdout)
        begin = time.monotonic()
        for n, process in enumerate(both):
            code = process.wait(timeout=60)
            self.assertLess(time.monotonic() - begin, TIMEOUT + 2, n)
            said = process.stderr.read().decode()
            self.assertEqual(code, 6, said)
            self.assertIn(f"rank {1 - n} has not answered for {TIMEOUT} s", said)


# Its tests are ranks_test's.
del Ranks

if __name__ == "__main__":
    main()
