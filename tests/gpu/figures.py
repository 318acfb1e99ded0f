#!/usr/bin/env python3
"""Key figures of the results of tests/gpu/run_all.sh, a line each, and its table (standard library only).

figures.py step|head|attention OURS.json [PEER.jsonl]; figures.py ops OURS.json; figures.py compare ON.json OFF.json;
figures.py losses DENSE.jsonl VQ.jsonl; figures.py table TABLE.tsv (exit status 1 where a stage failed)
"""

import argparse
import json
import os
import sys


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def lines(path):
    """The JSON lines of a file that need not exist; variants that failed are left out."""
    if not path or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        found = [json.loads(line) for line in file if line.startswith("{")]
    return [line for line in found if "error" not in line]


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
    ours, peers = load(options.results[0]), lines("".join(options.results[1:]))
    text = (f"{ours['tokens_per_second']:,.0f} tokens/s, {1e3 * ours['seconds_per_step']:.1f} ms, "
            f"mfu {100 * ours['mfu']:.1f} %{against(options.target_mfu)} of {1e-12 * ours['matmul_peak_flops']:.0f} TFLOP/s, "
            f"{ours['memory_bytes']['peak_total'] / 2**30:.1f} GiB")
    if peers:
        best = max(peers, key=lambda peer: peer["tokens_per_second"])
        ratio = ours["tokens_per_second"] / best["tokens_per_second"]
        text += (f"; {ratio:.2f}x PyTorch{against(options.target_ratio)}: {best['tokens_per_second']:,.0f} tokens/s, "
                 f"mfu {100 * best['mfu']:.1f} % ({best['variant']})")
    else:
        text += no_ratio("".join(options.results[1:]))
    return text


def head(options):
    ours, peers = load(options.results[0]), lines("".join(options.results[1:]))
    text = (f"vq {1e3 * ours['vq']['seconds']:.2f} ms, {ours['vq']['bytes'] / 2**20:.0f} MiB; dense "
            f"{1e3 * ours['dense']['seconds']:.2f} ms, {ours['dense']['bytes'] / 2**20:.0f} MiB")
    if peers:
        best = min(peers, key=lambda peer: peer["seconds"])
        text += (f"; vq {best['seconds'] / ours['vq']['seconds']:.1f}x (target 20), dense "
                 f"{best['seconds'] / ours['dense']['seconds']:.2f}x PyTorch dense {1e3 * best['seconds']:.2f} ms "
                 f"({best['variant']})")
        if best["bytes"]:
            text += f", vq memory {100 * ours['vq']['bytes'] / best['bytes']:.2f} % of its (target 1)"
    else:
        text += no_ratio("".join(options.results[1:]))
    return text


def attention(options):
    ours, peers = load(options.results[0]), lines("".join(options.results[1:]))
    texts = []
    for shape in ours["shapes"]:
        text = f"T {shape['seq_len']} head {shape['head_dim']}:"
        same = [p for p in peers if all(p[k] == shape[k] for k in ("seq_len", "head_dim", "heads", "batch"))]
        for part in ("forward", "backward"):
            text += f" {100 * shape[part]['share_of_peak']:.0f} %"
            if same:
                best = min(p[part]["seconds"] for p in same)
                text += f" ({best / shape[part]['seconds']:.2f}x)"
        texts.append(text)
    text = "; ".join(texts) + " of peak forward, backward (and against PyTorch); targets 60, 45"
    return text if peers else text + no_ratio("".join(options.results[1:]))


def ops(options):
    ours = load(options.results[0])
    shares = sorted((op["share_of_copy"], op["name"]) for op in ours["ops"] if op["name"] not in ("copy", "fill"))
    slowest = ", ".join(f"{name} {100 * share:.0f} %" for share, name in shares[:5])
    return f"copy {1e-9 * ours['copy_bytes_per_second']:,.0f} GB/s; lowest shares (target 85 %): {slowest}"


def compare(options):
    on, off = (load(path) for path in options.results)
    return (f"on {1e3 * on['seconds_per_step']:.2f} ms, off {1e3 * off['seconds_per_step']:.2f} ms: "
            f"{off['seconds_per_step'] / on['seconds_per_step']:.3f}x")


def losses(options):
    texts = []
    for name, path in zip(("dense", "vq"), options.results):
        steps = [line for line in lines(path) if "loss" in line and "step" in line]
        picked = [steps[i] for i in sorted({0, len(steps) // 2, len(steps) - 1})]
        texts.append(f"{name} " + " ".join(f"{s['step']}:{s['loss']:.3f}" for s in picked))
    return "step:loss " + "; ".join(texts)


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
    parser.add_argument("kind", choices=["step", "head", "attention", "ops", "compare", "losses", "table"])
    parser.add_argument("results", nargs="+")
    parser.add_argument("--target-mfu", type=float)
    parser.add_argument("--target-ratio", type=float)
    options = parser.parse_args()
    if options.kind == "table":
        return table(options)
    print(globals()[options.kind](options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
