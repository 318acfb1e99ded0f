#!/usr/bin/env python3
"""Tables and plots of a study that launch/ablation.sh trained.

    ablation_tables.py STUDY --grid configs/ablation-heads.txt

Writes STUDY/results.md, results.json, runs.jsonl, and with gnuplot perplexity-parameters.svg and gap-tokens.svg. docs/ablation.md
says what the columns mean.
"""

import argparse
import json
import pathlib
import statistics
import sys

import ablation_lines
import ablation_plots
import ablation_study as study_of
from ablation_paired import WITHOUT_SCIPY, Paired, stats
from ablation_rows import GridError, read_grid


def mean(values, form):
    return format(statistics.fmean(values), form) if values else "-"


def percent(ratios):
    """Mean and, of several seeds, standard deviation."""
    if not ratios:
        return "-"
    text = f"{100 * statistics.fmean(ratios):+.1f}"
    return f"{text} ± {100 * statistics.stdev(ratios):.1f} %" if len(ratios) > 1 else f"{text} %"


def spread(values, form):
    if len(values) < 2:
        return mean(values, form)
    return f"{mean(values, form)} ± {statistics.stdev(values):{form}}"


def table(columns, rows):
    """Markdown: the first column reads from the left, numbers from the right."""
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def share(row):
    return "tied" if row.tied else f"{100 * row.head['fraction_of_dense']:.2f}"


def cost_table(study):
    rows = []
    for name, seeds in study.rows.items():
        row = next(iter(seeds.values()))
        rows.append([name, f"{0 if row.tied else row.head['parameters']:,}", share(row), f"{row.head['biases']:,}",
                     f"{row.head['code_bytes']:,}", f"{row.head['multiply_adds']:,.0f}", f"{row.model['parameters']:,}",
                     f"{row.model['training_flops_per_token'] / 1e6:,.2f}", mean([1000 * r.head_seconds for r in seeds.values()], ".1f"),
                     mean([r.tokens_per_second for r in seeds.values()], ".0f")])
    return table(["head", "matrices", "% of V d", "biases", "code bytes", "multiply-adds a token", "whole model", "its MFLOP a token", "head ms a step", "tokens/s"],
                 rows)


def maps_table(study):
    """How much text each code map saw; nothing where no row's map saw any."""
    rows = []
    for name in study.rows:
        saw = study.values(name, study_of.of_map("counted_tokens"))
        trained = study.values(name, study_of.of_map("trained_tokens"))
        if saw:
            rows.append([name, mean(saw, ",.0f"), f"{statistics.fmean(saw) / statistics.fmean(trained):.2f}" if trained else "-"])
    return table(["head", "tokens that the map saw", "times the tokens trained on"], rows) if rows else ""


def losses(study, name, evaluation):
    """{seed: nats a token} of the row `name`, where it was evaluated."""
    found = {seed: evaluation(row) for seed, row in study.rows.get(name, {}).items()}
    return {seed: said["nll"] for seed, said in found.items() if said is not None and said["nll"] is not None}


def chance_table(study):
    """Pairs of equal seeds against the baseline; nothing where no row has two."""
    rows = []
    for name in study.rows:
        cells = []
        for evaluation in (lambda row: row.inside, lambda row: row.outside):
            paired = Paired(losses(study, name, evaluation), losses(study, study.baseline, evaluation))
            cells += [f"{100 * paired.ratio:+.2f} %", paired.interval(), paired.chance()] if paired.pairs > 1 else ["-"] * 3
        if name != study.baseline and cells != ["-"] * 6:
            rows.append([name, *cells])
    return table(["head", "in domain", "95 % interval", "p", "out of domain", "95 % interval", "p"], rows) if rows else ""


def quality_table(study):
    rows = []
    for name, seeds in study.rows.items():
        rows.append([name, str(len(seeds)), spread(study.values(name, study_of.inside), ".2f"), percent(study.against_baseline(name, study_of.inside)),
                     mean(study.values(name, lambda r: study_of.bits_per_byte(r.inside)), ".4f"),
                     spread(study.values(name, study_of.outside), ".2f"), percent(study.against_baseline(name, study_of.outside)),
                     mean(study.values(name, lambda r: study_of.bits_per_byte(r.outside)), ".4f")])
    base = study.baseline
    return table(["head", "seeds", "perplexity in domain", f"against {base}", "bits a byte", "out of domain", f"against {base}", "bits a byte"], rows)


def band_table(study):
    """Of the in-domain text: nothing where there are no bands."""
    first = next(iter(next(iter(study.rows.values())).values()))
    bands = first.inside.get("bands", [])
    columns = ["head"] + [f"{band['first_rank']:,}-{band['last_rank']:,}" for band in bands]
    rows = [["share of the text"] + [f"{100 * band['share']:.1f} %" for band in bands]]
    for name in study.rows:
        cells = [mean(study.values(name, study_of.of_band(i)), ".2f") for i in range(len(bands))]
        if name != study.baseline:
            ratios = [percent(study.against_baseline(name, study_of.of_band(i))) for i in range(len(bands))]
            cells = [f"{cell} ({ratio})" if ratio != "-" else cell for cell, ratio in zip(cells, ratios)]
        rows.append([name, *cells])
    return table(columns, rows)


def parts_table(study):
    base = statistics.fmean(study.values(study.baseline, lambda r: r.inside["nll"])) if study.baseline in study.rows else None
    bands = range(len(next(iter(next(iter(study.rows.values())).values())).inside.get("bands", [])))
    rows = []
    for name in study.rows:
        cluster = study.values(name, study_of.part("cluster_nll"))
        if not cluster:
            continue
        whole = study.values(name, lambda r: r.inside["nll"])
        rows.append([name, mean(cluster, ".4f"), mean(study.values(name, study_of.part("member_nll")), ".4f"), mean(whole, ".4f"),
                     f"{statistics.fmean(whole) - base:+.4f}" if base is not None and whole else "-",
                     *(f"{mean(study.values(name, study_of.of_band(i, 'cluster_nll')), '.2f')} + "
                       f"{mean(study.values(name, study_of.of_band(i, 'member_nll')), '.2f')}" for i in bands)])
    columns = ["head", "cluster", "member", "sum", f"- {study.baseline}"]
    return table(columns + [f"band {i + 1}" for i in bands], rows) if rows else "No head with clusters is done.\n"


def course_table(study):
    quarters = study.quarters()
    rows = []
    for name in study.rows:
        cells = []
        for tokens in quarters:
            value = mean(study.values(name, study_of.while_training(tokens)), ".2f")
            ratio = percent(study.against_baseline(name, study_of.while_training(tokens)))
            cells.append(value if name == study.baseline or ratio == "-" else f"{value} ({ratio})")
        rows.append([name, *cells])
    return table(["head"] + [f"{tokens / 1e6:.2f} M tokens" for tokens in quarters], rows)


def others_list(study):
    return "".join(f"- `{name}`: {said}\n" for name, said in study.others.items())


def results(study, plots):
    """The page."""
    base = study.baseline
    parts = ["# Heads compared\n"]
    if study.rows:
        jobs = max(row.jobs for seeds in study.rows.values() for row in seeds.values())
        beside = f"Speeds were measured while up to {jobs} trainings shared the machine.\n" if jobs > 1 else ""
        parts += [f"Perplexities are exact, on held-out text; percentages are against `{base}` with the same seed; ± is the standard deviation over seeds.\n",
                  "## Perplexity\n", quality_table(study),
                  *([f"## What could be chance: pairs of equal seeds against `{base}`\n", "" if stats else WITHOUT_SCIPY, chance]
                    if (chance := chance_table(study)) else []),
                  "## Cost\n", beside, cost_table(study),
                  *(["## Text of the code maps\n", maps] if (maps := maps_table(study)) else []),
                  "## Perplexity by rank of the target in the training text\n", band_table(study),
                  "## Where the loss lies (nats a token)\n", parts_table(study), "## While training\n", course_table(study)]
        parts += [f"![{title}]({file})\n" for file, title in plots.items()]
    if study.others:
        parts += ["## Not done\n", others_list(study)]
    return "\n".join(part for part in parts if part)


def as_json(study):
    """What the page rests on, for other programs."""
    rows = []
    for name, seeds in study.rows.items():
        for seed, row in seeds.items():
            rows.append({"name": name, "seed": seed, "baseline": name == study.baseline, "tied": row.tied, "head_seconds": row.head_seconds,
                         "tokens_per_second": row.tokens_per_second, "in_domain": row.inside, "out_of_domain": row.outside,
                         "heldout_loss_by_tokens": {str(tokens): loss for tokens, loss in row.curve.items()}})
    return {"baseline": study.baseline, "rows": rows, "not_done": study.others}


def write_lines(study, heads, path):
    with open(path, "w", encoding="utf-8") as file:
        for name, seeds in study.rows.items():
            for row in seeds.values():
                file.write(json.dumps(ablation_lines.line_of(row, heads[name].words)) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=pathlib.Path)
    parser.add_argument("--grid", required=True)
    options = parser.parse_args()
    try:
        heads = read_grid(options.grid)
        study = study_of.Study(options.study, heads)
    except (OSError, KeyError, ValueError, GridError) as error:
        sys.exit(f"ablation: {options.study}: cannot read its rows: {error}")
    plots = ablation_plots.draw(study, options.study) if study.rows else {}
    (options.study / "results.md").write_text(results(study, plots), encoding="utf-8")
    write_lines(study, heads, options.study / "runs.jsonl")
    (options.study / "results.json").write_text(json.dumps(as_json(study), indent=1) + "\n")


if __name__ == "__main__":
    main()
