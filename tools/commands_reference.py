#!/usr/bin/env python3
"""commands_reference.py HADAL: docs/commands.md on stdout, made of the program's own help.

    python3 tools/commands_reference.py build/release/bin/hadal > docs/commands.md
"""
import re
import subprocess
import sys

HEAD = """# Commands

Made by `tools/commands_reference.py` from `hadal COMMAND --help`; a test compares. Keys of training configurations, which are flags
too, are in [config.md](config.md); those of `hadal grpo` stand in its own help.
"""
# These print the keys of config.md behind their flags.
KEYS_ELSEWHERE = {("train",), ("sft",), ("reward-model", "train")}


def help_of(program, path):
    return subprocess.run([program, *path, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout


def commands(program):
    """[(path, help)] of every command that --help leads to, parents first."""
    out, queue = [], [()]
    while queue:
        path = queue.pop(0)
        text = help_of(program, path)
        out.append((path, text))
        if "Subcommands:" in text:
            names = re.findall(r"^  ([a-z-]+)\s", text.split("Subcommands:")[1], re.M)
            queue = [path + (name,) for name in names] + queue
    return out


def section(path, text):
    if path in KEYS_ELSEWHERE:
        text = text.split("Every key of the configuration:")[0]
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return f"\n{'#' * (1 + max(1, len(path)))} {' '.join(('hadal',) + path)}\n\n```text\n{lines}\n```\n"


def reference(program):
    return HEAD + "".join(section(path, text) for path, text in commands(program))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.write(reference(sys.argv[1]))
