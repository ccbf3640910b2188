"""install_test.py BUILD_FOLDER CMAKE: the installed library, used as by a stranger: prefix, package, example."""

import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from golden import golden, make_byte_model  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CMAKE = sys.argv.pop(2)
BUILD = pathlib.Path(sys.argv.pop(1))


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


def add_snippets(folder):
    """The C++ and C code of docs/tutorials/library.md as programs of the example's project: it must compile."""
    page = (ROOT / "docs/tutorials/library.md").read_text()
    heads = {
        "cpp": "#include <iostream>\n",
        "c": "#include <stdio.h>\n#include \"hadal/hadal_c.h\"\n"
             "static int print_piece(void* user, const hadal_piece* piece) { (void)user; return puts(piece->text) < 0; }\n",
    }
    with open(folder / "CMakeLists.txt", "a", encoding="utf-8") as project:
        for language, library in (("cpp", "hadal"), ("c", "hadal_c")):
            (code,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)
            include, _, body = code.partition("\n")
            (folder / f"snippet.{language}").write_text(f"{heads[language]}{include}\nint main(void) {{\n{body}\nreturn 0;\n}}\n")
            project.write(f"add_executable(snippet_{language} snippet.{language})\n"
                          f"target_link_libraries(snippet_{language} PRIVATE hadal::{library})\n")


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="hadal_install_test_"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for component in ("library", "c"):
            run(CMAKE, "--install", BUILD, "--component", component, "--prefix", cls.folder / "first")
        cls.prefix = cls.folder / "moved"  # a package may be unpacked anywhere
        (cls.folder / "first").rename(cls.prefix)
        # A copy, so that nothing beside it in the repository can be seen.
        shutil.copytree(ROOT / "examples", cls.folder / "example")
        add_snippets(cls.folder / "example")
        build = cls.folder / "build"
        kept = ("CMAKE_CXX_COMPILER", "CMAKE_C_COMPILER", "CMAKE_MAKE_PROGRAM", "simdjson_DIR")
        options = [f"-D{name}={cache_value(name)}" for name in kept if cache_value(name)]
        run(CMAKE, "-S", cls.folder / "example", "-B", build, "-G", cache_value("CMAKE_GENERATOR"),
            f"-DCMAKE_PREFIX_PATH={cls.prefix}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror",
            "-DCMAKE_C_FLAGS=-std=c11 -pedantic -Wall -Wextra -Werror", *options)
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

    def test_the_example_in_c_says_what_the_program_says(self):
        model = self.folder / "model"
        make_byte_model(model)
        said = run(self.program.with_name("generate_c"), model, "The sea").rsplit("\n", 2)
        want = json.loads(run(BUILD / "bin/hadal", "run", model, "--prompt", "The sea", "--temperature", "0",
                              "--max-tokens", "16", "--json"))
        self.assertEqual(said[0], want["text"])
        self.assertEqual(said[1], f"{want['prompt_tokens']} prompt tokens, {want['generated_tokens']} new ones")

    def test_a_project_without_c_plus_plus_finds_the_c_library(self):
        project = self.folder / "c_only"
        project.mkdir()
        (project / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.22)\nproject(c_only LANGUAGES C)\n"
            "find_package(hadal REQUIRED COMPONENTS c)\nadd_executable(main main.c)\n"
            "target_link_libraries(main PRIVATE hadal::hadal_c)\n")
        (project / "main.c").write_text(
            '#include <stdio.h>\n#include "hadal/hadal_c.h"\nint main(void) { return puts(hadal_version()) < 0; }\n')
        run(CMAKE, "-S", project, "-B", project / "build", "-G", cache_value("CMAKE_GENERATOR"),
            f"-DCMAKE_PREFIX_PATH={self.prefix}", f"-DCMAKE_C_COMPILER={cache_value('CMAKE_C_COMPILER')}")
        run(CMAKE, "--build", project / "build")
        version = run(BUILD / "bin/hadal", "--version").split()[1]
        self.assertEqual(run(project / "build/main"), version + "\n")

    def test_the_c_library_shows_the_names_of_its_header_alone(self):
        shown = {line.split()[-1] for line in run("nm", "-D", "--defined-only", self.prefix / "lib/libhadal_c.so").splitlines()}
        header = (self.prefix / "include/hadal/hadal_c.h").read_text()
        self.assertEqual(shown, set(re.findall(r"^HADAL_API [^(]*?\b(hadal_\w+)\(", header, re.MULTILINE)))

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
        self.assertEqual(set(named), installed - {"hadal.h", "hadal_c.h"})


if __name__ == "__main__":
    unittest.main()
