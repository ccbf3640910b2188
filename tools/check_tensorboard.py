#!/usr/bin/env python3
"""check_tensorboard.py RUN...: does TensorBoard's own reader see in RUN/tensorboard what RUN/metrics.jsonl says?

Needs the PyPI package tensorboard; nothing else of the repository does.
"""
import json
import math
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NOT_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
SPEED = {"tokens_per_second": "tokens_per_second", "seconds": "seconds_per_step", "mfu": "mfu"}


def as_float32(value):
    return struct.unpack("<f", struct.pack("<f", NOT_NUMBERS.get(value, value)))[0]


def expected_of(run):
    """({tag: [(step, value)]}, {histogram tag: [(step, experts)]})"""
    scalars, histograms = {}, {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        kind = record.pop("kind")
        if kind == "load":
            for layer in record["layers"]:
                tag = f"load/layer_{layer['layer']}"
                histograms.setdefault(tag, []).append((record["step"], len(layer["load"])))
        if kind not in ("step", "eval"):
            continue
        step, group = record.pop("step"), {"step": "train", "eval": "eval"}[kind]
        for name, value in record.items():
            values = {name: value}
            if isinstance(value, list):
                values = {f"{name}_{depth + 1}": one for depth, one in enumerate(value)}
            for tag, one in values.items():
                scalars.setdefault(f"{group}/{tag}", []).append((step, as_float32(one)))
    timing = run / "timing.jsonl"
    for line in timing.read_text().splitlines() if timing.exists() else ():
        record = json.loads(line)
        for name, tag in SPEED.items():
            if name in record:
                scalars.setdefault(f"speed/{tag}", []).append((record["step"], as_float32(record[name])))
    return scalars, histograms


def same(seen, wanted):
    return len(seen) == len(wanted) and all(
        a == b or (a[0] == b[0] and math.isnan(a[1]) and math.isnan(b[1])) for a, b in zip(seen, wanted))


def check(run):
    scalars, histograms = expected_of(run)
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0})
    reader.Reload()
    tags = reader.Tags()
    faults = [f"{run}: tag {tag} on one side only" for tag in set(tags["scalars"]) ^ set(scalars)]
    faults += [f"{run}: tag {tag} on one side only" for tag in set(tags["histograms"]) ^ set(histograms)]
    points = 0
    for tag in sorted(set(tags["scalars"]) & set(scalars)):
        seen = [(event.step, as_float32(event.value)) for event in reader.Scalars(tag)]
        points += len(seen)
        if not same(seen, scalars[tag]):
            faults.append(f"{run}: {tag}: {len(seen)} points read, {len(scalars[tag])} written, or values differ")
    for tag in sorted(set(tags["histograms"]) & set(histograms)):
        seen = [(event.step, int(event.histogram_value.num)) for event in reader.Histograms(tag)]
        if seen != histograms[tag]:
            faults.append(f"{run}: {tag}: histograms differ")
    print(f"{run}: {len(tags['scalars'])} scalar tags, {points} points, {len(tags['histograms'])} histogram tags")
    return faults


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.strip())
    faults = [fault for run in sys.argv[1:] for fault in check(pathlib.Path(run))]
    print("\n".join(faults) if faults else "TensorBoard reads what the metrics say")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
