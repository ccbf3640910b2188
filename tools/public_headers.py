#!/usr/bin/env python3
"""public_headers.py BUILD_FOLDER: compiles each header directly under hadal/ alone, as a user's first include."""
import json
import os
import pathlib
import shlex
import subprocess
import sys

import cpp_text


def main():
    commands = json.loads((pathlib.Path(sys.argv[1]) / "compile_commands.json").read_text())
    words = shlex.split(commands[0]["command"])
    compiler = next(w for w in words if os.path.basename(w).split("-")[0] in ("g++", "c++", "clang++"))
    torch = cpp_text.ROOT / ".deps/libtorch/torch/include"
    failed = 0
    headers = sorted((cpp_text.ROOT / "hadal").glob("*.h"))
    for header in headers:
        command = [compiler, "-std=c++20", "-Wall", "-Wextra", "-fsyntax-only", f"-I{cpp_text.ROOT}",
                   "-isystem", str(torch), "-DAT_PER_OPERATOR_HEADERS", "-x", "c++", "-"]
        source = f'#include "hadal/{header.name}"\n#include "hadal/{header.name}"\n'
        failed += subprocess.run(command, input=source, text=True).returncode != 0
    print(f"public headers: {len(headers) - failed} of {len(headers)} compile alone")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
