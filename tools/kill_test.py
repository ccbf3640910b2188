#!/usr/bin/env python3
"""Kills a training run with SIGKILL at random moments and holds what comes out against an unbroken run.

usage: kill_test.py [--program build/release/bin/hadal] [--kills 200] [--seed 1] [--threads 2]

Each broken run is started again and again with the same command until it ends; then weights, moments, average,
counters and metrics.jsonl must be the unbroken run's, byte for byte. New runs are started until there were
enough kills. Exit code 1 at the first difference, and the folder is kept.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

STEPS = 24
TEXT = "Mira has 3 shells. She finds 4 more. Olo is an eel in the deep trench, and he is calm.\n" * 300


def command(program, text, out, threads):
    flags = ["--steps", str(STEPS), "--batch", "2", "--length", "32", "--save-every", "3", "--seed", "5",
             "--threads", str(threads)]
    keys = ["optimizer.ema=0.9", "eval.every=6", "eval.windows=2", "eval.loads_every=4", "batch.micro=1"]
    for key in keys:
        flags += ["--" + key]
    return [program, "train", "--data", text, "--out", out, *flags]


def result(out):
    """Name -> content of everything that must not depend on the kills."""
    last = os.path.join(out, "checkpoints", f"step-{STEPS:06}")
    found = {}
    for folder, _, names in os.walk(last):
        for name in names:
            path = os.path.join(folder, name)
            found["checkpoint " + os.path.relpath(path, last)] = path
    del found["checkpoint manifest.json"]  # has a hash of the seconds in state.json
    for name in os.listdir(out):
        if name.startswith("model") or name in ("config.json", "tokenizer.json", "metrics.jsonl"):
            found[name] = os.path.join(out, name)
    files = {}
    for name, path in found.items():
        with open(path, "rb") as file:
            files[name] = file.read()
    state = json.loads(files["checkpoint state.json"])
    del state["seconds"]
    files["checkpoint state.json"] = json.dumps(state).encode()
    return files


def different(got, want):
    return sorted(name for name in {*got, *want} if got.get(name) != want.get(name))


def until_killed(arguments, seconds):
    """Runs for at most `seconds`, then SIGKILL. True: it was killed. Throws if it failed by itself."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode}: {errors.decode()}")
    return False


def run(program, kills, seed, threads, folder, say=print):
    """Names of what differed, [] if nothing did; and how many runs it took."""
    draw = random.Random(seed)
    text = os.path.join(folder, "text.txt")
    with open(text, "w") as file:
        file.write(TEXT)
    whole = os.path.join(folder, "whole")
    start = time.time()
    until_killed(command(program, text, whole, threads), 600)
    duration = time.time() - start
    want, done, runs = result(whole), 0, 0
    while done < kills:
        out = os.path.join(folder, f"broken-{runs}")
        arguments = command(program, text, out, threads)
        # The last attempt of a run is left alone, or chance might keep it from ending.
        for _ in range(draw.randint(2, 12)):
            if done == kills:
                break
            if not until_killed(arguments, draw.uniform(0.0, 1.1) * duration):
                break
            done += 1
        until_killed(arguments, 600)
        got = result(out)
        differing = different(got, want)
        runs += 1
        say(f"{done} kills, {runs} runs: {'the same' if not differing else 'DIFFER in ' + ', '.join(differing)}")
        if differing:
            return differing, runs
        shutil.rmtree(out)
    return [], runs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="build/release/bin/hadal")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="hadal-kill-")
    differing, _ = run(os.path.abspath(options.program), options.kills, options.seed, options.threads, folder)
    if differing:
        print("kept:", folder)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
