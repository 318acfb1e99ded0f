"""launch/track.py: what it reads, what it leaves out, and where it goes on, with a tracker that only records."""

import argparse
import fcntl
import importlib.util
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from end_to_end_test import MODEL, set_options, write_text
from program import SOURCE_DIR, run

SCRIPT = f"{SOURCE_DIR}/launch/track.py"
SPEC = importlib.util.spec_from_file_location("track", SCRIPT)
track = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(track)


class Recorder:
    """What came, and what is there: a log that is not flushed is lost."""

    last = {}

    def __init__(self, arguments, config, run_id):
        self.id, self.config, self.points, self.waiting = run_id or f"run of {arguments.name}", config, [], []
        type(self).latest = self

    def last_steps(self):
        return self.last

    def log(self, step, values):
        self.waiting.append((step, values))

    def flush(self):
        self.points += self.waiting
        self.waiting = []

    def close(self):
        self.flush()


track.TRACKERS["recorder"] = Recorder


def line(step, **more):
    return json.dumps({"step": step, "loss": 2.0 / step, "lr": 0.1, **more}) + "\n"


class Track(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.metrics = self.folder / "metrics.jsonl"
        (self.folder / "config.toml").write_text("[model]\nd_model = 32\n[train]\nsteps = 6\n")
        Recorder.last = {}

    def tracked(self, follow=False):
        """What one call hands over: (step, values)."""
        track.track(argparse.Namespace(run=self.folder, to="recorder", project="p", name="n", follow=follow, every=0.02))
        return Recorder.latest.points

    def steps(self, **more):
        return [step for step, values in self.tracked(**more) if "train/loss" in values]

    def test_names_and_configuration(self):
        self.metrics.write_text(
            line(1, tokens=64, seconds=0.5, mfu=0.2, memory_bytes=2**21, loss_by_source={"a": 1.5}, epochs={"a": 0.25}) + '{"step":1,"tokens":64,"heldout_loss":3.0,"heldout_tokens":9,"seconds":7,"heldout_by_set":{"b":{"loss":2.5,"tokens":4}}}\n'
            + '{"step":1,"checkpoint":"step-00000001","seconds_write":0.1}\n' + '{"step":2,"loss":null,"grad_norm":null,"lr":0.1,"skipped":true}\n')
        self.assertEqual(self.tracked(), [
            (1, {"train/loss": 2.0, "train/lr": 0.1, "train/tokens": 64, "speed/seconds": 0.5, "speed/mfu": 0.2, "memory/peak_MiB": 2.0,
                 "train/loss/a": 1.5, "train/epochs/a": 0.25}),
            (1, {"heldout/loss": 3.0, "heldout/loss/b": 2.5}), (2, {"train/lr": 0.1, "train/skipped": 1.0})])
        self.assertEqual(Recorder.latest.config, {"model.d_model": 32, "train.steps": 6})

    def test_a_second_call_goes_on_in_the_same_run(self):
        self.metrics.write_text(line(1) + line(2) + line(3)[:-5])  # the third is being written
        self.assertEqual(self.steps(), [1, 2])
        self.metrics.write_text(line(1) + line(2) + line(3) + line(4))
        self.assertEqual(self.steps(), [3, 4])
        self.assertEqual(Recorder.latest.id, "run of n")
        self.assertEqual(self.steps(), [])

    def test_a_resumed_run_s_steps_are_not_there_twice(self):
        self.metrics.write_text(line(1) + line(2) + line(3))
        self.assertEqual(self.steps(), [1, 2, 3])
        replaced = self.folder / "metrics.jsonl.partial"  # as vqlm train --resume cuts it
        replaced.write_text(line(1))
        replaced.replace(self.metrics)
        self.assertEqual(self.steps(), [])
        self.metrics.write_text(line(1) + line(2) + line(3) + line(4))
        self.assertEqual(self.steps(), [4])
        self.metrics.write_text("".join(line(step) for step in (1, 2, 3, 4, 3, 4, 5)))
        self.assertEqual(self.steps(), [5])

    def test_what_the_tracker_has_already_is_not_handed_over(self):
        self.metrics.write_text(line(1) + line(2) + line(3))
        Recorder.last = {"train": 2, "heldout": -1}  # a call that was killed before it noted them
        self.assertEqual(self.steps(), [3])

    def test_following_a_run_until_its_end(self):
        def train():
            with open(self.folder / "run.lock", "w") as lock:
                fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))  # as train/records/run_lock.cpp
                for step in (1, 2, 3, 4):
                    with open(self.metrics, "a") as file:
                        file.write(line(step)[:9])
                        file.flush()
                        time.sleep(0.05)
                        file.write(line(step)[9:])
                replaced = self.folder / "metrics.jsonl.partial"  # resumed from step 2
                replaced.write_text(line(1) + line(2))
                replaced.replace(self.metrics)
                for step in (3, 4, 5, 6):
                    with open(self.metrics, "a") as file:
                        file.write(line(step))
                time.sleep(0.3)  # the last held-out loss takes its time
                with open(self.metrics, "a") as file:
                    file.write('{"step":6,"heldout_loss":1.0}\n')

        job = threading.Thread(target=train)
        job.start()
        points = self.tracked(follow=True)
        job.join()
        self.assertEqual([step for step, values in points if "train/loss" in values], [1, 2, 3, 4, 5, 6])
        self.assertEqual(points[-1], (6, {"heldout/loss": 1.0}))

    def test_a_real_run(self):
        write_text(self.folder / "c4-train.00000-of-00001.json.gz", 100, seed=1)
        shards, out = self.folder / "shards", self.folder / "run"
        prepared = run("prepare", "--input", self.folder / "c4-train.*.json.gz", "--train-tokenizer", "320", "--heldout", "0.2", "--out", shards)
        self.assertEqual(prepared.returncode, 0, prepared.stderr)
        data = [f"data.train={shards}/train-*.h5", f"data.heldout={shards}/heldout-*.h5", f"run.dir={out}"]
        trained = run("train", *set_options([*MODEL, *data, "train.steps=3"]))
        self.assertEqual(trained.returncode, 0, trained.stderr)
        self.folder = out
        points = self.tracked(follow=True)  # which ends: the run is at its end
        self.assertEqual([step for step, values in points if "train/loss" in values], [1, 2, 3])
        self.assertTrue({"train/loss", "train/lr", "train/grad_norm", "speed/tokens_per_second", "speed/mfu"} <= set(points[0][1]))
        self.assertIn("heldout/loss", points[-1][1])
        self.assertEqual(Recorder.latest.config["train.steps"], 3)

    def test_errors_are_one_line(self):
        def refused(*words, folder=self.folder, environment=None):
            told = subprocess.run([sys.executable, "-B", SCRIPT, folder, "--to", "wandb"], capture_output=True, text=True, check=False,
                                  env={**os.environ, **(environment or {})})
            self.assertEqual((told.returncode, len(told.stderr.splitlines())), (1, 1), told.stderr)
            for word in words:
                self.assertIn(word, told.stderr)

        refused("metrics.jsonl: is not there", "--follow")
        refused("has no config.toml", "run.dir", folder=self.folder / "elsewhere")
        self.metrics.write_text(line(1))
        (self.folder / "no" / "wandb").mkdir(parents=True)
        (self.folder / "no" / "wandb" / "__init__.py").write_text("raise ImportError('absent', name='wandb')\n")
        refused("pip install wandb", environment={"PYTHONPATH": str(self.folder / "no")})
        (self.folder / "track.json").write_text("[]")
        refused("track.json: is damaged")
        (self.folder / "track.json").unlink()
        self.metrics.write_text(line(1) + "rubbish\n" + line(2))
        with self.assertRaisesRegex(track.Refused, "metrics.jsonl:2: is no line of metrics"):
            self.tracked()


if __name__ == "__main__":
    unittest.main()
