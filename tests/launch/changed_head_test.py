"""Runs that go on with another head: what is kept, on every grid, and that they resume to the bit."""

import tomllib
import unittest

from fork_test import ForkRuns
from program import run

EMBEDDING = ["head.kind=vq", "head.clusters=8", "head.members=embedding", "head.map=corpus"]
TIED = ["head.kind=dense", "model.tie_embeddings=true"]


class HeadRuns(ForkRuns):
    def go_on(self, name, *settings, source="checkpoints/step-00000008", run_of=None, ranks=0):
        result = run("train", "--resume-from", (run_of or self.whole) / source,
                     "--set", f"run.dir={self.folder}/runs/{name}", *sum((["--set", each] for each in settings), []), ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def config(self, name):
        return tomllib.loads((self.folder / "runs" / name / "config.toml").read_text())


class ChangedHead(HeadRuns):
    HEAD = EMBEDDING

    def test_vq_goes_on_as_dense_on_every_grid_and_comes_back(self):
        for name, head in (("untied", ["head.kind=dense"]), ("tied", TIED)):
            with self.subTest(head=name):
                told = self.go_on(name, *head).stderr
                self.assertIn("the moments of its own parameters start at 0", told)
                self.assertIn("continuing after step 8", told)
                losses = self.losses(name)
                self.assertEqual(sorted(losses), list(range(9, 13)))
                # The same samples by nearly the same model: far from where a run of new parameters begins.
                self.assertLess(abs(losses[9] - self.losses("whole")[9]), 0.2 if name == "untied" else 1)
                self.assertEqual(self.config(name)["run"]["head_since"], 8)
                for grid in (["parallel.tensor=2"], ["parallel.data=2"]):
                    self.go_on(f"{name}-{grid[0]}", *head, *grid, ranks=2)
                    for step, loss in self.losses(f"{name}-{grid[0]}").items():
                        self.assertAlmostEqual(loss / losses[step], 1, delta=1e-5)

    def test_what_goes_on_resumes_to_the_bit_and_remembers_when_its_head_began(self):
        self.go_on("long", *TIED, "train.steps=14", "checkpoint.every=2")
        self.go_on("cut", *TIED, "train.steps=14", "checkpoint.every=2", source="checkpoints/step-00000010",
                   run_of=self.folder / "runs/long")
        self.assertEqual(self.losses("cut"), {step: loss for step, loss in self.losses("long").items() if step > 10})
        self.assertEqual(self.config("cut")["run"]["head_since"], 8)
        on = run("train", "--resume", "--set", f"run.dir={self.folder}/runs/cut", "--set", "train.steps=16", "--set", "parallel.tensor=2",
                 ranks=2)
        self.assertEqual(on.returncode, 0, on.stderr)
        self.assertEqual(sorted(self.losses("cut")), list(range(11, 17)))
        self.assertEqual(self.config("cut")["run"]["head_since"], 8)
        replayed = run("replay", "--run", self.folder / "runs/long", "--step", "9")
        self.assertEqual(replayed.returncode, 0, replayed.stderr)
        self.assertEqual(replayed.stdout.count("the same to the bit"), 2)
        planned = run("plan", "--config", self.folder / "runs/long/config.toml", "--dtype", "fp32")
        self.assertEqual(planned.returncode, 0, planned.stderr)
        back = self.go_on("back", *EMBEDDING, "train.steps=14", source="checkpoints/step-00000012", run_of=self.folder / "runs/long")
        self.assertIn("making the code map", back.stderr)
        self.assertLess(abs(self.losses("back")[13] - self.losses("long")[13]), 0.2)
        self.assertEqual(self.config("back")["run"]["head_since"], 12)

    def test_muons_momentum_goes_on_too(self):
        begun = self.begin("muon", "--set", "optim.kind=muon", steps=8)
        self.assertEqual(begun.returncode, 0, begun.stderr)
        self.go_on("muon-dense", "head.kind=dense", "train.steps=12", run_of=self.folder / "runs/muon")
        self.assertLess(abs(self.losses("muon-dense")[9] - self.losses("muon")[8]), 0.5)
        other = run("train", "--resume-from", self.folder / "runs/muon", "--set", f"run.dir={self.folder}/runs/no", "--set", "head.kind=dense",
                    "--set", "optim.kind=adamw", "--set", "train.steps=12")
        self.assert_fails(other, "optim.kind")

    def test_a_run_itself_keeps_its_head(self):
        result = run("train", "--resume", "--set", f"run.dir={self.whole}", "--set", "head.kind=dense", "--set", "train.steps=20")
        self.assert_fails(result, "--resume-from", "another run.dir")
        result = run("train", "--resume-from", self.whole, "--set", f"run.dir={self.folder}/runs/no", "--set", "head.kind=dense",
                     "--set", "head.bias=false", "--set", "train.steps=20")
        self.assert_fails(result, "head.bias = true")
        result = run("train", "--resume-from", self.whole, "--set", f"run.dir={self.folder}/runs/no", "--set", "head.kind=dense",
                     "--set", "model.rope_theta=5", "--set", "train.steps=20")
        self.assert_fails(result, "model.rope_theta")


class LowRank(HeadRuns):
    HEAD = ["head.kind=low_rank", "head.rank=8"]

    def test_it_goes_on_as_the_dense_head_that_it_equals(self):
        self.go_on("dense", "head.kind=dense")
        losses = self.losses("dense")
        self.assertEqual(sorted(losses), list(range(9, 13)))
        # The same loss of the same samples, made before the update.
        self.assertAlmostEqual(losses[9] / self.losses("whole")[9], 1, delta=1e-5)
        self.go_on("dense-grid", "head.kind=dense", "parallel.tensor=2", ranks=2)
        for step, loss in self.losses("dense-grid").items():
            self.assertAlmostEqual(loss / losses[step], 1, delta=1e-5)

    def test_what_it_cannot_become_is_refused(self):
        for settings, words in ((["head.kind=vq"], 'set head.kind = "dense"'), (TIED, "model.tie_embeddings = false")):
            result = run("train", "--resume-from", self.whole, "--set", f"run.dir={self.folder}/runs/no", "--set", "train.steps=20",
                         *sum((["--set", each] for each in settings), []))
            self.assert_fails(result, words)


if __name__ == "__main__":
    unittest.main()
