#!/usr/bin/env python3
"""Trains vqlm's model in PyTorch on vqlm's shards, in vqlm's order: to believe its rows, and to try others before they are built.

    tests/twin/twin.py RUN --out rows.jsonl [--head NAME[:KEY=VALUE,...]] [--input NAME[:KEY=VALUE,...]] [--set KEY=VALUE]

RUN is a folder that `vqlm train` wrote; its config.toml says the rest. A run whose line is in rows.jsonl already is not repeated."""

import argparse
import hashlib
import importlib
import json
import math
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402

import parts  # noqa: E402
from optimizer import AdamW, learning_rate  # noqa: E402
from settings import Settings, TwinError  # noqa: E402
from stream import Stream, append_line  # noqa: E402


def number(text):
    """As an int or a float where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def made(package, text, *context):
    """`adaptive:div=2,tied=1` -> an object of package/adaptive.py."""
    name, _, options = text.partition(":")
    known = sorted(path.stem for path in (pathlib.Path(__file__).resolve().parent / package).glob("*.py"))
    if name not in known:
        raise TwinError(f"--{package[:-1]} {name}: not one of {', '.join(known)}")
    values = {key: number(value) for key, _, value in (option.partition("=") for option in options.split(",") if option)}
    try:
        return getattr(importlib.import_module(f"{package}.{name}"), package[:-1].capitalize())(*context, **values)
    except TypeError as error:
        raise TwinError(f"--{package[:-1]} {text}: {error}") from error


def head_of(settings):
    if settings.get("head.kind", "vq") == "low_rank":
        if settings["model.tie_embeddings"]:
            raise TwinError("head.kind = 'low_rank' with model.tie_embeddings = True: the twin has it untied alone")
        return "lowrank"
    if settings.get("head.kind", "vq") == "adaptive":
        return "adaptive"
    return "vq" if settings.get("head.kind", "vq") == "vq" else "tied" if settings["model.tie_embeddings"] else "dense"


class Twin:
    """The model, its optimizer and its data. head, inputs: texts of --head and --input."""

    def __init__(self, settings, head="", inputs=(), dtype=torch.float32):
        self.settings, self.c, self.dtype = settings, settings.model, dtype
        self.train = Stream(settings["data.train"])
        counts = self.counts()
        self.head = made("heads", head or head_of(settings), self.c, counts, settings, self.train.folder)
        tables = [f"ngram:rows={table['rows']},order={table['order']},number={number},stddev={self.head.embedding_stddev}"
                  for number, table in enumerate(settings.get("input.tables", []))]
        self.inputs = [made("inputs", text, self.c, counts) for text in [*tables, *inputs]]
        self.parameters = [*self.head.table(), *parts.body_parameters(self.c), *self.head.parameters()]
        for one in self.inputs:
            self.parameters += one.parameters()
        names = [p.name for p in self.parameters]
        if len(set(names)) < len(names):
            raise TwinError(f"{max(names, key=names.count)} stands for two tables: give --input ngram a number= of its own")
        self.w = {p.name: p.start(settings["train.seed"]).to(dtype).requires_grad_() for p in self.parameters}
        self.optimizer = AdamW(settings, self.parameters, self.w)

    def counts(self):
        if self.settings.get("data.counted_text", "all") == "all":
            return self.train.counts(self.c.vocab_size)
        run = [self.settings[key] for key in ("train.steps", "train.global_batch", "data.seq_len", "train.seed")]
        return self.train.trained_counts(self.c.vocab_size, *run)

    def hidden(self, ids):
        x = self.head.embed(ids, self.w)
        for one in self.inputs:
            x = one.apply(x, ids, self.w)
        return parts.hidden_states(x, self.w, self.c)

    def train_step(self, step):
        """Step 1, 2, ...: returns the mean loss in nats before the update, and the gradient's norm."""
        batch, micro, length = (self.settings[key] for key in ("train.global_batch", "train.micro_batch", "data.seq_len"))
        ids, targets = map(torch.from_numpy, self.train.training_batch(step - 1, batch, length, self.settings["train.seed"]))
        for x in self.w.values():
            x.grad = None
        total = 0.0
        for begin in range(0, batch, micro):
            nll = self.head.nll(self.hidden(ids[begin : begin + micro]), targets[begin : begin + micro].reshape(-1), self.w)
            (nll.sum() / (batch * length)).backward()
            total += float(nll.detach().double().sum())
        return total / (batch * length), self.optimizer.step(step)

    @torch.no_grad()
    def evaluate(self):
        """(nats a token, tokens): docs/data.md, Evaluation."""
        settings, total, tokens = self.settings, 0.0, 0
        heldout = Stream(settings["data.heldout"])
        for ids, targets in heldout.heldout_batches(settings["train.micro_batch"], settings["data.seq_len"], settings["train.eval_tokens"]):
            told = torch.from_numpy(targets.reshape(-1))
            predicted = told >= 0
            nll = self.head.nll(self.hidden(torch.from_numpy(ids))[predicted], told[predicted], self.w)
            total += float(nll.double().sum())
            tokens += int(predicted.sum())
        return total / tokens, tokens

    def parameter_count(self):
        return sum(math.prod(p.shape) for p in self.parameters)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's folder, or its config.toml")
    parser.add_argument("--out", required=True, help="JSON lines, appended to")
    parser.add_argument("--head", default="", help="of heads/; default: as the configuration says")
    parser.add_argument("--input", action="append", default=[], help="of inputs/; may be repeated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value of a key of config.toml")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--losses", help="JSON lines of every step's loss")
    parser.add_argument("--probe", default="", help="share:rows=N: of the trained model, the share of the logits' gradient that the head passes on")
    return parser.parse_args()


def identity(options, settings):
    """What makes a run the same: every key but where things lie."""
    keys = {key: value for key, value in settings.keys.items() if not key.startswith(("run.", "checkpoint.", "parallel."))}
    text = json.dumps([keys, options.head, options.input, options.dtype, options.probe], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(path):
    path = pathlib.Path(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {json.loads(line)["identity"] for line in lines}


def main():
    options = arguments()
    torch.set_num_threads(1)
    settings = Settings(options.run, options.set)
    key = identity(options, settings)
    row = "+".join([options.head or head_of(settings), *options.input])
    if key in finished(options.out):
        print(f"{row}, seed {settings['train.seed']}: in {options.out} already")
        return
    began = time.monotonic()
    twin = Twin(settings, options.head, options.input, getattr(torch, options.dtype))
    steps = settings["train.steps"]
    if options.losses:
        pathlib.Path(options.losses).write_text("", encoding="utf-8")
    for step in range(1, steps + 1):
        loss, norm = twin.train_step(step)
        if options.losses:
            append_line(options.losses, {"step": step, "loss": loss, "lr": learning_rate(settings, step), "grad_norm": norm})
        if step % settings["run.log_every"] == 0 or step == steps:
            print(f"{row}: step {step} of {steps}, loss {loss:.4f}, {time.monotonic() - began:.0f} s", flush=True)
    nll, tokens = twin.evaluate()
    record = {"identity": key, "seed": settings["train.seed"], "row": row, "parameters": twin.parameter_count(), "steps": steps,
              "train_loss": loss, "heldout_nll": nll, "heldout_perplexity": math.exp(nll), "heldout_tokens": tokens}
    if options.probe:
        record |= made("probes", options.probe, twin).measure()
    record["seconds"] = round(time.monotonic() - began, 1)
    append_line(options.out, record)
    print(json.dumps(record))


if __name__ == "__main__":
    try:
        main()
    except TwinError as error:
        sys.exit(f"twin: error: {error}")
