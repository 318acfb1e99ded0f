"""Plots of a study, drawn by gnuplot: for launch/ablation/ablation_tables.py."""

import shutil
import statistics
import subprocess
import sys

import ablation_study as study_of

# Okabe and Ito's colours, told apart by colour-blind readers too; dashes tell apart what comes after them.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def block(name, lines):
    return f"${name} << END\n" + "".join(line + "\n" for line in lines) + "END\n"


def opening(picture, height=560):
    return (f"set terminal svg size 900,{height} font 'Helvetica,14' background '#ffffff' noenhanced\nset output {quoted(str(picture))}\n"
            "set border 3\nset tics nomirror\nset grid ytics linecolor rgb '#dddddd' linetype 1\n")


def parameters_script(study, picture):
    """Each head a point: numbers in the output matrices, held-out perplexity in domain. None where none has a matrix."""
    points = []
    for name, seeds in study.rows.items():
        perplexities = study.values(name, study_of.inside)
        row = next(iter(seeds.values()))
        if perplexities and not row.tied:
            points.append(f"{row.head['parameters']} {statistics.fmean(perplexities)} \"{name}\"")
    if not points:
        return None
    return (opening(picture) + block("heads", points) +
            "set logscale x\nset xlabel 'numbers in the output matrices'\nset ylabel 'held-out perplexity, in domain'\n"
            "set offsets graph 0.05, graph 0.2, graph 0.05, graph 0.05\n"
            f"plot $heads using 1:2 with points pointtype 7 linecolor rgb '{COLOURS[0]}' notitle, \\\n"
            "     $heads using 1:2:3 with labels left offset 0.7,0.3 font ',11' notitle\n")


def gap_script(study, picture):
    """Each head a curve: perplexity over the baseline's, in percent, against tokens trained on. None where nothing compares."""
    text, curves = opening(picture, 700), []
    for name in study.rows:
        tokens = sorted({place for row in study.rows[name].values() for place in row.curve})
        lines = []
        for place in tokens:
            ratios = study.against_baseline(name, study_of.while_training(place))
            if ratios:
                lines.append(f"{place / 1e6} {100 * statistics.fmean(ratios)}")
        if name == study.baseline or not lines:
            continue
        number = len(curves)
        text += block(f"head{number}", lines)
        curves.append(f"$head{number} using 1:2 with linespoints pointtype 7 pointsize 0.5 linewidth 2 linecolor rgb '{COLOURS[number % len(COLOURS)]}' "
                      f"dashtype {number // len(COLOURS) + 1} title {quoted(name)}")
    if not curves:
        return None
    return (text + "set xlabel 'tokens trained on (millions)'\n"
            f"set ylabel {quoted('held-out perplexity against ' + study.baseline + ' (%)')}\nset key outside right top font ',11'\n"
            "set xrange [0:]\nplot 0 with lines linecolor rgb '#888888' notitle, \\\n     " + ", \\\n     ".join(curves) + "\n")


def draw(study, folder):
    """Writes the plots; {file name: title} of those that were drawn. Without gnuplot says so and draws none."""
    if shutil.which("gnuplot") is None:
        print("ablation: no gnuplot, so no plots; install the package gnuplot-nox", file=sys.stderr)
        return {}
    drawn = {}
    for name, script, title in [("perplexity-parameters.svg", parameters_script, "perplexity against output parameters"),
                                ("gap-tokens.svg", gap_script, "relative perplexity against tokens")]:
        text = script(study, folder / name)
        if text is None:
            continue
        result = subprocess.run(["gnuplot", "-"], input=text, text=True, capture_output=True, check=False)
        if result.returncode == 0:
            drawn[name] = title
        else:
            print(f"ablation: {folder / name}: gnuplot ended with status {result.returncode}: {result.stderr.strip()[:200]}", file=sys.stderr)
    return drawn
