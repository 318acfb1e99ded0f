"""Every file of a checkpoint and of a folder of shards, with flipped bits, lost blocks and cut ends, put before the command that
reads it: a clear error that names the file (exit code 1 or 2), a fallback that is told, or exactly the undamaged result. Never an
end by a signal, a hang, or other numbers.

    damage_test.py [--cases 60] [--seed 1] [--jobs 2]

The bulk of the cases for shards and code maps runs inside one program (shard_damage_test.cpp), that for checkpoints in
tests/train/checkpoint_damage_test.cpp; here whole commands are run."""

import argparse
import concurrent.futures
import filecmp
import json
import pathlib
import random
import shutil
import sys
import tempfile
import time

from job import Job
from tiny_runs import history, newest_checkpoint, prepare, train_arguments

TIMEOUT = 60
SHORT = {"train__steps": 8, "train__eval_every": 0, "checkpoint__every": 4}


def damaged(data, numbers):
    """(words, bytes)"""
    kind = numbers.choice(["flip", "flip", "cut", "block", "empty"] if data else ["empty"])
    place = numbers.randrange(max(1, len(data)))
    if kind == "flip":
        bit = numbers.randrange(8)
        return f"bit {bit} of byte {place} flipped", data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1:]
    if kind == "cut":
        return f"cut to {place} of {len(data)} bytes", data[:place]
    if kind == "block":
        begin = place // 512 * 512
        return f"512 bytes from {begin} on lost", data[:begin] + bytes(len(data[begin:begin + 512])) + data[begin + 512:]
    return "emptied", b""


class Case:
    """One damaged file and one command in a folder of its own."""

    def __init__(self, number, seed, intact):
        self.numbers = random.Random(f"{seed} {number}")
        self.intact = intact
        self.folder = intact.folder / f"case-{number}"
        self.folder.mkdir()
        kinds = [self.evaluate_checkpoint, self.resume, self.train, self.evaluate_shard, self.train_with_map, self.prepare_again]
        self.play = kinds[number % len(kinds)]
        self.told = f"case {number:3} {self.play.__name__}"
        self.failure = ""
        self.result = ""

    def damage(self, folder, pattern):
        path = self.numbers.choice(sorted(path for path in folder.glob(pattern) if path.is_file()))
        words, data = damaged(path.read_bytes(), self.numbers)
        path.write_bytes(data)
        self.path = path
        self.told += f" {path.name} ({words}):"

    def run(self, arguments):
        """True where the command succeeded. One that fails must say so in one line that names the damaged file."""
        job = Job(arguments, 1, self.folder / "log")
        code = job.wait(TIMEOUT)
        self.words = job.words()
        if code == 0:
            return True
        lines = [line for line in self.words.splitlines() if "vqlm: error: " in line]
        if code not in (1, 2):
            self.failure = "hangs" if code is None else f"ends with {code}"
        elif len(lines) != 1:
            self.failure = f"{len(lines)} error lines"
        elif self.path.name not in lines[0]:
            self.failure = f"the file is not named: {lines[0]}"
        self.result = f"error, exit code {code}"
        return False

    def expect(self, same, result):
        self.result = result
        if not same:
            self.failure = "silently other numbers"

    def copy(self, source, name):
        return pathlib.Path(shutil.copytree(source, self.folder / name))

    def evaluate(self, checkpoint, shards):
        out = self.folder / "eval.json"
        if self.run(["eval", "--checkpoint", checkpoint, "--data", f"{shards}/heldout-*.h5", "--json", out]):
            told = json.loads(out.read_text(encoding="utf-8"))
            self.expect(all(told[name] == self.intact.evaluation[name] for name in ("nll", "tokens", "bytes", "documents")),
                        "the undamaged result")

    def evaluate_checkpoint(self):
        checkpoint = self.copy(self.intact.checkpoint, "checkpoint")
        self.damage(checkpoint, "*")
        self.evaluate(checkpoint, self.intact.folder / "shards")

    def evaluate_shard(self):
        shards = self.copy(self.intact.folder / "shards", "shards")
        self.damage(shards, "heldout-*.h5")
        self.evaluate(self.intact.checkpoint, shards)

    def resume(self):
        """The newest checkpoint is damaged, the one before it is not: the run goes on from that, and says so."""
        run = self.copy(self.intact.run, "run")
        newest = newest_checkpoint(run)
        shutil.rmtree(newest)  # the run's end; now it is as if killed
        newest = newest_checkpoint(run)
        self.damage(newest, "*")
        arguments = train_arguments(self.intact.folder, run, "vq", **{**SHORT, "train__steps": 12})
        if self.run([*arguments, "--resume"]):
            fell_back = "continuing after step 4 " in self.words
            self.expect(history(run) == self.intact.history, "falls back" if fell_back else "the undamaged result")
            if fell_back and newest.name not in self.words:
                self.failure = "the fallback does not name the damaged checkpoint"
        else:
            self.failure = self.failure or f"no fallback: {self.words[-500:]}"

    def train(self):
        shards = self.copy(self.intact.folder / "shards", "shards")
        self.damage(shards, "*")
        if self.run(train_arguments(self.folder, "run", "vq", **SHORT)):
            self.expect(history(self.folder / "run") == self.intact.short_history, "the undamaged result")
            if self.path.name == "tokenizer.model":
                self.result = "the undamaged result and a warning"
                if "tokenizer.model: is another tokenizer" not in self.words:
                    self.failure = "no warning"

    def train_with_map(self):
        code_map = self.folder / "code_map.h5"
        shutil.copy(self.intact.run / "code_map.h5", code_map)
        self.damage(self.folder, "code_map.h5")
        arguments = train_arguments(self.intact.folder, self.folder / "run", "vq", **{**SHORT, "head__map": code_map})
        if self.run(arguments):
            self.expect(history(self.folder / "run") == self.intact.short_history, "the undamaged result")

    def prepare_again(self):
        shards = self.copy(self.intact.folder / "shards", "shards")
        self.damage(shards, "*")
        text = self.intact.folder / "text.txt"
        if self.run(["prepare", "--input", text, "--train-tokenizer", "300", "--heldout", "0.1", "--out", shards]):
            names = [path.name for path in (self.intact.folder / "shards").glob("*.h5")]
            _, other, missing = filecmp.cmpfiles(self.intact.folder / "shards", shards, names, shallow=False)
            self.result = "made again" if not other and not missing else "the undamaged result"
            if other or missing:  # a bit in a gap between HDF5's objects: what the shard holds is the same
                self.evaluate(self.intact.checkpoint, shards)


class Intact:
    def __init__(self, folder):
        self.folder = folder
        prepare(folder)
        self.history, self.run = self.trained("run", 12)
        self.short_history, _ = self.trained("short", 8)
        self.checkpoint = newest_checkpoint(self.run)
        out = folder / "eval.json"
        job = Job(["eval", "--checkpoint", self.checkpoint, "--data", f"{folder}/shards/heldout-*.h5", "--json", out], 1, folder / "log")
        assert job.wait(TIMEOUT) == 0, job.words()
        self.evaluation = json.loads(out.read_text(encoding="utf-8"))

    def trained(self, name, steps):
        job = Job(train_arguments(self.folder, name, "vq", **{**SHORT, "train__steps": steps, "checkpoint__keep": 3}), 1,
                  self.folder / f"{name}.log")
        assert job.wait(TIMEOUT) == 0, job.words()
        return history(self.folder / name), self.folder / name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="cases side by side")
    options = parser.parse_args()
    begin = time.monotonic()
    failed = 0
    results = {}
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        intact = Intact(pathlib.Path(name))

        def play(number):
            case = Case(number, options.seed, intact)
            case.play()
            if not case.failure:
                shutil.rmtree(case.folder)
            return case

        for case in pool.map(play, range(options.cases)):
            failed += bool(case.failure)
            results[case.result] = results.get(case.result, 0) + 1
            print(f"{'FAILED ' if case.failure else ''}{case.told} {case.failure or case.result}", flush=True)
            if case.failure:
                print(case.words[-2000:], flush=True)
    print(f"{options.cases} cases: " + ", ".join(f"{count} x {result}" for result, count in sorted(results.items()))
          + f"; {failed} failed, {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
