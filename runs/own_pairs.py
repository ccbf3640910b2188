#!/usr/bin/env python3
"""A model's right answers against its wrong ones: own_pairs.py TASKS ANSWERS OUT

TASKS are the tasks, ANSWERS what hadal eval --task --samples --out wrote of them. OUT becomes preference pairs: up to three different
wrong answers of a task, each against one of its right ones.
"""
import json
import pathlib
import random
import sys


def main():
    tasks, answers, out = (pathlib.Path(path) for path in sys.argv[1:4])
    prompts = {task["id"]: task["prompt"] for task in map(json.loads, tasks.read_text().splitlines())}
    draw = random.Random(1)
    with out.open("w") as file:
        for line in map(json.loads, answers.read_text().splitlines()):
            right = sorted({sample["text"] for sample in line["samples"] if sample["right"] == 1})
            wrong = sorted({sample["text"] for sample in line["samples"] if sample["right"] == 0})
            for text in draw.sample(wrong, min(3, len(wrong))) if right else []:
                pair = {"prompt": prompts[line["id"]], "chosen": draw.choice(right), "rejected": text, "domain": "own"}
                file.write(json.dumps(pair) + "\n")


if __name__ == "__main__":
    main()
