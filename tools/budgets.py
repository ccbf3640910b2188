#!/usr/bin/env python3
"""Sizes of files and functions, and open ends: prints the ten largest of each and the count.

Soft limits (400 lines a file, 40 a function) are for the eye. Past the hard ones the check fails: 800 lines a
file, 80 a function (tables of cases in tests may be longer), and an open end without the number of its issue.
"""
import re
import sys

import cpp_text

HARD_FILE, HARD_FUNCTION = 800, 80
OPEN_END = re.compile(r"\b(?:T[O]DO|F[I]XME)\b(\(#\d+\))?")  # the brackets keep this line out of the count


def measure(root):
    files, functions = [], []
    for path in cpp_text.sources(root):
        text = (root / path).read_text()
        files.append((text.count("\n"), path.as_posix()))
        functions += [(f.lines, f"{f.name}  {path.as_posix()}:{f.first_line}") for f in cpp_text.functions(text)]
    return sorted(files, reverse=True), sorted(functions, reverse=True)


def open_ends_of(root):
    """[(where, has an issue number)]"""
    found = []
    for path in cpp_text.tracked_text_files(root):
        try:
            text = (root / path).read_text()
        except UnicodeDecodeError:
            continue
        for match in OPEN_END.finditer(text):
            found.append((f"{path}:{text.count(chr(10), 0, match.start()) + 1}", bool(match.group(1))))
    return found


def main():
    files, functions = measure(cpp_text.ROOT)
    open_ends = open_ends_of(cpp_text.ROOT)
    for title, rows in (("files", files), ("functions", functions)):
        sizes = [size for size, _ in rows]
        print(f"{len(rows)} {title}, nine in ten up to {sorted(sizes)[len(sizes) * 9 // 10]} lines; the largest:")
        for size, name in rows[:10]:
            print(f"  {size:5} {name}")
    print(f"open ends: {len(open_ends)}")
    faults = [f"{name}: {size} lines, {HARD_FILE} at most. What noun is hiding inside?"
              for size, name in files if size > HARD_FILE]
    faults += [f"{name}: {size} lines, {HARD_FUNCTION} at most" for size, name in functions if size > HARD_FUNCTION and "_test.cc:" not in name]
    faults += [f"{where}: an open end needs its issue: (#number) behind the word" for where, known in open_ends
               if not known]
    if faults:
        print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
