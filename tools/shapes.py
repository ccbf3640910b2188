#!/usr/bin/env python3
"""Shape suffixes: in the folders that compute, a tensor's suffix uses only letters of docs/shapes.md, a function
that takes suffixed tensors of another file checks one of them, and a size variable is not another letter's size.

That suffix and dimensions agree is checked by the compiler (hadal/tensor/shape.h); this is what it cannot see.
"""
import re
import sys

import cpp_text

FOLDERS = ("hadal/model/", "hadal/ops/", "hadal/train/", "hadal/engine/")
TENSOR = re.compile(r"\bTensor\s*[&*]?\s+((?:\w+\s*(?:=[^,;]*)?,\s*)*\w+)\s*(?=[=;,){\[])")
SUFFIX = re.compile(r"_([A-Za-z]*[A-Z][A-Za-z]*)_?$")
SIZE = re.compile(r"\b([A-Z]) = (\w+)\.size\((-?\d+)\)")


def read_legend(text):
    """Letters of the table in docs/shapes.md: the bold ones at the start of a cell."""
    return {letter for cell in re.findall(r"\|\s*((?:\*\*[A-Z]\*\*(?:,\s*)?)+)", text) for letter in
            re.findall(r"\*\*([A-Z])\*\*", cell)}


def faults_of_file(path, text, legend):
    code = cpp_text.without_comments(text)
    for match in TENSOR.finditer(code):
        for name in re.findall(r"\b\w+\b", match.group(1)):
            suffix = SUFFIX.search(name)
            strange = [c for c in suffix.group(1) if c.upper() not in legend] if suffix else []
            if strange:
                line = code.count("\n", 0, match.start()) + 1
                yield f"{path}:{line}: {name}: no letter {', '.join(strange)} in docs/shapes.md"
    for match in SIZE.finditer(code):
        letter, name, axis = match.group(1), match.group(2), int(match.group(3))
        suffix = SUFFIX.search(name)
        dims = suffix.group(1) if suffix else ""
        if dims and (axis >= len(dims) or dims[axis] not in (letter, "X", "Y")):  # X, Y: local, may be anything
            line = code.count("\n", 0, match.start()) + 1
            yield f"{path}:{line}: {letter} = {name}.size({axis}), but the suffix says otherwise"


def unchecked_entries(path, text, header):
    """Functions declared in the header with suffixed tensors as parameters that check no shape, neither
    themselves nor in a function of the same file that they call."""
    functions = cpp_text.functions(text)
    checking = {f.name.rsplit("::", 1)[-1] for f in functions if "HADAL_SHAPE" in f.body}
    for function in functions:
        name = function.name.rsplit("::", 1)[-1]
        takes = [n for n in re.findall(r"Tensor\s*&\s+(\w+)", function.head.partition("(")[2]) if SUFFIX.search(n)]
        if not takes or not re.search(rf"\b{re.escape(name)}\s*\(", header):
            continue
        calls = set(re.findall(r"\b(\w+)\s*\(", function.body)) | {name}
        if not calls & checking and function.lines > 4:  # a shorter one hands on
            yield f"{path}:{function.first_line}: {function.name} takes {', '.join(takes)} and has no HADAL_SHAPE"


def check(root):
    legend = read_legend((root / "docs/shapes.md").read_text())
    faults, num_files = [], 0
    for path in cpp_text.sources(root):
        name = path.as_posix()
        if not name.startswith(FOLDERS):
            continue
        num_files += 1
        text = (root / path).read_text()
        faults += faults_of_file(name, text, legend)
        header = root / path.with_suffix(".h")
        if path.suffix == ".cc" and header.exists():
            faults += unchecked_entries(name, text, cpp_text.without_comments(header.read_text()))
    return faults, len(legend), num_files


def main():
    faults, num_letters, num_files = check(cpp_text.ROOT)
    print("\n".join(faults) if faults else f"shapes: {num_files} files keep to the {num_letters} letters of docs/shapes.md")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
