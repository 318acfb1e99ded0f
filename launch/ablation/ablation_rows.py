#!/usr/bin/env python3
"""The rows of a study: what launch/ablation.sh trains, from a grid of heads, a base configuration and a vocabulary.

    ablation_rows.py --grid configs/ablation-heads.txt --base configs/ablation.toml --vocab 16384 --program build/vqlm \\
        --heads all --seeds 0,1

Prints a line for each row, columns separated by tabs: id (NAME-sSEED), the id of the row whose model it needs or -, the
map file to make first (in the study's maps/) or -, the words after `vqlm codes` that make it or -, and the overrides,
separated by spaces. Rows that others need come before them. With --steps prints the number of steps alone, with
--configuration the base configuration with what --set changes.
Errors are one line on standard error, with exit code 2.
"""

import argparse
import re
import sys
import tomllib

from ablation_bodies import GROWN, BodyError, Counter, grown, toml

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*$")
KEY = re.compile(r"[a-z]+\.[a-z0-9_]+$")
MOST_CODES = 256  # of a group: a code is a byte
# How the map of a row is made of another row's model: of its dense matrix, or re-fitted to its hidden states.
MAP_OF_A_ROW = re.compile(r"(from|refit):(.*)$")


class GridError(Exception):
    """What is wrong with the user's grid or options, in one line."""


class Head:
    """A line of the grid."""

    def __init__(self, name, words, place):
        self.name = name
        self.place = place
        self.baseline = False
        self.size = None  # K + Q as a fraction of V
        self.body = None  # a word of GROWN
        self.overrides = {}
        self.words = [word for word in words if word != "baseline"]
        for word in words:
            self._take(word)

    def _take(self, word):
        key, equals, value = word.partition("=")
        if word == "baseline":
            self.baseline = True
        elif key == "size" and equals:
            number = value.removesuffix("%")
            if number == value or not re.fullmatch(r"[0-9]*\.?[0-9]+", number) or not 0 < float(number) <= 100:
                raise GridError(f"{self.place}: {word}: write a part of the vocabulary such as size=1.5%")
            self.size = float(number) / 100
        elif key == "body" and equals:
            if value not in GROWN:
                raise GridError(f"{self.place}: {word}: choose body={' or body='.join(GROWN)}")
            self.body = value
        elif equals and KEY.match(key) and value:
            self.overrides[key] = value
        else:
            raise GridError(f"{self.place}: {word}: neither section.key=value nor size=P% nor body=B nor baseline")

    @property
    def map_of_a_row(self):
        """("from" or "refit", the name of the row whose model the map is made of), or None."""
        found = MAP_OF_A_ROW.match(self.overrides.get("head.map", ""))
        return found.groups() if found else None

    @property
    def needs(self):
        """The name of the row whose model the map is made of, or None."""
        return self.map_of_a_row[1] if self.map_of_a_row else None


def read_grid(path):
    """The heads of a grid file in its order. Exactly one is the baseline."""
    heads = {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GridError(f"{path}: cannot read: {error}") from error
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        place = f"{path}:{number}"
        if not NAME.match(words[0]):
            raise GridError(f"{place}: {words[0]}: a name has letters, digits and . _ - only")
        if words[0] in heads:
            raise GridError(f"{place}: {words[0]}: stands on {heads[words[0]].place} already; choose another name")
        heads[words[0]] = Head(words[0], words[1:], place)
    baselines = [head.name for head in heads.values() if head.baseline]
    if len(baselines) != 1:
        raise GridError(f"{path}: {len(baselines)} lines say baseline; let one")
    for head in heads.values():
        if head.baseline and head.body is not None:
            raise GridError(f"{head.place}: body={head.body}: the baseline has the base configuration's body")
        if head.needs is not None and (head.needs not in heads or heads[head.needs].needs is not None):
            raise GridError(f"{head.place}: head.map={head.overrides['head.map']}: name a row of the grid that needs no other row")
    return heads


def choose(heads, wanted):
    """The heads named by `wanted` ("all" or names with commas), with the baseline and what they need, in the grid's order;
    rows that need others last."""
    names = set(heads) if wanted == "all" else set(wanted.split(","))
    for name in sorted(names - set(heads)):
        raise GridError(f"--heads {name}: not in the grid; it has {', '.join(heads)}")
    names |= {name for name, head in heads.items() if head.baseline}
    names |= {heads[name].needs for name in names} - {None}
    chosen = [head for head in heads.values() if head.name in names]
    return sorted(chosen, key=lambda head: head.needs is not None)


def rounded(number):
    """Sizes that fast kernels like, where that changes little."""
    return max(1, round(number) if number < 32 else 8 * round(number / 8))


def without_codes(settings):
    """Whether a head's map has clusters alone: members that are rows of the embedding need no codes."""
    return settings.get("head.groups") == "0" or settings.get("head.members", "embedding") != "codes"


def sizes(head, base, vocab):
    """{head.clusters, head.codes} that `size=` stands for, or {head.rank}."""
    total = head.size * vocab
    if (base | head.overrides).get("head.kind") == "adaptive":
        raise GridError(f"{head.place}: size= with head.kind=adaptive: its sizes are head.cutoffs and head.tail_ratio")
    if (base | head.overrides).get("head.kind") == "low_rank":  # r (V + d) numbers
        if "model.d_model" not in base | head.overrides:
            raise GridError(f"{head.place}: size= with head.kind=low_rank needs model.d_model on its line or in the base configuration")
        width = int((base | head.overrides)["model.d_model"])
        return {"head.rank": str(rounded(total * width / (vocab + width)))}
    if without_codes(base | head.overrides):
        return {"head.clusters": str(rounded(total))}
    half = rounded(total / 2)
    if "head.codes" not in head.overrides and half <= MOST_CODES:
        return {"head.clusters": str(half), "head.codes": str(half)}
    codes = int(head.overrides.get("head.codes", MOST_CODES))
    if codes >= total:
        raise GridError(f"{head.place}: size={100 * head.size:g}% of {vocab} tokens are {total:.0f} vectors: "
                        f"no clusters are left beside head.codes={codes}")
    return {"head.clusters": str(rounded(total - codes)), "head.codes": str(codes)}


def sized(head, base, vocab):
    """The line's overrides, with `size=` spelled out."""
    return head.overrides | (sizes(head, base, vocab) if head.size is not None else {})


def made_map(settings, overrides, seed, source):
    """(file, words after `vqlm codes`) of a map that is made of another row's model before training, or None where the run
    makes its own. `source`: Head.map_of_a_row of the row."""
    if settings.get("head.kind", "vq") != "vq" or source is None:
        return None
    keys = [settings.get(f"head.{key}") for key in ("clusters", "groups", "codes")]
    if without_codes(settings):
        keys[1:] = "0", "0"
    if None in keys:
        raise GridError(f"head.map={source[0]}: needs head.clusters, head.groups and head.codes on its line or in the base configuration")
    clusters, groups, codes = keys
    own = overrides.get("head.own_tokens", settings.get("head.own_tokens", "0"))
    if source[0] == "refit":
        words = ["refit", "--seed", str(seed), "--own-tokens", own]  # its sizes are those of the row that it is made of
    else:
        words = ["make", "--map", "from-dense", "--clusters", clusters, "--groups", groups, "--seed", str(seed)]
        if groups != "0":
            words += ["--codes", codes]
    file = f"{'-'.join(source)}-k{clusters}-g{groups}{f'-q{codes}' if groups != '0' else ''}{f'-own{own}' if own != '0' else ''}-s{seed}.h5"
    return file, words


def row(head, base, baseline, count, seed):
    """(id, needs, map file, words that make it, overrides) as printed. `baseline`: the settings of the row that says so."""
    overrides = sized(head, base, count.vocab)
    if head.body is not None:
        try:
            overrides |= grown(head.body, base | overrides, baseline, count)
        except BodyError as error:
            raise GridError(f"{head.place}: {error}") from error
    settings = base | overrides
    made = made_map(settings, overrides, seed, head.map_of_a_row)
    words = [f"{key}={value}" for key, value in sorted(overrides.items()) if made is None or key not in ("head.map", "head.own_tokens")]
    if made is not None and settings.get("head.own_tokens", "0") != "0":
        words.append("head.own_tokens=0")  # the map file has them already
    needs = f"{head.needs}-s{seed}" if head.needs is not None else "-"
    return [f"{head.name}-s{seed}", needs, made[0] if made else "-", " ".join(made[1]) if made else "-", " ".join(words) or "-"]


def text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_base(path, extra):
    """The base configuration and --set overrides as {section.key: text}."""
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise GridError(f"{path}: {error}") from error
    base = {f"{section}.{key}": text(value) for section, keys in tables.items() if isinstance(keys, dict) for key, value in keys.items()}
    for word in extra:
        key, equals, value = word.partition("=")
        if not equals or not KEY.match(key):
            raise GridError(f"--set {word}: write section.key=value")
        base[key] = value.strip('"')
    return base


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid")
    parser.add_argument("--base", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--program", help="vqlm, which counts the parameters of rows with a body")
    parser.add_argument("--heads", default="all")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--configuration", action="store_true")
    options = parser.parse_args()
    base = read_base(options.base, options.set)
    if options.configuration:
        print(toml(base), end="")
        return
    if options.steps:
        if "train.steps" not in base:
            raise GridError(f"{options.base}: no train.steps; say --steps")
        print(base["train.steps"])
        return
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", options.seeds):
        raise GridError(f"--seeds {options.seeds}: write numbers with commas, such as 0,1,2")
    grid = read_grid(options.grid)
    baseline = base | next(sized(head, base, options.vocab) for head in grid.values() if head.baseline)
    count = Counter(options.program, options.vocab, base)
    for head in choose(grid, options.heads):
        for seed in dict.fromkeys(map(int, options.seeds.split(","))):
            print("\t".join(row(head, base, baseline, count, seed)))


if __name__ == "__main__":
    try:
        main()
    except GridError as error:
        print(f"ablation: {error}", file=sys.stderr)
        sys.exit(2)
