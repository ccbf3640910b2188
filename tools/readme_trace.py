#!/usr/bin/env python3
"""README's path from the command line to logits: every file named there exists and defines the names given,
there are at most six files, and every other path that README's file map names exists too."""
import re
import sys

import cpp_text

MOST_FILES = 6


def check(root):
    readme = (root / "README.md").read_text()
    section = re.search(r"^## Follow a token\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    if not section:
        return ["README.md has no section '## Follow a token'"], 0
    steps = re.findall(r"^\d+\. `([^`]+)`(.*(?:\n(?!\d+\. |\n).*)*)", section.group(1), re.MULTILINE)
    faults = []
    if not 0 < len(steps) <= MOST_FILES:
        faults.append(f"README.md: the path has {len(steps)} files, {MOST_FILES} at most")
    for path, text in steps:
        if not (root / path).is_file():
            faults.append(f"README.md: no file {path}")
            continue
        code = cpp_text.without_comments((root / path).read_text())
        defined = {f.name for f in cpp_text.functions(code)}
        for name in re.findall(r"`([A-Za-z_][\w:]*)`", text):
            if name not in defined and not re.search(rf"\b(?:class|struct)\s+{name}\b", code):
                faults.append(f"README.md: {path} defines no {name}")
    for path in re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE):
        if not (root / path).exists():
            faults.append(f"README.md: the file map names {path}, which is not there")
    return faults, len(steps)


def main():
    faults, num_files = check(cpp_text.ROOT)
    print("\n".join(faults) if faults else f"readme_trace: {num_files} files from the command line to logits")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
