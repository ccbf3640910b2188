#!/usr/bin/env python3
"""Writes hadal/tokenizer/unicode_table.h: the general category of every code point, Unicode 16.0.

Usage: tools/tokenizer_unicode_tables.py > hadal/tokenizer/unicode_table.h

Unicode 16.0 is what the regex engine inside Hugging Face tokenizers 0.23 knows (found by asking it about every
code point; tools/tokenizer_codepoints.py repeats the question). Python 3.14 has 16.0; older Pythons have an older
version, so CHANGES lists what 16.0 changed against 14.0 (Python 3.11), and other versions are refused.
"""
import sys
import unicodedata

CHANGES = """
897 Mn; CF3 Mc; ECE Mn; 1B4E-1B4F Po; 1B7F Po; 1C89 Lu; 1C8A Ll; 2427-2429 So; 2FFC-2FFF So;
31E4-31E5 So; 31EF So; A7CB-A7CC Lu; A7CD Ll; A7DA Lu; A7DB Ll; A7DC Lu; 105C0-105F3 Lo; 10D40-10D49 Nd;
10D4A-10D4D Lo; 10D4E Lm; 10D4F Lo; 10D50-10D65 Lu; 10D69-10D6D Mn; 10D6E Pd; 10D6F Lm; 10D70-10D85 Ll;
10D8E-10D8F Sm; 10EC2-10EC4 Lo; 10EFC-10EFF Mn; 1123F-11240 Lo; 11241 Mn; 11380-11389 Lo; 1138B Lo;
1138E Lo; 11390-113B5 Lo; 113B7 Lo; 113B8-113BA Mc; 113BB-113C0 Mn; 113C2 Mc; 113C5 Mc; 113C7-113CA Mc;
113CC-113CD Mc; 113CE Mn; 113CF Mc; 113D0 Mn; 113D1 Lo; 113D2 Mn; 113D3 Lo; 113D4-113D5 Po;
113D7-113D8 Po; 113E1-113E2 Mn; 116D0-116E3 Nd; 1171E Mc; 11B00-11B09 Po; 11BC0-11BE0 Lo; 11BE1 Po;
11BF0-11BF9 Nd; 11F00-11F01 Mn; 11F02 Lo; 11F03 Mc; 11F04-11F10 Lo; 11F12-11F33 Lo; 11F34-11F35 Mc;
11F36-11F3A Mn; 11F3E-11F3F Mc; 11F40 Mn; 11F41 Mc; 11F42 Mn; 11F43-11F4F Po; 11F50-11F59 Nd; 11F5A Mn;
1342F Lo; 13439-1343F Cf; 13440 Mn; 13441-13446 Lo; 13447-13455 Mn; 13460-143FA Lo; 16100-1611D Lo;
1611E-16129 Mn; 1612A-1612C Mc; 1612D-1612F Mn; 16130-16139 Nd; 16D40-16D42 Lm; 16D43-16D6A Lo;
16D6B-16D6C Lm; 16D6D-16D6F Po; 16D70-16D79 Nd; 18CFF Lo; 1B132 Lo; 1B155 Lo; 1CC00-1CCEF So;
1CCF0-1CCF9 Nd; 1CD00-1CEB3 So; 1D2C0-1D2D3 No; 1DF25-1DF2A Ll; 1E030-1E06D Lm; 1E08F Mn; 1E4D0-1E4EA Lo;
1E4EB Lm; 1E4EC-1E4EF Mn; 1E4F0-1E4F9 Nd; 1E5D0-1E5ED Lo; 1E5EE-1E5EF Mn; 1E5F0 Lo; 1E5F1-1E5FA Nd;
1E5FF Po; 1F6DC So; 1F774-1F776 So; 1F77B-1F77F So; 1F7D9 So; 1F8B2-1F8BB So; 1F8C0-1F8C1 So;
1FA75-1FA77 So; 1FA87-1FA89 So; 1FA8F So; 1FAAD-1FAAF So; 1FABB-1FABF So; 1FAC6 So; 1FACE-1FACF So;
1FADA-1FADC So; 1FADF So; 1FAE8-1FAE9 So; 1FAF7-1FAF8 So; 1FBCB-1FBEF So; 2B739 Lo; 2EBF0-2EE5D Lo;
31350-323AF Lo
"""

# Symbols and numbers that \\w counts as word characters although their category does not say so.
WORD_SYMBOLS = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
WORD_NUMBERS = ((0xB2, 0xB3), (0xB9, 0xB9), (0xBC, 0xBE))
CONTROL_SPACES = ((0x09, 0x0D), (0x85, 0x85))

# Order of hadal/tokenizer/unicode.h, enum class CharKind.
KINDS = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn "
         "CcSpace SoWord NoWord").split()


def kinds():
    table = [unicodedata.category(chr(c)) for c in range(0x110000)]
    if unicodedata.unidata_version == "14.0.0":
        for item in CHANGES.replace("\n", " ").split(";"):
            span, kind = item.split()
            first, last = (span.split("-") * 2)[:2]
            table[int(first, 16):int(last, 16) + 1] = [kind] * (int(last, 16) - int(first, 16) + 1)
    elif unicodedata.unidata_version != "16.0.0":
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}; need 14.0.0 (3.11) or 16.0.0 (3.14)")
    for spans, kind in ((WORD_SYMBOLS, "SoWord"), (WORD_NUMBERS, "NoWord"), (CONTROL_SPACES, "CcSpace")):
        for first, last in spans:
            table[first:last + 1] = [kind] * (last - first + 1)
    return table


def main():
    table = kinds()
    starts = [(c << 6) | KINDS.index(k) for c, k in enumerate(table) if c == 0 or table[c - 1] != k]
    print("// Made by tools/tokenizer_unicode_tables.py; do not edit. Unicode 16.0.")
    print("#pragma once\n#include <cstdint>\n\nnamespace hadal {\n")
    print("// Runs of code points of one kind: (first code point << 6) | CharKind.")
    print("// clang-format off")
    print("inline constexpr uint32_t kCharKindRuns[] = {")
    line = ""
    for value in starts:
        item = f"{value:#x},"
        if len(line) + len(item) > 108:
            print(line)
            line = ""
        line += item
    print(line + "\n};\n// clang-format on\n\n}  // namespace hadal")


main()
