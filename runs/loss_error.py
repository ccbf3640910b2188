"""How far the losses of runs are from the BF16 run of the same seed: NAME-SEED folders against bf16-SEED.

Per step |L - L_bf16| / L_bf16 of the losses smoothed by a moving average of 0.9, as the V3 report's appendix B does,
from step 100 on (the warm-up's end). Also the held-out loss at the end of each run.
"""

import json
import pathlib
import sys

WARM_UP, DECAY = 100, 0.9


def read(folder):
    losses, held_out = {}, None
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "step":
            losses[record["step"]] = record["loss"]
        elif record["kind"] == "eval":
            held_out = record["loss"]
    smooth, value = [], None
    for step in sorted(losses):
        value = losses[step] if value is None else DECAY * value + (1 - DECAY) * losses[step]
        smooth.append(value)
    return smooth, held_out


def main():
    out = pathlib.Path(sys.argv[1])
    runs = {f.parent.name: read(f.parent) for f in sorted(out.glob("*/metrics.jsonl"))}
    print(f"{'run':14} {'steps':>5} {'max':>8} {'mean':>8} {'signed':>8} {'last 500':>8} {'held-out':>9} {'change':>8}")
    for name, (smooth, held_out) in runs.items():
        base, base_held_out = runs["bf16-" + name.rsplit("-", 1)[1]]
        steps = min(len(smooth), len(base))
        error = [(smooth[i] - base[i]) / base[i] for i in range(WARM_UP, steps)]
        size = [abs(e) for e in error]
        print(
            f"{name:14} {steps:5} {max(size):8.3%} {sum(size) / len(size):8.3%} {sum(error) / len(error):+8.3%} "
            f"{max(size[-500:]):8.3%} {held_out:9.4f} {held_out / base_held_out - 1:+8.3%}"
        )


main()
