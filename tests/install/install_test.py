"""install_test.py BUILD_FOLDER CMAKE: the installed library, used as by a stranger: prefix, package, example."""

import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CMAKE = sys.argv.pop(2)
BUILD = pathlib.Path(sys.argv.pop(1))


def golden(case):
    places = [os.environ.get("HADAL_GOLDEN"), ROOT / "../shared/golden", ROOT / "tests/golden"]
    return next(pathlib.Path(p) / case for p in places if p and (pathlib.Path(p) / case / "expected.json").exists())


def read_rows(case, name):
    """An int64 matrix of the case's expected.safetensors, as rows."""
    data = (golden(case) / "expected.safetensors").read_bytes()
    (header_bytes,) = struct.unpack_from("<Q", data)
    entry = json.loads(data[8 : 8 + header_bytes])[name]
    rows, columns = entry["shape"]
    values = struct.unpack_from(f"<{rows * columns}q", data, 8 + header_bytes + entry["data_offsets"][0])
    return [list(values[i * columns : (i + 1) * columns]) for i in range(rows)]


def cache_value(name):
    match = re.search(rf"^{name}:\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.MULTILINE)
    return match.group(1) if match else ""


def run(*command):
    done = subprocess.run([str(c) for c in command], cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def generate(program, model, prompts):
    """{request: its tokens} of the example, in the order of the prompts, and how each one ended."""
    tokens, ends = {}, {}
    for line in run(program, model, *(" ".join(map(str, p)) for p in prompts)).splitlines():
        request, ids, end = re.fullmatch(r"request (\d+):((?: \d+)*)(?: \((\w+)\))?", line).groups()
        tokens.setdefault(int(request), []).extend(map(int, ids.split()))
        if end:
            ends[int(request)] = end
    return [tokens[r] for r in sorted(tokens)], [ends[r] for r in sorted(ends)]


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="hadal_install_test_"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        run(CMAKE, "--install", BUILD, "--component", "library", "--prefix", cls.folder / "first")
        cls.prefix = cls.folder / "moved"  # a package may be unpacked anywhere
        (cls.folder / "first").rename(cls.prefix)
        # A copy, so that nothing beside it in the repository can be seen.
        shutil.copytree(ROOT / "examples", cls.folder / "example")
        build = cls.folder / "build"
        kept = ("CMAKE_CXX_COMPILER", "CMAKE_MAKE_PROGRAM", "simdjson_DIR")
        options = [f"-D{name}={cache_value(name)}" for name in kept if cache_value(name)]
        run(CMAKE, "-S", cls.folder / "example", "-B", build, "-G", cache_value("CMAKE_GENERATOR"),
            f"-DCMAKE_PREFIX_PATH={cls.prefix}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror", *options)
        run(CMAKE, "--build", build, "--parallel", "1")
        cls.program = build / "generate"

    def test_the_example_answers_two_prompts_as_the_reference_does(self):
        prompts, answers = (read_rows("v3-tiny", name) for name in ("input_ids", "greedy_tokens"))
        end_id = json.loads((golden("v3-tiny") / "config.json").read_text())["eos_token_id"]
        want = [row[: row.index(end_id)] if end_id in row else row for row in answers]
        self.assertEqual(generate(self.program, golden("v3-tiny"), prompts)[0], want)

    def test_the_example_answers_the_same_with_drafts_of_an_mtp_module_alone_and_in_company(self):
        prompts = [row[:12] for row in read_rows("v3-mtp", "tokens")]
        together, ends = generate(self.program, golden("v3-mtp"), prompts)
        self.assertEqual(len(ends), 2)
        self.assertTrue(set(ends) <= {"length", "stop"}, ends)
        self.assertEqual(together, [generate(self.program, golden("v3-mtp"), [p])[0][0] for p in prompts])

    def test_the_example_reports_what_is_wrong(self):
        done = subprocess.run([self.program, self.folder / "none", "5"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("none", done.stderr)

    def test_the_package_names_no_path_of_the_source_or_the_build(self):
        package = [p for p in self.prefix.rglob("*.cmake")]
        self.assertGreaterEqual(len(package), 3)
        for file in package:
            for foreign in (ROOT, BUILD, self.folder):
                self.assertNotIn(str(foreign), file.read_text(), file.name)

    def test_the_headers_are_those_directly_in_hadal_and_the_umbrella_names_each(self):
        installed = {p.name for p in (self.prefix / "include").rglob("*") if p.is_file()}
        self.assertEqual(installed, {p.name for p in (ROOT / "hadal").glob("*.h")})
        named = re.findall(r'#include "hadal/(\w+\.h)"', (self.prefix / "include/hadal/hadal.h").read_text())
        self.assertEqual(set(named), installed - {"hadal.h"})


if __name__ == "__main__":
    unittest.main()
