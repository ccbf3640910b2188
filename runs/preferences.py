#!/usr/bin/env python3
"""Preferences of several kinds (hadal tasks preferences) as what reward models and judges learn from.

    preferences.py FOLDER PART KIND...

Reads FOLDER/KIND-PART.jsonl; writes FOLDER/pairs-PART.jsonl with the kind as domain, FOLDER/judged-PART.jsonl with a critique and
scores, FOLDER/chats-PART.jsonl with the answers of the best score, and FOLDER/text-PART.txt with all that is in them.
"""
import json
import pathlib
import random
import sys


def main():
    folder, part, kinds = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    rng = random.Random(part)
    lines = []
    for kind in kinds:
        for line in (folder / f"{kind}-{part}.jsonl").read_text().splitlines():
            lines.append({**json.loads(line), "domain": kind})
    rng.shuffle(lines)
    pairs, judged, chats, text = [], [], [], []
    for line in lines:
        pairs.append({key: line[key] for key in ("prompt", "chosen", "rejected", "domain")})
        if line["chosen_score"] == 10:
            chats.append({"prompt": [{"role": "user", "content": line["prompt"]}],
                          "completion": [{"role": "assistant", "content": line["chosen"]}]})
        sides = ["chosen", "rejected"]
        rng.shuffle(sides)
        scores = [max(1, min(10, round(line[side + "_score"]))) for side in sides]
        if scores[0] == scores[1]:
            continue
        reasons = " ".join(f"{i + 1}: {line[side + '_reasoning']}" for i, side in enumerate(sides))
        judged.append({"prompt": line["prompt"], "responses": [line[side] for side in sides], "scores": scores,
                       "critique": f"{reasons}\nScores: [{scores[0]}, {scores[1]}]"})
        text.append("\n".join([line["prompt"], line["chosen"], line["rejected"], judged[-1]["critique"]]))
    for name, rows in (("pairs", pairs), ("judged", judged), ("chats", chats)):
        (folder / f"{name}-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"text-{part}.txt").write_text("\n".join(text) + "\nJudge the answers. End with Scores: [1 to 10 for each].")


if __name__ == "__main__":
    main()
