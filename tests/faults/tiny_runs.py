"""Runs of a tiny model that save all the time, and the comparison of what they leave: bit by bit on one grid, to 1e-5 where
the grid changed (sums in another order)."""

import hashlib
import json
import pathlib
import random
import subprocess
import time

from job import Job, PROGRAM

STEPS = 60
GRIDS = [(1, 1), (2, 1), (1, 2), (2, 2)]  # data x tensor
MODEL = {"model.d_model": 16, "model.n_layers": 2, "model.n_heads": 2, "model.n_kv_heads": 2, "model.d_ff": 32, "data.seq_len": 16,
         "train.global_batch": 4, "train.micro_batch": 1, "train.steps": STEPS, "train.eval_every": 20, "train.eval_tokens": 320,
         "optim.warmup_steps": 4, "optim.lr": 3e-3, "checkpoint.keep": 2, "run.device": "cpu", "run.threads": 1,
         "run.log_every": 1000000}
HEADS = {"dense": {"head.kind": "dense", "checkpoint.every": 3},
         "vq": {"head.kind": "vq", "head.clusters": 8, "head.members": "codes", "head.input_codes": "false", "head.groups": 4, "head.codes": 8, "head.map": "frequency",
                "head.learning": "commitment", "checkpoint.every": 2},
         "muon": {"head.kind": "dense", "optim.kind": "muon", "checkpoint.every": 3},
         # Two sources whose weights change in the middle.
         "mix": {"head.kind": "dense", "checkpoint.every": 3, "data.train": "", "data.mix.text.train": "FOLDER/shards/train-*.h5",
                 "data.mix.text.weight": 0.7, "data.mix.more.train": "FOLDER/more/train-*.h5", "data.mix.more.weight": 0.3,
                 "data.mix.late.train": "FOLDER/late/train-*.h5", "data.mix.late.weight": 1.5, "data.mix.late.from_step": 31}}
GRID_TOLERANCE = 1e-5


def write_text(path, documents=200, seed=1):
    """Plain text of random sentences from a small vocabulary, a blank line between documents."""
    numbers = random.Random(seed)
    vocabulary = ["".join(numbers.choices("abcdefghij", k=numbers.randint(2, 7))) for _ in range(200)]
    texts = [" ".join(numbers.choices(vocabulary, k=60)) for _ in range(documents)]
    pathlib.Path(path).write_text("\n\n".join(texts), encoding="utf-8")


def prepare(folder):
    """Shards of made-up texts in folder/shards, folder/more and folder/late."""
    write_text(folder / "text.txt")
    subprocess.run([PROGRAM, "prepare", "--input", folder / "text.txt", "--train-tokenizer", "300", "--heldout", "0.1", "--out",
                    folder / "shards"], check=True, capture_output=True)
    for number, name in enumerate(("more", "late"), 2):
        write_text(folder / f"{name}.txt", documents=30, seed=number)
        subprocess.run([PROGRAM, "prepare", "--input", folder / f"{name}.txt", "--tokenizer", folder / "shards", "--heldout", "0",
                        "--out", folder / name], check=True, capture_output=True)


def train_arguments(folder, run, head, grid=(1, 1), **settings):
    """The words of `vqlm train` for the run folder/`run`. Further settings: section__key=value."""
    keys = {**MODEL, "data.train": "FOLDER/shards/train-*.h5", "data.heldout": "FOLDER/shards/heldout-*.h5", **HEADS[head],
            "parallel.data": grid[0], "parallel.tensor": grid[1], "run.dir": folder / run}
    keys.update({name.replace("__", "."): value for name, value in settings.items()})
    keys = {key: str(value).replace("FOLDER", str(folder)) for key, value in keys.items()}
    return ["train", *(word for key, value in keys.items() for word in ("--set", f"{key}={value}"))]


def history(run):
    """What metrics.jsonl tells of each step and each evaluation, without what depends on the clock. A last line without its
    newline was cut by a kill and is left out."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return {}
    told = {}
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        values = json.loads(line)
        if "checkpoint" in values or "resumed" in values:
            continue  # seconds of a save, and what a resume lost
        kind = "evaluation" if "heldout_loss" in values else "step"
        names = ("tokens", "loss", "lr", "grad_norm", "commitment", "skipped", "heldout_loss", "heldout_tokens")
        key = (values["step"], kind)
        if key in told:
            raise AssertionError(f"{path}: {kind} {values['step']} is there twice")
        told[key] = {name: values[name] for name in names if name in values}
        told[key].update({f"{name} {source}": value for name in ("loss_by_source", "epochs")
                          for source, value in values.get(name, {}).items()})
    return told


def wait_for_step(job, run, step):
    """Until the run folder tells of the step; the job must not end before."""
    path = run / "metrics.jsonl"
    while not path.exists() or f'"step":{step},' not in path.read_text(encoding="utf-8", errors="replace"):
        if job.process.poll() is not None:
            raise AssertionError(f"the run ended before step {step}:\n{job.words()}")
        time.sleep(0.0003)


def newest_checkpoint(run):
    return max(path for path in (run / "checkpoints").iterdir() if ".partial" not in path.name)


def tensor_files(checkpoint):
    """Hashes of the files that hold tensors; config.toml names the run folder and so differs between runs."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(checkpoint.glob("*.h5"))}


def close(a, b):
    return abs(a - b) <= GRID_TOLERANCE * abs(b)


class Reference:
    """An uninterrupted run: its history, its last checkpoint, how long it took."""

    def __init__(self, folder, head, grid):
        run = folder / f"whole-{head}-{grid[0]}x{grid[1]}"
        job = Job(train_arguments(folder, run.name, head, grid), grid[0] * grid[1], f"{run}.log")
        code = job.wait(120)
        if code != 0:
            raise AssertionError(f"the uninterrupted run ended with {code}:\n{job.words()}")
        self.seconds = time.monotonic() - job.started
        self.history = history(run)
        self.files = tensor_files(newest_checkpoint(run))
        steps = [step for step, kind in self.history if kind == "step"]
        assert steps == list(range(1, STEPS + 1)), steps

    def differences(self, told, exact_until=STEPS):
        """Of a history from this one: bit by bit for steps up to exact_until, to GRID_TOLERANCE behind it."""
        found = []
        for (step, kind), values in told.items():
            expected = self.history.get((step, kind))
            if expected is None:
                found.append(f"{kind} {step} is in no uninterrupted run")
            elif step <= exact_until:
                found += [f"{kind} {step}: {name} is {values.get(name)!r}, not {expected.get(name)!r}"
                          for name in {**expected, **values} if values.get(name) != expected.get(name)]
            else:
                found += [f"{kind} {step}: {name} is {values.get(name)!r}, not near {expected[name]!r}"
                          for name in expected
                          if name not in values or values[name] is None or not close(values[name], expected[name])]
        return found

    def differences_at_end(self, run, exact_until=STEPS):
        """Of a finished run from this one: every step and evaluation once, the last checkpoint's tensors, no leftovers."""
        told = history(run)
        found = self.differences(told, exact_until)
        found += [f"{kind} {step} is missing" for step, kind in self.history if (step, kind) not in told]
        if exact_until == STEPS and tensor_files(newest_checkpoint(run)) != self.files:
            found.append("the last checkpoint's tensors are others")
        found += [f"{path.name} is left" for path in (run / "checkpoints").iterdir() if ".partial" in path.name]
        return found
