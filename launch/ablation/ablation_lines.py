#!/usr/bin/env python3
"""A study's runs as JSON lines, and tables from such a file.

    ablation_lines.py docs/studies/input-tables.jsonl --baseline dense-pairs-32k --rows dense-pairs-32k,vq-pairs-32k-1750

launch/ablation.sh writes STUDY/runs.jsonl, a line for each run that is done: `row`, `seed`, `set` (what the row sets over the
study's configuration), `steps`, `parameters`, the held-out `nll`, `perplexity`, `bits_per_byte` and `tokens`, and
`seconds_a_step_p10`, the tenth percentile of its steps, which other work on the machine disturbs least. Prints Markdown:
means over seeds, and against the baseline's row the perplexity by the mean of the pairs with equal seeds, its 95 % interval
and p (ablation_paired.py).
"""

import argparse
import json
import pathlib
import statistics
import sys

from ablation_paired import WITHOUT_SCIPY, Paired, stats


def line_of(row, words):
    """A study's row (ablation_study.Row) as a line; words: what the grid says of it."""
    return {"row": row.name, "seed": row.seed, "steps": row.steps, "parameters": row.model["parameters"], "nll": row.inside["nll"],
            "perplexity": row.inside["perplexity"], "bits_per_byte": row.inside.get("bits_per_byte"), "tokens": row.inside["tokens"],
            "seconds_a_step_p10": row.seconds_a_step_p10, "set": " ".join(words)}


def read_lines(path):
    """{row: {seed: line}} in the file's order. ValueError names the line that is none, or that a row and seed have twice."""
    rows = {}
    for number, text in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            seeds = rows.setdefault(line["row"], {})
            known = line["seed"] in seeds
            seeds[line["seed"]] = {key: line[key] for key in ("steps", "parameters", "nll", "perplexity", "seconds_a_step_p10")}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: no line of a study: {error!r}") from error
        if known:
            raise ValueError(f"{path}:{number}: {line['row']} with seed {line['seed']} stands twice")
    return rows


def losses(seeds):
    return {seed: line["nll"] for seed, line in seeds.items()}


def comparison(rows, baseline):
    """Markdown of {row: {seed: line}}."""
    columns = ["row", "seeds", "steps", "parameters", "perplexity", "ms a step", "seconds", f"against {baseline}", "95 % interval", "p"]
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    for name, seeds in rows.items():
        first = next(iter(seeds.values()))
        seconds = [line["seconds_a_step_p10"] for line in seeds.values() if line["seconds_a_step_p10"] is not None]
        step = statistics.fmean(seconds) if seconds else None
        paired = Paired(losses(seeds), losses(rows[baseline])) if name != baseline else None
        lines.append("| " + " | ".join([
            name, str(len(seeds)), f"{first['steps']:,}", f"{first['parameters']:,}",
            f"{statistics.fmean(line['perplexity'] for line in seeds.values()):.2f}", f"{1000 * step:.0f}" if step else "-",
            f"{first['steps'] * step:.0f}" if step else "-",
            f"{100 * paired.ratio:+.1f} %" if paired and paired.pairs else "-", paired.interval() if paired else "-",
            paired.chance() if paired else "-"]) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--baseline", required=True, help="the row that the others are compared with")
    parser.add_argument("--rows", help="some of them, by commas (all)")
    options = parser.parse_args()
    try:
        rows = read_lines(options.file)
    except (OSError, ValueError) as error:
        sys.exit(f"ablation: {error}")
    wanted = options.rows.split(",") if options.rows else list(rows)
    for name in [options.baseline, *wanted]:
        if name not in rows:
            sys.exit(f"ablation: {options.file} has no row {name}; it has {', '.join(rows)}")
    if options.baseline not in wanted:
        wanted.insert(0, options.baseline)
    print(comparison({name: rows[name] for name in wanted}, options.baseline), end="")
    if stats is None:
        print(WITHOUT_SCIPY, end="", file=sys.stderr)


if __name__ == "__main__":
    main()
