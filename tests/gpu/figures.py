#!/usr/bin/env python3
"""Key figures of the results of tests/gpu/first_run.sh and second_run.sh, a line each, and their table (standard library
only). Each kind is a function below; exit status 1 where results that must be equal are not, or a stage failed.

figures.py step|head|attention OURS.json [PEER.jsonl]; ops|products|counters|tests|sanitizer RESULT...;
libraries DOCTOR.json FILES.txt; same METRICS.jsonl...; losses DENSE.jsonl VQ.jsonl; memory PLAN.json STEP.json CARD.csv;
compare ON.json GRAPHS_OFF.json DEPENDENT_LAUNCH_OFF.json; tuned FIRST.json TUNED.json; card CARD.csv SAMPLES_BEFORE; table TABLE.tsv
"""

import argparse
import csv
import json
import os
import re
import statistics
import sys


class Unequal(Exception):
    """What must agree does not: the stage fails with these words."""


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def lines(path):
    """The JSON lines of a file that need not exist."""
    if not path or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.startswith("{")]


def variants(path):
    """Of a peer's results those that were measured, and why others were not, by name."""
    found = lines(path)
    return ([line for line in found if "error" not in line],
            {line["variant"]: line["error"] for line in found if "error" in line})


def no_ratio(path):
    """Why there is nothing to compare with: run_all.sh leaves the reason in the peer's place."""
    if path and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith("no ratio"):
                    return "; " + line.strip()
    return "; no ratio (no result of PyTorch)"


def against(target, of="target"):
    return f" ({of} {target:g})" if target else ""


def step(options):
    ours, (peers, missing) = load(options.results[0]), variants("".join(options.results[1:]))
    text = (f"{ours['tokens_per_second']:,.0f} tokens/s, {1e3 * ours['seconds_per_step']:.1f} ms, "
            f"mfu {100 * ours['mfu']:.1f} %{against(options.target_mfu)} of {1e-12 * ours['matmul_peak_flops']:.0f} TFLOP/s, "
            f"{ours['memory_bytes']['peak_total'] / 2**30:.1f} GiB")
    if not peers:
        return text + no_ratio("".join(options.results[1:]))
    for place, peer in enumerate(sorted(peers, key=lambda peer: -peer["tokens_per_second"])):
        ratio = ours["tokens_per_second"] / peer["tokens_per_second"]
        text += (f"; {ratio:.2f}x PyTorch {peer['variant']}{against(options.target_ratio) if place == 0 else ''}: "
                 f"{peer['tokens_per_second']:,.0f} tokens/s, mfu {100 * peer['mfu']:.1f} %")
    return text + "".join(f"; no {name}: {why}" for name, why in missing.items())


def head(options):
    ours, (peers, missing) = load(options.results[0]), variants("".join(options.results[1:]))
    text = (f"vq {1e3 * ours['vq']['seconds']:.2f} ms, {ours['vq']['bytes'] / 2**20:.0f} MiB; dense "
            f"{1e3 * ours['dense']['seconds']:.2f} ms, {ours['dense']['bytes'] / 2**20:.0f} MiB")
    if not peers:
        return text + no_ratio("".join(options.results[1:]))
    for place, peer in enumerate(sorted(peers, key=lambda peer: peer["seconds"])):
        target = " (target 20)" if place == 0 else ""
        text += (f"; vq {peer['seconds'] / ours['vq']['seconds']:.1f}x{target}, dense "
                 f"{peer['seconds'] / ours['dense']['seconds']:.2f}x PyTorch {peer['variant']} {1e3 * peer['seconds']:.2f} ms")
        if peer["bytes"]:
            text += f", vq memory {100 * ours['vq']['bytes'] / peer['bytes']:.2f} % of its{' (target 1)' if place == 0 else ''}"
    return text + "".join(f"; no {name}: {why}" for name, why in missing.items())


def attention(options):
    ours, (peers, missing) = load(options.results[0]), variants("".join(options.results[1:]))
    texts = []
    for shape in ours["shapes"]:
        same = [p for p in peers if all(p[k] == shape[k] for k in ("seq_len", "head_dim", "heads", "batch"))]
        for part in ("forward", "backward"):
            ratios = [f"{p[part]['seconds'] / shape[part]['seconds']:.2f}x {p['variant']}" for p in same]
            texts.append(f"T {shape['seq_len']} head {shape['head_dim']} {part} {100 * shape[part]['share_of_peak']:.0f} %"
                         + (f" ({', '.join(ratios)})" if ratios else ""))
    text = "; ".join(texts) + " of peak (and against PyTorch's); targets forward 60, backward 45"
    if not peers:
        return text + no_ratio("".join(options.results[1:]))
    return text + "".join(f"; no {name}: {why}" for name, why in missing.items())


def ops(options):
    ours = load(options.results[0])
    shares = sorted((op["share_of_copy"], op["name"]) for op in ours["ops"] if op["name"] not in ("copy", "fill"))
    slowest = ", ".join(f"{name} {100 * share:.0f} %" for share, name in shares[:5])
    return f"copy {1e-9 * ours['copy_bytes_per_second']:,.0f} GB/s; lowest shares (target 85 %): {slowest}"


def compare(options):
    on, *others = (load(path)["seconds_per_step"] for path in options.results)
    names = ["graphs off", "dependent launches off"]
    return f"on {1e3 * on:.2f} ms" + "".join(f", {name} {1e3 * off:.2f} ms: {off / on:.3f}x" for name, off in zip(names, others))


def tuned(options):
    first, now = (load(path) for path in options.results)
    if "products" not in now:
        raise Unequal("the step had no products file")
    return (f"first {1e3 * first['seconds_per_step']:.2f} ms, tuned {1e3 * now['seconds_per_step']:.2f} ms: "
            f"{first['seconds_per_step'] / now['seconds_per_step']:.3f}x; {now['products'].split(' from ')[0]}")


def products(options):
    ours = load(options.results[0])
    layers = {}
    for product in ours["products"]:
        layers.setdefault(product["layer"], []).append(product)
    texts = []
    for layer, parts in layers.items():
        shares = "/".join("refused" if "refused" in p else f"{100 * p['share_of_peak']:.0f}" for p in parts)
        whole = "" if any("refused" in p for p in parts) else f" {1e3 * sum(p['seconds'] for p in parts):.2f} ms"
        texts.append(f"{layer}{whole} {shares} %")
    refusals = sorted({p["refused"] for p in ours["products"] if "refused" in p})
    return (f"{1e-12 * ours['matmul_peak_flops']:.0f} TFLOP/s peak; forward/input/weight gradient: " + "; ".join(texts) +
            "".join(f"; refused: {why}" for why in refusals))


def losses(options):
    texts = []
    for name, path in zip(("dense", "vq"), options.results):
        found = lines(path)
        steps = [line for line in found if "loss" in line and "step" in line]
        picked = [steps[i] for i in sorted({0, len(steps) // 2, len(steps) - 1})]
        texts.append(f"{name} " + " ".join(f"{s['step']}:{s['loss']:.3f}" for s in picked) + ", held-out " +
                     " ".join(f"{s['step']}:{s['heldout_loss']:.3f}" for s in found if "heldout_loss" in s) +
                     f", {statistics.median(s['tokens_per_second'] for s in steps):,.0f} tokens/s")
    return "step:loss " + "; ".join(texts)


def same(options):
    """Losses and gradient norms of runs that must agree in every digit."""
    runs = [[(s["step"], s["loss"], s["grad_norm"]) for s in lines(path) if "loss" in s] for path in options.results]
    for path, run in zip(options.results[1:], runs[1:]):
        for ours, theirs in zip(runs[0], run):
            if ours != theirs:
                raise Unequal(f"step {ours[0]}: loss {ours[1]!r}, norm {ours[2]!r}; in {os.path.basename(os.path.dirname(path))} "
                              f"loss {theirs[1]!r}, norm {theirs[2]!r}")
        if len(run) != len(runs[0]):
            raise Unequal(f"{len(runs[0])} and {len(run)} steps")
    if not runs[0]:
        raise Unequal(f"no steps in {options.results[0]}")
    return (f"{len(runs)} runs of {len(runs[0])} steps, the same losses and norms in every digit; last loss {runs[0][-1][1]:.6f}")


def memory(options):
    """The plan's bytes by use; workspace alone may be more in a run (the ops' scratch, cuBLASLt's)."""
    planned, used = (load(path)["memory_bytes"] for path in options.results[:2])
    for use in ("parameters", "gradients", "optimizer", "activations"):
        if planned[use] != used[use]:
            raise Unequal(f"{use}: planned {planned[use]:,} bytes, used {used[use]:,}")
    samples = [s["memory"] for s in card_samples(options.results[2]) if "memory" in s] if len(options.results) > 2 else []
    return (f"planned {planned['total'] / 2**20:,.0f} MiB, used {used['peak_total'] / 2**20:,.0f}: the difference is workspace, "
            f"{planned['workspace'] / 2**20:,.0f} and {used['workspace'] / 2**20:,.0f}" +
            (f"; at most {max(samples):,.0f} MiB of the card were taken in this run" if samples else ""))


def libraries(options):
    found = load(options.results[0])
    cuda = found["cuda"]
    with open(options.results[1], encoding="utf-8") as file:
        paths = [line.strip() for line in file if re.search(r"/lib(cublasLt|cudart|nccl|cuda)\.so", line)]
    return (f"runtime {cuda['runtime']} (in the program), driver {cuda['driver']}, cuBLASLt {cuda['cublaslt']}, "
            f"NCCL {found['nccl']}; loaded: {' '.join(paths) or 'none of them'}")


def tests(options):
    """GoogleTest's sums over several processes."""
    passed, failed = 0, []
    for path in options.results:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        passed += sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", text))
        failed += re.findall(r"\[  FAILED  \] (\S+\.\S+?),? ", text)
    failed = sorted(set(failed))
    return f"{passed} tests passed" + (f", {len(failed)} failed: {', '.join(failed[:5])}" if failed else "")


def counters(options):
    """Of `ncu --csv --page raw`: duration, and shares of the peaks of the SM, its tensor cores, memory and warps."""
    with open(options.results[0], encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(line for line in file if line.startswith('"')))
    known = {"gpu__time_duration.sum": "ns", "sm__throughput.avg.pct_of_peak_sustained_elapsed": "% SM",
             "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active": "% tensor",
             "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed": "% memory",
             "sm__warps_active.avg.pct_of_peak_sustained_active": "% warps"}
    texts = []
    for row in rows:
        values = [f"{float(row[key].replace(',', '')):,.0f} {unit}" for key, unit in known.items() if number(row.get(key))]
        if row["Kernel Name"] and values:
            texts.append(f"{row['Kernel Name']} {', '.join(values)}")
    if not texts:
        raise Unequal("ncu counted no kernel")
    return "; ".join(texts)


def sanitizer(options):
    """Reports of compute-sanitizer about our kernels fail a stage; others (cuBLASLt's, API calls) are counted."""
    with open(options.results[0], encoding="utf-8", errors="replace") as file:
        log = file.read()
    if "COMPUTE-SANITIZER" not in log:
        raise Unequal("compute-sanitizer did not start: " + (log.strip().splitlines() or ["it said nothing"])[-1])
    reports, ours = [], []
    for line in re.findall(r"^=========(.*)$", log, re.MULTILINE):
        if re.match(r" \S", line) and not re.match(r" (COMPUTE-SANITIZER|\S+ SUMMARY|Target application|LEAK|Error: process)", line):
            reports.append([line])
        elif reports:
            reports[-1].append(line)
    for report in reports:
        if any(re.search(r"\bat (void )?vqlm::", line) for line in report):
            ours.append(report[0].strip())
    tested = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", log))
    text = f"{tested} tests passed, {len(ours)} reports about our kernels, {len(reports) - len(ours)} about others"
    if ours:
        raise Unequal(f"{text}; the first: {ours[0]}")
    return text


def number(text):
    try:
        return float((text or "").replace(",", "")) >= 0
    except ValueError:
        return False


def card_samples(path):
    """Lines of nvidia-smi: SM clock in MHz, power in W, temperature in C, utilisation in %, memory in MiB; "[N/A]" is left out."""
    if not os.path.exists(path):
        return []
    names = ("clock", "power", "temperature", "utilisation", "memory")
    with open(path, encoding="utf-8", errors="replace") as file:
        return [{name: float(value) for name, value in zip(names, line.split(",")) if number(value.strip())} for line in file]


def card(options):
    """Of a stage: what the card did while it worked."""
    path, before = options.results
    samples = card_samples(path)[int(before):]
    busy = [s for s in samples if s.get("utilisation", 0) >= 50 and "clock" in s]
    if not busy:
        return f"[card idle in {len(samples)} samples]"
    median = {name: statistics.median(s[name] for s in busy if name in s)
              for name in ("clock", "power", "temperature") if any(name in s for s in busy)}
    return (f"[SM {median['clock']:,.0f} MHz, at least {min(s['clock'] for s in busy):,.0f}" +
            (f"; {median['power']:.0f} W" if "power" in median else "") +
            (f"; {median['temperature']:.0f} C]" if "temperature" in median else "]"))


def table(options):
    with open(options.results[0], encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    print(f"\n{'stage':<14} {'status':<12} {'s':>4}  figures")
    for name, status, seconds, text in rows:
        print(f"{name:<14} {status:<12} {seconds:>4}  {text}")
    bad = [name for name, status, _, _ in rows if status not in ("passed", "skipped")]
    print(f"{len(rows)} stages in {sum(int(row[2]) for row in rows)} s; " +
          (f"failed: {', '.join(bad)}" if bad else "none failed"))
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=[
        "attention", "card", "compare", "counters", "head", "libraries", "losses", "memory", "ops", "products", "same",
        "sanitizer", "step", "table", "tests", "tuned"])
    parser.add_argument("results", nargs="+")
    parser.add_argument("--target-mfu", type=float)
    parser.add_argument("--target-ratio", type=float)
    options = parser.parse_args()
    if options.kind == "table":
        return table(options)
    try:
        print(globals()[options.kind](options))
    except Unequal as words:
        print(words)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
