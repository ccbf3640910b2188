"""package_test.py BUILD_FOLDER: the release archive, unpacked elsewhere, with no environment and on a bare tree."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from golden import make_byte_model  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
GLIBC = ("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")


def run(*command):
    return subprocess.run([str(c) for c in command], cwd="/", env={}, capture_output=True, text=True, check=False, timeout=60)


class Archive(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="hadal_package_test_"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        done = subprocess.run([sys.executable, ROOT / "tools/package.py", BUILD, cls.folder / "out"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        cls.archive = pathlib.Path(done.stdout.strip())
        with tarfile.open(cls.archive) as archive:
            cls.names = archive.getnames()
            archive.extractall(cls.folder / "tree")
        cls.top = cls.folder / "tree" / cls.archive.name.removesuffix(".tar.gz")
        cls.model = cls.folder / "tree/model"
        make_byte_model(cls.model)

    def answers(self, *before, program, model):
        """The program's help and a greedy answer; what each must be is known from the build."""
        shown = run(*before, program, "--help")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertIn("Usage: hadal", shown.stdout)
        arguments = ("--prompt", "The sea", "--temperature", "0", "--max-tokens", "12", "--json")
        got = run(*before, program, "run", model, *arguments)
        self.assertEqual(got.returncode, 0, got.stderr)
        want = run(BUILD / "bin/hadal", "run", self.model, *arguments)
        self.assertEqual(json.loads(got.stdout)["text"], json.loads(want.stdout)["text"])

    def test_it_runs_with_an_empty_environment(self):
        self.answers("env", "-i", program=self.top / "bin/hadal", model=self.model)

    def test_it_runs_on_a_tree_with_nothing_but_glibc(self):
        tree = self.folder / "tree"
        loader = pathlib.Path("/lib64/ld-linux-x86-64.so.2").resolve()
        for place in ("lib64", "lib/x86_64-linux-gnu", "proc"):
            (tree / place).mkdir(parents=True)
        shutil.copy(loader, tree / "lib64/ld-linux-x86-64.so.2")
        for name in GLIBC[1:]:
            shutil.copy(loader.parent / name, tree / "lib/x86_64-linux-gnu" / name)
        # The loader asks /proc where the program lies.
        unshare, mount, chroot = (shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in ("unshare", "mount", "chroot"))
        own_user = [] if os.geteuid() == 0 else ["--map-root-user"]
        may = run(unshare, *own_user, "--mount", "true")
        if may.returncode:
            self.skipTest(may.stderr)
        inside = f'{mount} --rbind /proc "$0/proc" && exec {chroot} "$0" "$@"'
        enter = [unshare, *own_user, "--mount", "/bin/sh", "-c", inside, tree]
        self.answers(*enter, program=f"/{self.top.name}/bin/hadal", model="/model")

    def test_every_library_is_in_the_archive_or_of_glibc(self):
        for program in ("bin/hadal", "libexec/hadal/hadal-box", "lib/libhadal_c.so"):
            for name, path in re.findall(r"^\s+(\S+) => (.*) \(", run("ldd", self.top / program).stdout, re.MULTILINE):
                if name not in GLIBC:
                    self.assertEqual(pathlib.Path(path).resolve().parent, self.top / "lib", f"{program}: {name}")

    def test_it_brings_licences_and_documents_and_no_path_of_this_machine(self):
        licences = {p.name for p in (self.top / "share/licenses/hadal").iterdir()}
        self.assertLessEqual({"nlohmann-json3-dev.txt", "libcli11-dev.txt", "libtomlplusplus-dev.txt"}, licences)
        self.assertTrue(any("simdjson" in name for name in licences))
        self.assertTrue((self.top / "share/doc/hadal/README.md").exists())
        self.assertRegex((self.top / "README").read_text(), r"needs Linux with glibc 2\.\d+ or newer")
        self.assertFalse([name for name in self.names if name.split("/")[0] != self.top.name])
        for file in self.top.rglob("*.cmake"):
            self.assertNotIn(str(ROOT), file.read_text(), file.name)


if __name__ == "__main__":
    unittest.main()
