"""Where a run goes on: in its own folder, which must be there unless told otherwise, or from a checkpoint in a folder of its own."""

import json
import pathlib
import tempfile
import unittest

from end_to_end_test import MODEL, VQ, set_options, write_text
from program import error_lines, run

STEPS = 12


class ForkRuns(unittest.TestCase):
    """A run of STEPS steps with a checkpoint every four, and what tests of forks of it share."""

    HEAD = VQ

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        write_text(cls.folder / "c4-train.00000-of-00001.json.gz", 300, seed=1)
        prepared = run("prepare", "--input", cls.folder / "c4-train.*.json.gz", "--train-tokenizer", "320", "--out", cls.folder / "shards")
        assert prepared.returncode == 0, prepared.stderr
        cls.whole = cls.folder / "runs" / "whole"
        made = cls.begin("whole")
        assert made.returncode == 0, made.stderr

    @classmethod
    def begin(cls, name, *flags, steps=STEPS, ranks=0):
        settings = [*MODEL, *cls.HEAD, f"data.train={cls.folder}/shards/train-*.h5", f"run.dir={cls.folder}/runs/{name}", f"train.steps={steps}",
                    "checkpoint.every=4", "checkpoint.keep=0"]
        return run("train", *set_options(settings), *flags, ranks=ranks)

    def fork(self, name, *more, source="checkpoints/step-00000008", ranks=0, flags=()):
        return run("train", "--resume-from", self.whole / source, *set_options([f"run.dir={self.folder}/runs/{name}", *more]), *flags, ranks=ranks)

    def losses(self, name):
        lines = (self.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
        return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}

    def assert_fails(self, result, *words):
        self.assertEqual(result.returncode, 2, result.stderr)
        line = "".join(error_lines(result))
        for word in words:
            self.assertIn(word, line)


class Fork(ForkRuns):
    def test_a_fork_is_the_run_from_there_on(self):
        result = self.fork("fork")
        self.assertEqual(result.returncode, 0, result.stderr)
        whole, forked = self.losses("whole"), self.losses("fork")
        self.assertEqual(forked, {step: whole[step] for step in range(9, STEPS + 1)})
        source = f"{self.whole}/checkpoints/step-00000008"
        self.assertIn(f'began_from = "{source}"', (self.folder / "runs/fork/config.toml").read_text())
        self.assertIn('name = "fork"', (self.folder / "runs/fork/config.toml").read_text())
        self.assertIn(f"goes on from {source} (step 8", (self.folder / "runs/fork/run.log").read_text())
        longer = run("train", "--resume", *set_options([f"run.dir={self.folder}/runs/fork", "train.steps=13"]))
        self.assertEqual(longer.returncode, 0, longer.stderr)
        self.assertNotIn("began_from", longer.stderr)
        self.assertIn(f'began_from = "{source}"', (self.folder / "runs/fork/config.toml").read_text())
        self.assertEqual(sorted(self.losses("fork")), list(range(9, 14)))

    def test_a_fork_on_another_grid_with_another_rate(self):
        result = self.fork("wide", "optim.lr=1e-4", "parallel.tensor=2", ranks=2)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("optim.lr = 0.0001, before 0.001", result.stderr)
        whole, forked = self.losses("whole"), self.losses("wide")
        self.assertAlmostEqual(forked[9] / whole[9], 1, delta=1e-5)  # the same samples by the same parameters
        self.assertNotAlmostEqual(forked[12] / whole[12], 1, delta=1e-5)

    def test_a_fork_in_a_job_script_goes_on_with_itself(self):
        cut = self.fork("queued", "train.steps=10", flags=["--resume=auto"])
        self.assertEqual(cut.returncode, 0, cut.stderr)
        on = self.fork("queued", f"train.steps={STEPS}", flags=["--resume=auto"])
        self.assertEqual(on.returncode, 0, on.stderr)
        self.assertIn("continuing after step 10", on.stderr)
        self.assertEqual(sorted(self.losses("queued")), list(range(9, STEPS + 1)))

    def test_a_fork_of_a_run_takes_its_newest_checkpoint(self):
        result = self.fork("newest", "train.steps=13", source="")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sorted(self.losses("newest")), [13])

    def test_forks_that_are_refused(self):
        self.assert_fails(self.fork("whole", flags=["--force"]), "the run itself")
        self.assert_fails(self.fork("other", flags=["--resume"]), "one of them")
        self.assert_fails(self.fork("other", source="checkpoints/step-00000009"), "no config.toml is there")
        self.assert_fails(run("train", "--resume-from", self.whole), "--set run.dir=FOLDER")
        self.assert_fails(self.fork("other", "train.seed=2"), "train.seed = 2", "samples")
        self.assertEqual(len(self.losses("whole")), STEPS)

    def test_a_mistyped_run_is_not_begun(self):
        for flags in (["--resume"], ["--resume", "--config", self.whole / "config.toml"],
                      ["--resume", *set_options([*MODEL, *VQ, f"data.train={self.folder}/shards/train-*.h5"])]):
            result = run("train", *flags, "--set", f"run.dir={self.folder}/runs/wole")
            self.assert_fails(result, f"run.dir = {self.folder}/runs/wole", f"runs near it: {self.folder}/runs/whole")
            self.assertFalse((self.folder / "runs" / "wole").exists())
        self.assert_fails(run("train", "--resume=maybe", "--set", f"run.dir={self.whole}"), "--resume=maybe", "--resume=auto")

    def test_auto_begins_and_goes_on(self):
        for steps in (4, 6):
            result = self.begin("auto", "--resume=auto", steps=steps)
            self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("continuing after step 4", result.stderr)
        self.assertEqual(sorted(self.losses("auto")), list(range(1, 7)))


if __name__ == "__main__":
    unittest.main()
