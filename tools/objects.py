#!/usr/bin/env python3
"""objects.py BUILD_FOLDER: what the build's own records say.

Fails on an object that read torch/torch.h, torch/csrc or ATen/ATen.h and is not in cmake/fat.txt, and on a weak
symbol outside namespace hadal in a kernel object: a std:: template compiled for AVX-512 is one the linker may
take for the whole program. Lists the sources that took more than ten seconds to compile.
"""
import pathlib
import re
import subprocess
import sys

import cpp_text
import layers

FAT_HEADER = re.compile(r"/(torch/torch\.h|torch/csrc/|ATen/ATen\.h)")
SLOW_MS = 10_000


def read_deps(text):
    """{object: [files it was made from]} of `ninja -t deps`."""
    deps, current = {}, None
    for line in text.splitlines():
        if line.startswith("    "):
            current.append(line.strip())
        elif ": #deps" in line:
            current = deps.setdefault(line.split(": #deps")[0], [])
    return deps


def source_of(files, root):
    """The first file of the repository among an object's files, relative; None for foreign sources."""
    for file in files:
        try:
            relative = pathlib.Path(file).resolve().relative_to(root).as_posix()
        except ValueError:
            continue
        if relative.endswith((".cc", ".cu")):
            return relative
    return None


def fat_faults(deps, fat, root):
    for files in deps.values():
        source = source_of(files, root)
        reason = next((f for f in files if FAT_HEADER.search(f)), None)
        if source and reason and source not in fat:
            yield f"{source} reads {FAT_HEADER.search(reason).group(1)}: use tensor.h and make.h, or list it in cmake/fat.txt"


def weak_symbol_faults(objects):
    """Weak symbols (nm: W, V, u) outside namespace hadal in objects built for one instruction set."""
    for path in objects:
        names = subprocess.run(["nm", "--demangle", path], check=True, capture_output=True, text=True).stdout
        for kind, name in re.findall(r"^[0-9a-f ]{16} ([WVu]) (.*)$", names, re.MULTILINE):
            if "hadal::" not in name:
                yield f"{path}: weak symbol {name} compiled for one instruction set may serve the whole program"


def slow_objects(log):
    """[(ms, output)], slowest first, of the last entries in .ninja_log."""
    last = {}
    for line in log.splitlines():
        fields = line.split("\t")
        if len(fields) == 5:
            last[fields[3]] = int(fields[1]) - int(fields[0])
    return sorted(((ms, out) for out, ms in last.items() if ms > SLOW_MS and out.endswith(".o")), reverse=True)


def main():
    build, root = pathlib.Path(sys.argv[1]), cpp_text.ROOT
    text = subprocess.run(["ninja", "-C", str(build), "-t", "deps"], check=True, capture_output=True, text=True).stdout
    fat = {line.split()[0] for line in layers.read_lines(root / "cmake/fat.txt")}
    deps = read_deps(text)
    kernels = sorted(build.glob("hadal/kernels/**/cpu/*.o"))
    faults = list(fat_faults(deps, fat, root)) + list(weak_symbol_faults(kernels))
    for ms, output in slow_objects((build / ".ninja_log").read_text()):
        print(f"  {ms / 1000:5.1f} s {output}")
    print("\n".join(faults) if faults else
          f"objects: {len(deps)} of the build, {len(fat)} fat units listed, {len(kernels)} kernel objects")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
