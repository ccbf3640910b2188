#!/usr/bin/env python3
"""README's path from the command line to logits: every file named there exists and defines the names given,
there are at most six files, and every path of README's file map exists too.

A step of the path: "1. `file` says something: `name`, `name`." with more text after it if need be."""
import re
import sys

import cpp_text

MOST_FILES = 6


def section(readme, title):
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    return match.group(1) if match else ""


def faults_of_step(root, path, text):
    if not (root / path).is_file():
        yield f"README.md: no file {path}"
        return
    names = re.search(r":\s+((?:`[^`]+`(?:,\s+)?)+)\.", text)
    if not names:
        yield f"README.md: the step {path} names no function"
        return
    code = cpp_text.without_comments((root / path).read_text())
    defined = {f.name for f in cpp_text.functions(code)}
    for name in re.findall(r"`([^`]+)`", names.group(1)):
        if name not in defined:
            yield f"README.md: {path} defines no {name}"


def check(root):
    readme = (root / "README.md").read_text()
    steps = re.findall(r"^\d+\. `([^`]+)`(.*(?:\n(?!\d+\. |\n).*)*)", section(readme, "Follow a token"), re.MULTILINE)
    faults = []
    if not 0 < len(steps) <= MOST_FILES:
        faults.append(f"README.md: 'Follow a token' has {len(steps)} files, not 1 to {MOST_FILES}")
    for path, text in steps:
        faults += faults_of_step(root, path, text)
    for path in re.findall(r"^\| `([^`]+)` \|", section(readme, "Files"), re.MULTILINE):
        if not (root / path).exists():
            faults.append(f"README.md: the file map names {path}, which is not there")
    return faults, len(steps)


def main():
    faults, num_files = check(cpp_text.ROOT)
    print("\n".join(faults) if faults else f"readme_trace: {num_files} files from the command line to logits")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
