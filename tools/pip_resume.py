#!/usr/bin/env python3
"""pip_resume.py FOLDER PIP_ARGUMENTS...: pip, but a broken download is continued, within a run and across runs.

The body of every download is kept in FOLDER/NAME.partial; FOLDER/requirements.txt holds the pinned hashes.
Index, certificates, proxies, time-outs and the check of hashes stay pip's own. Only pip's Downloader is
replaced; a pip without one runs as it is.
"""
import hashlib
import os
import pathlib
import shutil
import sys
import time

TRIES = 8  # breaks in a row that brought no new byte


def say(text):
    print(f"[setup] {text}", file=sys.stderr, flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_body(response, partial, mode, total):
    shown = time.monotonic()
    with open(partial, mode, buffering=0) as out:  # what arrived survives a kill
        for block in response.raw.stream(1 << 16, decode_content=False):
            out.write(block)
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                say(f"{partial.stem}: {out.tell() / 1e6:.0f} of {total / 1e6:.0f} MB")


def get_more(session, url, partial):
    """One request for what partial lacks. Returns (whole file is here, its content type)."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    response = session.get(url, headers=headers, stream=True)
    content_type = response.headers.get("Content-Type", "")
    if response.status_code == 416:  # nothing after what we have: it is whole, or of another file
        if response.headers.get("Content-Range", "").endswith(f"/{have}"):
            return True, content_type
        partial.unlink()
        return False, content_type
    response.raise_for_status()
    resumed = response.status_code == 206
    total = int(response.headers["Content-Length"]) + (have if resumed else 0)
    if resumed:
        say(f"{partial.stem}: going on at {have / 1e6:.1f} of {total / 1e6:.1f} MB")
    write_body(response, partial, "ab" if resumed else "wb", total)
    return partial.stat().st_size == total, content_type


def run_pip(folder, arguments):
    from pip._internal.cli.main import main
    try:
        import pip._internal.commands.download  # first: pip's own order of imports, which has cycles
        from pip._internal.exceptions import NetworkConnectionError
        from pip._internal.network.download import Downloader
        from pip._vendor.requests import HTTPError
        from pip._vendor.urllib3.exceptions import HTTPError as BrokenBody
    except ImportError as error:
        say(f"this pip cannot be made to resume ({error}): plain download")
        return main(arguments)

    def bring(session, link):
        partial = folder / (link.filename + ".partial")
        barren = 0
        while True:
            before = partial.stat().st_size if partial.exists() else 0
            reason = "the connection closed early"
            try:
                whole, content_type = get_more(session, link.url.split("#", 1)[0], partial)
                if whole:
                    return partial, content_type
            except HTTPError as error:  # the server answered, and said no
                raise NetworkConnectionError(str(error)) from error
            except (OSError, BrokenBody, KeyError, ValueError) as error:
                reason = str(error)
            have = partial.stat().st_size if partial.exists() else 0
            barren = 0 if have > before else barren + 1
            if barren == TRIES:
                raise NetworkConnectionError(f"{link.filename} broke off at byte {have}: {reason}")
            say(f"{link.filename} broke off at byte {have} ({reason}): trying again")
            time.sleep(min(0.1 * 2**barren, 10))

    def download(self, link, location):
        pins = (folder / "requirements.txt").read_text()
        partial, content_type = bring(self._session, link)
        if f"sha256:{sha256(partial)}" not in pins:
            say(f"{link.filename}: what was kept is damaged, starting over")
            partial.unlink()
            partial, content_type = bring(self._session, link)
        target = os.path.join(location, link.filename)
        try:
            os.link(partial, target)
        except OSError:
            shutil.copyfile(partial, target)
        return target, content_type

    Downloader.__call__ = download
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run_pip(pathlib.Path(sys.argv[1]), sys.argv[2:]))
