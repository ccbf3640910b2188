#!/usr/bin/env python3
"""package.py BUILD_FOLDER OUT_FOLDER: the release archive hadal-VERSION-linux-x86_64.tar.gz of a finished build.

Inside: the programs, the C library, the shared libraries that they need beside glibc, licences, documents. It
runs where it is unpacked. hadal-compute and LibTorch stay out: they are thirty times the rest, and training
wants a build of its own. The same build gives the same bytes.
"""
import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Of the system that runs the archive, never of the one that made it.
GLIBC = re.compile(r"^(ld-linux[\w.-]*|lib(c|m|dl|rt|pthread|util|resolv))\.so\.")
# Header-only libraries that are compiled in: Debian's packages of them.
COMPILED_IN = ["nlohmann-json3-dev", "libcli11-dev", "libtomlplusplus-dev", "libboost-dev"]


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"[package] {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def is_elf(path):
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def needed_libraries(programs):
    """{soname: file} of all shared libraries that the programs need and glibc does not have."""
    found = {}
    for program in programs:
        for name, path in re.findall(r"^\s+(\S+) => (\S+|not found)", run("ldd", program), re.MULTILINE):
            if GLIBC.match(name):
                continue
            if not path.startswith("/"):
                raise SystemExit(f"[package] {program.name} needs {name}, which is not installed here. Install it.")
            found[name] = pathlib.Path(path).resolve()
    return found


def glibc_version(files):
    """The oldest glibc that has all that the files ask for."""
    versions = {tuple(map(int, v.split("."))) for f in files
                for v in re.findall(r"GLIBC_(\d+(?:\.\d+)+)", run("readelf", "--version-info", f))}
    return ".".join(map(str, max(versions)))


def package_of(library):
    """Debian's package of a file; /lib may be a link to /usr/lib."""
    for path in (library, str(library).removeprefix("/usr")):
        done = subprocess.run(["dpkg-query", "--search", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.split(":", 1)[0]
    raise SystemExit(f"[package] no package owns {library}: its licence cannot be told. Build on Debian or Ubuntu.")


def copy_licences(libraries, folder):
    folder.mkdir(parents=True)
    for package in sorted({package_of(path) for path in libraries.values()} | set(COMPILED_IN)):
        text = pathlib.Path("/usr/share/doc") / package / "copyright"
        if not text.exists():
            raise SystemExit(f"[package] {text} is missing: the licence of {package} must be in the archive. Install the package.")
        shutil.copyfile(text, folder / f"{package}.txt")
    if (ROOT / "LICENSE").exists():
        shutil.copyfile(ROOT / "LICENSE", folder / "hadal.txt")


def readme(version, glibc, libraries):
    return f"""hadal {version} for Linux on x86-64

Runs where it is unpacked: bin/hadal --help. It needs Linux with glibc {glibc} or newer, and /proc; the shared
libraries {', '.join(sorted(libraries))} are in lib/.

  bin/hadal                 run, serve, batch, agent, convert, inspect, info, plan, tokenizer, data, tasks, ...
  lib/libhadal_c.so         the C library, include/hadal/hadal_c.h; find_package(hadal COMPONENTS c)
  libexec/hadal/hadal-box   the sandbox that bin/hadal starts
  share/doc/hadal/          documents
  share/licenses/hadal/     licences of what is inside

Commands that train (train, sft, grpo, reward-model train, quickstart) and logits need hadal-compute and LibTorch,
0.45 GB, which are not in this archive: build hadal from source for them. Kernels are chosen at start by what the
processor can do; any x86-64 will do.
"""


def stage(build, folder):
    """Fills the folder with what goes into the archive."""
    for component in ("programs", "c"):
        run("cmake", "--install", build, "--component", component, "--prefix", folder, "--strip")
    (folder / "libexec/hadal/hadal-compute").unlink(missing_ok=True)
    programs = [p for p in sorted(folder.rglob("*")) if is_elf(p)]
    libraries = needed_libraries(programs)
    for name, path in libraries.items():
        shutil.copyfile(path, folder / "lib" / name)
        (folder / "lib" / name).chmod(0o755)
    copy_licences(libraries, folder / "share/licenses/hadal")
    documents = folder / "share/doc/hadal"
    shutil.copytree(ROOT / "docs", documents / "docs", ignore=shutil.ignore_patterns("log.md"))
    shutil.copyfile(ROOT / "README.md", documents / "README.md")
    version = run(folder / "bin/hadal", "--version").split()[1]
    files = programs + [folder / "lib" / name for name in libraries]
    (folder / "README").write_text(readme(version, glibc_version(files), libraries))
    return version


def write_archive(folder, name, out):
    """A tar whose bytes depend on the files alone: sorted, one owner, one time."""
    when = int(os.environ.get("SOURCE_DATE_EPOCH", 0))

    def plain(member):
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = when
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    fresh = out.with_suffix(".new")
    with open(fresh, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=when) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
            archive.add(folder, name, recursive=False, filter=plain)
            for path in sorted(folder.rglob("*")):
                archive.add(path, f"{name}/{path.relative_to(folder)}", recursive=False, filter=plain)
    fresh.rename(out)


def main():
    build, out = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="package-", dir=out) as scratch:
        folder = pathlib.Path(scratch) / "hadal"
        version = stage(build, folder)
        name = f"hadal-{version}-linux-x86_64"
        write_archive(folder, name, out / f"{name}.tar.gz")
        print(out / f"{name}.tar.gz")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
