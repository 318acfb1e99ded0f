#!/usr/bin/env python3
"""Another head for a real model: SmolLM2's dense head replaced by a VQ head, trained on for some minutes, and perplexities.

Goes on in the folder that smollm2.py made. The dense model is trained on the same batches too, as what the text itself brings:

    tests/interop/smollm2_head.py --out /tmp/smollm2 --text train.txt --heldout heldout.txt
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=pathlib.Path, required=True, help="plain UTF-8 text to train on")
    parser.add_argument("--heldout", type=pathlib.Path, required=True, help="plain UTF-8 text to evaluate on")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the work folder of smollm2.py, with hf/ and checkpoint/")
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build" / "vqlm")
    parser.add_argument("--environment", type=pathlib.Path, default=SOURCE / "build" / "interop")
    parser.add_argument("--clusters", type=int, default=256)
    parser.add_argument("--groups", type=int, default=48)
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8, help="samples a step")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--eval-tokens", type=int, default=8192)
    return parser.parse_args()


def run(*command):
    print("$", *command, flush=True)
    subprocess.run([*map(str, command)], check=True)


def prepare(options, tokenizer, text, name, tokens):
    """Shards of the first `tokens` tokens of the text."""
    import numpy as np

    ids = np.array(tokenizer(text.read_text(encoding="utf-8")[: 8 * tokens])["input_ids"][:tokens], dtype=np.int32)
    np.save(options.out / f"{name}.npy", ids)
    run(options.program, "prepare", "--from-tokens", options.out / f"{name}.npy", "--heldout", 0, "--tokenizer-files",
        options.out / "hf", "--vocab-size", len(tokenizer), "--eos", tokenizer.eos_token_id, "--out", options.out / name, "--force")
    return f"{options.out / name}/train-*.h5"


def perplexity(options, model, shards):
    result = options.out / "head-eval.json"
    run(options.program, "eval", "--checkpoint", model, "--data", shards, "--seq-len", options.seq_len, "--micro-batch", 2,
        "--json", result)
    return json.loads(result.read_text())["perplexity"]


def train(options, model, shards, name):
    folder = options.out / f"run-{name}"
    settings = {"data.train": shards, "run.dir": folder, "train.steps": options.steps, "train.global_batch": options.batch,
                "train.micro_batch": 2, "data.seq_len": options.seq_len, "optim.lr": options.lr,
                "optim.warmup_steps": max(1, options.steps // 10), "train.eval_every": 0, "checkpoint.every": 0, "run.device": "cpu"}
    start = time.monotonic()
    run(options.program, "train", "--config", model / "config.toml", "--init", model, "--force",
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))
    return folder, time.monotonic() - start


def main():
    options = arguments()
    if pathlib.Path(sys.prefix).resolve() != options.environment.resolve():
        python = options.environment / "bin" / "python"
        os.execv(python, [str(python), *sys.argv])
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.out / "hf")
    tokens = options.steps * options.batch * options.seq_len
    shards = prepare(options, tokenizer, options.text, "head-train", tokens + options.batch * options.seq_len)
    heldout = prepare(options, tokenizer, options.heldout, "head-heldout", options.eval_tokens + 1)
    dense, vq = options.out / "checkpoint", options.out / f"vq-{options.clusters}-{options.groups}-{options.codes}"
    if not vq.exists():
        run(options.program, "convert", "--head", "vq", "--checkpoint", dense, "--clusters", options.clusters, "--groups",
            options.groups, "--codes", options.codes, "--data", shards, "--eval-tokens", options.eval_tokens, "--out", vq)
    rows = [(name, perplexity(options, model, heldout), *train(options, model, shards, name))
            for name, model in (("dense", dense), ("vq", vq))]
    print(f"perplexity on {options.eval_tokens} held-out tokens, before and after {options.steps} steps of "
          f"{options.batch} x {options.seq_len} tokens, lr {options.lr}")
    for name, before, folder, seconds in rows:
        print(f"{name:8} {before:9.2f} {perplexity(options, folder, heldout):9.2f}   {seconds:.0f} s of training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
