"""docs_test.py HADAL: every command, flag, link and error text in the documents, held against the program.

Commands in ```sh blocks of README.md, CONTRIBUTING.md, SECURITY.md and docs/ are run, document by document, in a folder with the
files that they name. Those that take minutes, run until stopped or need other machines are run in the form that CHEAPER gives
them, with the reason. Of each command, there and in the text, all flags must exist.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HADAL = pathlib.Path(sys.argv.pop(1)).resolve()
HAS_COMPUTE = (HADAL.parent / "hadal-compute").exists()
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT / "tests/support"))
import commands_reference  # noqa: E402
from golden import make_byte_model  # noqa: E402

# docs/log.md and docs/bench/ tell what was run once, also with other programs.
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
DOCUMENTS += [p for p in sorted((ROOT / "docs").rglob("*.md")) if p.name not in ("log.md", "commands.md") and p.parent.name != "bench"]

# (command, what is run instead, why). None: nothing is run, but flags of hadal in it are checked.
CHEAPER = [
    (r"^\./dev ", None, "builds and tests everything; that its commands exist is checked"),
    (r"^(hadal )?launch |^hadal launch ", None, "minutes of training; tests/compute/ranks_test.py"),
    (r"^hadal train (?!.*--(dry-run|print-config))", r"\g<0> --dry-run", "minutes of training; tests/compute"),
    (r"^hadal (sft|grpo) ", r"\g<0> --print-config", "minutes of training; tests/compute/posttrain_test.py"),
    (r"^hadal reward-model train ", r"\g<0> --print-config", "minutes of training; tests/compute/posttrain_test.py"),
    (r"^hadal reward-model (eval|score) ", None, "needs a trained reward model; tests/compute/posttrain_test.py"),
    (r"^hadal judge ", None, "needs a model that judges; hadal/posttrain/judge_test.cc"),
    (r"^hadal quickstart", None, "minutes of training; tests/compute"),
    (r"^hadal serve ", None, "runs until stopped; tests/server"),
    (r"^hadal agent ", r"\g<0> --turns 1 --max-tokens 4; test $? -le 1", "the test's model knows no tools; 1 is: not answered"),
    (r"^hadal sandbox ", None, "needs namespaces; tests/cli/sandbox_test.py"),
    (r"^hadal bench ", None, "seconds of measuring; tests/cli/bench_serve_test.py"),
    (r"^hadal run .*V3", None, "needs the published weights"),
    (r"^hadal (run|serve|convert|inspect|info) (.* )?DeepSeek-", None, "needs the published weights"),
    (r"^(torchrun|mpirun|srun|sbatch) ", None, "needs the launcher; tests/compute/ranks_test.py where it is installed"),
    (r"^(curl|pip|huggingface-cli|python3 -c) ", None, "another program, and a server or the network"),
    (r"^(cmake|export PYTHONPATH|cc|c\+\+|build/)", None, "tests/install/install_test.py, python_test"),
    (r"^(tar|cd|\S*hadal-[\d.]+-linux\S*/bin/hadal) ?", None, "tests/install/package_test.py"),
]

# Flags of other programs that the text names.
FOREIGN_FLAGS = {
    "--security-opt": "docker",
    "--kills": "tools/kill_test.py",
    "--saving": "tests/compute/rank_kills.py",
    "--gtest_filter": "GoogleTest",
    "--torch": "tools/cuda_check.sh",
    "--bin": "tools/cuda_check.sh",
    "--text": "tools/cuda_check.sh",
    "--url": "schemathesis",
    "--install": "cmake",
    "--prefix": "cmake",
}


def fenced(text):
    """[(language, lines)] of the fenced blocks."""
    return [(language, body.splitlines()) for language, body in re.findall(r"^```(\S*)\n(.*?)^```", text, re.M | re.S)]


def shell_commands(lines):
    """Commands of an sh block: continued lines joined, comments and here-documents left alone."""
    commands, open_end = [], None
    for line in lines:
        if open_end is not None:
            commands[-1] += "\n" + line
            if line == open_end:
                open_end = None
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if commands and commands[-1].endswith("\\"):
            commands[-1] = commands[-1][:-1].rstrip() + " " + line.strip()
        else:
            commands.append(line.strip())
        here = re.search(r"<<'?(\w+)'?", line)
        if here:
            open_end = here.group(1)
    return [re.sub(r"\s+#.*$", "", c) if "\n" not in c else c for c in commands]


def inline_code(text):
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


class Program:
    """Which commands and flags there are, as the program says."""

    def __init__(self):
        self.flags = {}
        for path, text in commands_reference.commands(HADAL):
            self.flags[path] = set(re.findall(r"(?:^|[\s,])(--?[a-zA-Z][\w.-]*)", text))
        self.any = set().union(*self.flags.values())

    def faults(self, command):
        """What is wrong with `hadal ...`, flags only; alternatives a|b or {a,b} are all looked at."""
        words = re.sub(r"[\[\]]", " ", command.replace("\\|", "|")).split()[1:]
        path = ()
        while words:
            options = re.split(r"[|,]", words[0].strip("{}"))
            if not all(path + (o,) in self.flags for o in options):
                break
            path += (options[-1],)
            words.pop(0)
        if not path and words and not words[0].startswith("-") and words[0] != "COMMAND":
            return [f"no command {words[0]}"]
        out = []
        for i, word in enumerate(words):
            if word == "--":
                return out + (self.faults("hadal " + " ".join(words[i + 1 :])) if path == ("launch",) else [])
            if word in ("|", ">", "<", "&&", ";"):
                break
            flag = re.match(r"--?[a-zA-Z][\w.-]*", word)
            if flag and flag.group().startswith("--") and path and flag.group() not in self.flags[path]:
                out.append(f"hadal {' '.join(path)} has no {flag.group()}")
        return out


def make_fixtures(folder):
    """The files that commands in the documents name."""
    make_byte_model(folder / "MODEL")
    for name in ("mine", "start", "policy", "lite"):
        (folder / name).symlink_to("MODEL")
    (folder / "text.txt").write_text("The sea is deep. Fish live in it, and some of them glow.\n" * 400)
    (folder / "CHATS.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}) + "\n")
    (folder / "notes").mkdir()
    (folder / "notes/filter.txt").write_text("The filter was cleaned on Monday.\n")
    (folder / "LOADS.json").write_text(json.dumps([[1, 2, 3, 4, 5, 6, 7, 8] * 2] * 2))
    request = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "The sea", "max_tokens": 4}}
    (folder / "requests.jsonl").write_text(json.dumps(request) + "\n")
    environment = {**os.environ, "PATH": f"{HADAL.parent}:{os.environ['PATH']}"}
    for kind, name in (("words", "F.jsonl"), ("words", "tasks.jsonl"), ("words", "PREFS.jsonl")):
        verb = "preferences" if name == "PREFS.jsonl" else "make"
        subprocess.run([HADAL, "tasks", verb, kind, "--count", "8", "--seed", "1", "--out", folder / name],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return environment


class Documents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.program = Program()
        cls.texts = {path: path.read_text() for path in DOCUMENTS}

    def each(self, found):
        """One failure that lists all faults."""
        faults = [f"{path.relative_to(ROOT)}: {fault}" for path, text in self.texts.items() for fault in found(path, text)]
        self.assertFalse(faults, "\n" + "\n".join(faults))

    def test_every_flag_named_exists(self):
        def faults(path, text):
            codes = inline_code(text) + [c for language, lines in fenced(text) if language in ("", "sh") for c in shell_commands(lines)]
            codes += [line.strip() for line in re.findall(r"^    (hadal .*)$", text, re.M)]
            for code in codes:
                for part in re.findall(r"(?:^|[|;&(] ?|/bin/|-- )(hadal [a-z{][^;|&]*(?:\\\||[^;|&])*)", code):
                    yield from (f"`{code}`: {fault}" for fault in self.program.faults(part))
                if code.startswith("--"):
                    for flag in re.findall(r"(?:^|\s)(--[a-zA-Z][\w.-]*)", code):
                        if flag not in self.program.any and flag not in FOREIGN_FLAGS:
                            yield f"`{code}`: no command has {flag}"

        self.each(faults)

    def test_every_dev_command_named_exists(self):
        known = set(re.findall(r"^  (\w+) ", subprocess.run(["./dev"], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout, re.M))
        self.each(lambda path, text: [f"no ./dev {name}" for name in re.findall(r"\./dev ([a-z]+)", text) if name not in known])

    def test_no_command_hides_in_a_block_of_no_language(self):
        def faults(path, text):
            for language, lines in fenced(text):
                if language == "":
                    yield from (f"mark the block with sh: {line}" for line in lines if re.match(r"(hadal|\./dev) ", line))

        self.each(faults)

    def test_every_command_runs(self):
        for path, text in self.texts.items():
            commands = [c for language, lines in fenced(text) if language == "sh" for c in shell_commands(lines)]
            if not commands:
                continue
            with tempfile.TemporaryDirectory() as folder:
                environment = make_fixtures(pathlib.Path(folder))
                for command in commands:
                    with self.subTest(document=str(path.relative_to(ROOT)), command=command):
                        self.run_command(command, folder, environment)

    def run_command(self, command, folder, environment):
        for pattern, instead, _ in CHEAPER:
            if re.match(pattern, command):
                if instead is None:
                    return
                tail = re.sub(r"^\\g<0> ", "", instead)
                command = f"{command} {tail}" if instead.startswith(r"\g<0>") else instead
                break
        done = subprocess.run(["bash", "-uc", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        if not HAS_COMPUTE and "needs hadal-compute" in done.stdout:
            return
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout[-2000:]}")

    def test_every_link_leads_to_a_file(self):
        def faults(path, text):
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
                if "://" not in target and not (path.parent / target).exists():
                    yield f"link to {target}"

        self.each(faults)

    def test_error_texts_of_the_troubleshooting_page_are_in_the_source(self):
        source = "".join(p.read_text() for p in sorted((ROOT / "hadal").rglob("*.cc")) if not p.name.endswith("_test.cc"))
        source = re.sub(r'"\s*\n\s*"', "", source).replace('\\"', '"')
        page = (ROOT / "docs/troubleshooting.md").read_text()
        quoted = re.findall(r"^#+ `(.+)`$", page, re.M)
        self.assertGreater(len(quoted), 10)
        for text in quoted:
            for part in re.split(r"\s*\.\.\.\s*", text):
                self.assertIn(part, source, text)

    def test_each_folder_says_what_it_may_include(self):
        rules = dict(re.findall(r"^(\w+): *(.*)$", (ROOT / "tools/layers.txt").read_text(), re.M))
        folders = [p.parent for p in sorted((ROOT / "hadal").glob("*/CMakeLists.txt"))]
        self.assertGreater(len(folders), 20)
        for folder in folders:
            allowed = {"*": "everything", "": "nothing"}.get(rules[folder.name], rules[folder.name])
            with self.subTest(folder.name):
                self.assertIn(f"\nMay include: {allowed}.\n", (folder / "README.md").read_text())

    def test_the_picture_of_dualpipe_is_the_programs(self):
        with tempfile.TemporaryDirectory() as folder:
            picture = pathlib.Path(folder) / "dualpipe.svg"
            subprocess.run([HADAL, "plan", "schedule", "--kind", "dualpipe", "--ranks", "4", "--microbatches", "10", "--svg", picture],
                           stdout=subprocess.DEVNULL, check=True)
            self.assertEqual((ROOT / "docs/figures/dualpipe.svg").read_text(), picture.read_text())

    def test_the_list_of_commands_is_what_the_program_says(self):
        self.assertEqual((ROOT / "docs/commands.md").read_text(), commands_reference.reference(HADAL),
                         f"make it again: python3 tools/commands_reference.py {HADAL} > docs/commands.md")


if __name__ == "__main__":
    unittest.main()
