#!/usr/bin/env python3
"""Texts of several kinds as one, in random order.

    mixed_text.py OUT FILE...

A .jsonl file gives a piece for each line, its question and its answer (GSM8K's form); any other file pieces of at least 400
characters, cut at empty lines. The order is the same each time.
"""
import json
import pathlib
import random
import sys


def pieces(path):
    text = path.read_text()
    if path.suffix == ".jsonl":
        return ["{question}\n{answer}".format(**json.loads(line)) for line in text.splitlines()]
    found, piece = [], ""
    for paragraph in text.split("\n\n"):
        piece += ("\n\n" if piece else "") + paragraph
        if len(piece) >= 400:
            found.append(piece)
            piece = ""
    return found + [piece] if piece else found


def main():
    out, files = pathlib.Path(sys.argv[1]), [pathlib.Path(name) for name in sys.argv[2:]]
    if not files:
        sys.exit(__doc__)
    found = [piece.strip() for path in files for piece in pieces(path)]
    random.Random(0).shuffle(found)
    out.write_text("\n\n".join(found) + "\n")


main()
