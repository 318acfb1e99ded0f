#!/usr/bin/env python3
"""Writes data/tokenizer/unicode_tables.cpp: where the classes of characters of PyPI's `tokenizers` (Oniguruma in patterns,
Rust's standard library in Digits, the crate unicode-normalization-alignments in NFC) differ from those of PCRE2 and utf8proc,
because they know other versions of Unicode.

    pip install tokenizers==0.22.2 unicodedata2==18.0.0      # and Debian 12's libpcre2-32-0 (10.42, Unicode 14)
    tests/tokenizers/make_unicode_tables.py > data/tokenizer/unicode_tables.cpp
    tests/tokenizers/make_unicode_tables.py --markdown        # the same code points for docs/tokenizers.md

Every code point is put to both sides; nothing here is written by hand.
"""

import ctypes
import sys

import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
PROPERTIES = ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "Nd", "P", "S", "Z"]
PCRE2_UTF, PCRE2_UCP, PCRE2_CONFIG_UNICODE_VERSION, PCRE2_CONFIG_VERSION = 0x80000, 0x20000, 10, 11


def of_onig(pattern):
    """The code points that a pattern of one character matches in `tokenizers`."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set()
    for i in range(0, len(CODE_POINTS), 0x4000):
        part = CODE_POINTS[i : i + 0x4000]
        kept = set()
        for _, (begin, end) in split.pre_tokenize_str("".join(map(chr, part))):
            kept.update(range(begin, end))
        found.update(c for j, c in enumerate(part) if j not in kept)
    return found


def of_digits():
    """The code points that Digits cuts off; a letter stands behind each, so that none has a neighbour of its own kind."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    found = set()
    for i in range(0, len(CODE_POINTS), 0x4000):
        part = CODE_POINTS[i : i + 0x4000]
        for piece, (begin, end) in digits.pre_tokenize_str("".join(chr(c) + "a" for c in part)):
            if end - begin == 1 and piece != "a":
                found.add(part[begin // 2])
    return found


class Pcre2:
    def __init__(self):
        lib = self.lib = ctypes.CDLL("libpcre2-32.so.0")
        lib.pcre2_compile_32.restype = lib.pcre2_match_data_create_32.restype = ctypes.c_void_p
        lib.pcre2_compile_32.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p,
                                         ctypes.c_void_p]
        lib.pcre2_match_data_create_32.argtypes = [ctypes.c_uint32, ctypes.c_void_p]
        lib.pcre2_match_32.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint32,
                                       ctypes.c_void_p, ctypes.c_void_p]

    def config(self, what):
        text = (ctypes.c_uint32 * 64)()
        self.lib.pcre2_config_32(what, text)
        return "".join(map(chr, text)).rstrip("\0")

    def of(self, pattern):
        error, where = ctypes.c_int(), ctypes.c_size_t()
        units = (ctypes.c_uint32 * len(pattern))(*map(ord, pattern))
        code = self.lib.pcre2_compile_32(units, len(pattern), PCRE2_UTF | PCRE2_UCP, ctypes.byref(error), ctypes.byref(where),
                                         None)
        assert code, pattern
        match = self.lib.pcre2_match_data_create_32(1, None)
        unit = ctypes.c_uint32()
        at = ctypes.byref(unit)
        found = set()
        for c in CODE_POINTS:
            unit.value = c
            if self.lib.pcre2_match_32(code, at, 1, 0, 0, match, None) > 0:
                found.add(c)
        return found


def inert_in_nfc():
    """Code points that have a combining class or a decomposition in the newest Unicode, or are the later part of one, and that
    `tokenizers` takes for characters like any other, since its tables are older."""
    nfc = normalizers.NFC().normalize_str
    active = {c for c in CODE_POINTS if unicodedata2.combining(chr(c))}
    for c in CODE_POINTS:
        parts = unicodedata2.normalize("NFD", chr(c))
        if parts != chr(c):
            active.add(c)
            active.update(map(ord, parts[1:]))
    active = {c for c in active if not 0xAC00 <= c <= 0xD7A3}
    agree = set()
    for c in active:
        texts = [chr(c), "x\u0301" + chr(c), "x" + chr(c) + "\u0334"]
        parts = unicodedata2.normalize("NFD", chr(c))
        texts.append(parts)
        if all(nfc(text) == unicodedata2.normalize("NFC", text) for text in texts):
            agree.add(c)
    inert = active - agree
    # A composition that tokenizers does not make: its first part is kept from its partner, which may compose with others.
    for c in CODE_POINTS:
        parts = unicodedata2.normalize("NFD", chr(c))
        if len(parts) > 1 and nfc(parts) != unicodedata2.normalize("NFC", parts):
            inert.add(ord(parts[0]))
    for c in inert:
        for text in (chr(c), "x\u0301" + chr(c), "x" + chr(c) + "\u0334", chr(c) + "\u0301"):
            assert nfc(text) == text, f"U+{c:04X} is not inert"
    return inert


def ranges(code_points):
    out = []
    for c in sorted(code_points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def rows(code_points):
    """Lines of {first, last} pairs, at most 120 columns."""
    lines, line = [], "   "
    for first, last in ranges(code_points):
        item = f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(item) > 118:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join(lines + [line])


def main():
    pcre2 = Pcre2()
    tables = {}
    for name in PROPERTIES:
        theirs, ours = of_onig(rf"\p{{{name}}}"), pcre2.of(rf"\p{{{name}}}")
        assert not ours - theirs, f"\\p{{{name}}}: PCRE2 knows a newer Unicode than tokenizers; an addition is not enough"
        tables[name] = theirs - ours
    space = of_onig(r"\s")
    digits = of_digits()
    assert not pcre2.of(r"\p{N}") - digits
    tables["digits"] = digits - pcre2.of(r"\p{N}")
    inert = inert_in_nfc()
    if "--markdown" in sys.argv:
        for name, points in list(tables.items()) + [("NFC", inert)]:
            print(f"| `{name}` | " + " ".join(f"{a:X}-{b:X}" if a != b else f"{a:X}" for a, b in ranges(points)) + " |")
        return
    print(f"""// Made by tests/tokenizers/make_unicode_tables.py with tokenizers {tokenizers.__version__}, PCRE2 {pcre2.config(PCRE2_CONFIG_VERSION)} (Unicode
// {pcre2.config(PCRE2_CONFIG_UNICODE_VERSION)}) and unicodedata2 {unicodedata2.unidata_version}; do not edit.
#include "data/tokenizer/unicode_tables.h"

namespace vqlm {{

namespace {{

// clang-format off""")
    for name, points in tables.items():
        if points:
            print(f"constexpr CodePoints additions_{name}[] = {{\n{rows(points)}\n}};")
    print(f"constexpr CodePoints space_table[] = {{\n{rows(space)}\n}};")
    print(f"constexpr CodePoints inert_table[] = {{\n{rows(inert)}\n}};")
    print("""// clang-format on

}  // namespace

std::optional<std::span<const CodePoints>> additions_to(std::string_view property) {""")
    for name, points in tables.items():
        if name != "digits":
            print(f'  if (property == "{name}") return std::span<const CodePoints>({f"additions_{name}" if points else ""});')
    print("""  return std::nullopt;
}

std::span<const CodePoints> additions_to_digits() {
  return additions_digits;
}

std::span<const CodePoints> white_space() {
  return space_table;
}

std::span<const CodePoints> inert_in_nfc() {
  return inert_table;
}

}  // namespace vqlm""")


main()
