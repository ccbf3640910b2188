#!/usr/bin/env python3
"""Who may include whom: reads the #include lines of hadal/ and tests/ against tools/layers.txt.

Fails on an arrow that layers.txt does not draw, on a cycle or a gap in layers.txt itself, on a module it does
not know, on a public header that includes one that is not, and on a LibTorch header included elsewhere than
behind hadal/tensor/ or in a file of cmake/fat.txt; on two headers that define types of one name.
"""
import pathlib
import re
import sys

import cpp_text

TORCH = re.compile(r"(ATen|torch|c10|caffe2)/")
# The one door. Headers here are paid for by every file that sees a tensor, so they are named; sources are not.
DOOR_HEADERS = {"hadal/tensor/tensor.h", "hadal/tensor/pch.h", "hadal/tensor/dtype.h"}


def read_lines(path):
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines()) if path.exists() else ()
    return [line for line in lines if line]


def read_layers(path):
    """({module: set of modules it may include}, {public header: module that implements it})."""
    allowed, owners = {}, {}
    for line in read_lines(path):
        name, targets = (part.strip() for part in line.split(":", 1))
        if name.endswith(".h"):
            owners[name] = targets
        else:
            allowed[name] = set(targets.split())
    everything = set(allowed)
    return {m: everything - {m} if "*" in t else t for m, t in allowed.items()}, owners


def faults_of_layers(allowed):
    for module, targets in allowed.items():
        for target in sorted(targets):
            if target not in allowed:
                yield f"tools/layers.txt: {module} may include {target}, which is no module there"
            elif module in allowed[target] and module < target:
                yield f"tools/layers.txt: {module} and {target} include each other"
            elif missing := allowed[target] - targets - {module}:
                yield f"tools/layers.txt: {module} may include {target}, so write {' '.join(sorted(missing))} there too"


def module_of(path, allowed, owners):
    """The module a file or an include path belongs to; None outside hadal/ (tests/)."""
    parts = pathlib.PurePosixPath(path).parts
    if parts[0] != "hadal":
        return None
    if len(parts) == 2:
        return owners.get(parts[1], pathlib.PurePosixPath(parts[1]).stem)
    return parts[1]


def is_public(path):
    return path.endswith(".h") and path.count("/") == 1


def faults_of_file(path, text, allowed, owners, fat):
    module = module_of(path, allowed, owners)
    is_test = module is None or path.endswith("_test.cc")
    if module and module not in allowed:
        yield f"{path}: module {module} is not in tools/layers.txt. Add it, or give the public header its module there."
        return
    for line, kind, target in cpp_text.includes(text):
        where = f"{path}:{line}: "
        if kind == "<" and TORCH.match(target):
            at_door = path in DOOR_HEADERS or (module == "tensor" and path.endswith(".cc"))
            if not at_door and path not in fat:
                yield f"{where}<{target}> outside the door hadal/tensor/. Use tensor.h and make.h, or list it in cmake/fat.txt."
        if kind == "<" and target.startswith("hadal/"):
            yield f'{where}write "{target}" in quotes'
        if kind == '"' and target.startswith("tests/") and not is_test:
            yield f"{where}only tests include {target}"
        if kind == '"' and target.startswith("hadal/") and module:
            other = module_of(target, allowed, owners)
            if is_public(path) and not is_public(target):
                yield f"{where}a public header must not include {target}: headers in folders are not installed"
            elif other != module and other not in allowed[module]:
                drawn = " ".join(sorted(allowed[module])) or "nothing"
                yield f"{where}{module} must not include {target}: tools/layers.txt lets it see {drawn}"


TYPE = re.compile(r"^(?:struct|class|enum class) (\w+)\b(?!::)[^;{]*\{", re.MULTILINE)


def faults_of_types(headers):
    """[(path, text)]. There is one namespace and one program: the linker takes two types of a name for one."""
    first = {}
    for path, text in headers:
        for name in TYPE.findall(cpp_text.without_comments(text)):
            if first.setdefault(name, path) != path:
                yield f"{path}: {name} is a type in {first[name]} too. Give one another name: the linker takes them for one."


def check(root):
    allowed, owners = read_layers(root / "tools/layers.txt")
    fat = {line.split()[0] for line in read_lines(root / "cmake/fat.txt")}
    faults = list(faults_of_layers(allowed))
    faults += [f"cmake/fat.txt: no file {path}" for path in sorted(fat) if not (root / path).exists()]
    files = cpp_text.sources(root)
    for path in files:
        faults += faults_of_file(path.as_posix(), (root / path).read_text(), allowed, owners, fat)
    headers = [path for path in files if path.suffix == ".h" and path.parts[0] == "hadal" and "cpu" not in path.parts]
    faults += faults_of_types((path.as_posix(), (root / path).read_text()) for path in headers)
    return faults, len(files)


def main():
    faults, num_files = check(cpp_text.ROOT)
    print("\n".join(faults) if faults else f"layers: {num_files} files include only what tools/layers.txt draws")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
