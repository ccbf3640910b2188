#!/usr/bin/env python3
"""Checksums of what Hugging Face tokenizers makes of every code point.

Usage: tools/tokenizer_codepoints.py TOKENIZER_JSON > tests/golden/tokenizer/codepoints.json   (needs: tokenizers)

For every code point c but the surrogates (they are not encodable) and each of the forms c, a+c+b, space+c: the ids,
without BOS or EOS. Per 4096 code points one FNV-1a hash over the ids as 32-bit little-endian numbers, each
string's ids closed by FFFFFFFF. hadal/tokenizer/codepoints_test.cc computes the same.
"""
import hashlib
import json
import struct
import sys

import tokenizers

BLOCK = 4096


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def main():
    path = sys.argv[1]
    tokenizer = tokenizers.Tokenizer.from_file(path)
    blocks = []
    for first in range(0, 0x110000, BLOCK):
        codes = [c for c in range(first, first + BLOCK) if not 0xD800 <= c < 0xE000]
        texts = [text for c in codes for text in (chr(c), "a" + chr(c) + "b", " " + chr(c))]
        data = bytearray()
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
            data += struct.pack(f"<{len(encoding.ids)}I", *encoding.ids) + b"\xff\xff\xff\xff"
        blocks.append(f"{fnv1a(data):016x}")
    sha256 = hashlib.sha256(open(path, "rb").read()).hexdigest()
    print(json.dumps({"tokenizers": tokenizers.__version__, "tokenizer_json_sha256": sha256, "block": BLOCK,
                      "fnv1a": blocks}, indent=1))


main()
