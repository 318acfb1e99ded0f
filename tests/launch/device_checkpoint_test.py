"""What the CUDA form of the program saves is the whole model and its optimizer: on a grid of devices most copies of a parameter
in fp32 are not up to date (matrices travel between the ranks in bf16), and the checkpoint must hold the ones that are."""

import json
import shutil
import unittest

from device_runs import GRID, HEADS, POSITIONS, DeviceRuns, tolerance
from program import run

STEPS = 4
SAVED = 2
SETTINGS = [f"train.steps={STEPS}", f"checkpoint.every={SAVED}", "checkpoint.keep=0"]


class DeviceCheckpoint(DeviceRuns):
    def evaluate(self, name, *flags, ranks=0, **environment):
        out = self.folder / "eval.json"
        result = run("eval", "--checkpoint", self.folder / name, "--data", f"{self.folder}/shards/heldout-*.h5",
                     "--max-tokens", POSITIONS, "--json", out, *flags, ranks=ranks, environment=environment)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(out.read_text())["nll"]

    def resume(self, name, *settings, ranks=0):
        """The history of a run that goes on where run `name` was at step SAVED."""
        stopped = self.folder / f"{name}-resumed"
        shutil.copytree(self.folder / name, stopped)
        shutil.rmtree(stopped / f"checkpoints/step-{STEPS:08}")
        history = self.train(stopped.name, *SETTINGS, *settings, ranks=ranks, flags=["--resume"])
        self.assertIn(f"continuing after step {SAVED}", self.last_words)
        shutil.rmtree(stopped)
        return history

    def test_a_checkpoint_of_a_grid_evaluates_and_resumes_on_any(self):
        for name in ("dense", "vq"):
            head = HEADS[name]
            trained = self.train(name, *SETTINGS, *head, *GRID, ranks=4)
            # Copies of step 1 would show: the updates since then move the loss by more than is allowed below.
            self.assertGreater(trained[0][0] - trained[0][-1], 4 * tolerance(STEPS))
            with self.subTest(head=name, eval="cpu"):
                actual = self.evaluate(name, "--device", "cpu")
                self.assertAlmostEqual(actual, trained[2][-1], delta=tolerance(1))
                # Unasked where no GPU is, though the run's configuration names one.
                self.assertEqual(self.evaluate(name, CUDA_VISIBLE_DEVICES=""), actual)
            with self.subTest(head=name, eval="devices"):
                # The same bf16 values, but other tiles: fp32 sums in another order, seen where they round to bf16.
                actual = self.evaluate(name, "--device", "cuda", "--tensor", "2", ranks=2)
                self.assertAlmostEqual(actual, trained[2][-1], delta=tolerance(1))
            with self.subTest(head=name, resume="2x2"):
                self.assertEqual(self.resume(name, *head, *GRID, ranks=4), trained)
            for grid, ranks in ((["run.device=cuda", "parallel.tensor=2"], 2), (["run.device=cuda", "parallel.data=4"], 4),
                                (["run.device=cpu"], 0)):
                with self.subTest(head=name, resume=grid, ranks=ranks):
                    self.assert_alike(self.resume(name, *head, *grid, ranks=ranks), trained)

    def test_a_head_changes_on_devices_as_on_the_cpu(self):
        self.train("before", *SETTINGS, *HEADS["vq_embedding_mean"], *GRID, ranks=4)
        fork = ["--resume-from", self.folder / f"before/checkpoints/step-{SAVED:08}"]
        expected = self.train("after-cpu", *SETTINGS, "head.kind=dense", "run.device=cpu", flags=fork)
        self.assertEqual(len(expected[0]), STEPS - SAVED)
        self.assert_alike(self.train("after", *SETTINGS, "head.kind=dense", *GRID, ranks=4, flags=fork), expected)


if __name__ == "__main__":
    unittest.main()
