"""The twin's dense, tied and VQ rows against this program's: starting weights, losses, gradient norms and held-out losses of 20
steps. Bounds: the twin in double differs by this program's float32 rounding alone, for which runs on different grids allow 1e-5
relative over 20 steps (docs/architecture.md, Numbers); in float32 both round, and rotary angles, up to seq_len = 64, are float32,
too (64 * 6e-8 = 4e-6 radians): 1e-4. Gradient norms are of smaller numbers, which cancel: ten times each."""

import functools
import itertools
import json
import pathlib
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "interop")]

from interop import np, torch  # noqa: E402  goes on in the environment of tests/interop/setup.sh, or skips
from trained import MODEL, RUNS, Trained, set_options  # noqa: E402

from settings import Settings, TwinError  # noqa: E402
from twin import Twin  # noqa: E402

ROWS = {"dense": RUNS["dense_bias"][0], "tied": RUNS["tied_bias"][0], "vq": RUNS["vq_embedding_mean"][0], "low_rank": RUNS["low_rank"][0], "adaptive": RUNS["adaptive"][0], "tables": RUNS["tables"][0],
        "tables_whole": [*RUNS["tables"][0], "optim.input_tables_update=dense", "optim.input_tables_decay_ratio=1"]}
STEPS = 20


class Agreement(Trained):
    numbers = itertools.count()

    @classmethod
    @functools.lru_cache
    def ours(cls, name, *more, init=None):
        """A run's folder, and its lines of metrics.jsonl. Trained once for all tests."""
        run = cls.folder / f"{name}-{next(cls.numbers)}"
        shards = cls.folder / "shards"
        data = [f"data.train={shards}/train-*.h5", f"data.heldout={shards}/heldout-*.h5", f"run.dir={run}"]
        start = ["--init", init] if init else []
        cls.succeed("train", *start, *set_options([*MODEL, f"train.steps={STEPS}", "train.grad_clip=0.5", *ROWS[name], *data, *more]))
        return run, [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    def compare(self, name, dtype, bound, *more):
        run, lines = self.ours(name, *more)
        steps = [line for line in lines if "loss" in line]
        twin = Twin(Settings(run), dtype=dtype)
        self.assertEqual(len(steps), twin.settings["train.steps"])
        worst = 0.0
        for line in steps:
            loss, norm = twin.train_step(line["step"])
            worst = max(worst, abs(loss / line["loss"] - 1), abs(norm / line["grad_norm"] - 1) / 10)
        heldout = next(line for line in lines if "heldout_loss" in line)
        nll, tokens = twin.evaluate()
        self.assertEqual(tokens, heldout["heldout_tokens"])
        worst = max(worst, abs(nll / heldout["heldout_loss"] - 1))
        print(f"{name}, {dtype}: loss {steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}, largest relative difference {worst:.1e}")
        self.assertLess(worst, bound, name)
        self.assertLess(steps[-1]["loss"], steps[0]["loss"] - 0.2)  # it has learned something
        return twin

    def test_losses_in_double(self):
        for name in ROWS:
            with self.subTest(name):
                self.compare(name, torch.float64, 1e-5)

    def test_losses_in_float32(self):
        self.compare("vq", torch.float32, 1e-4)

    def test_order_over_epochs(self):
        """Of little text, the held-out shards; and an evaluation that ends early."""
        shards = self.folder / "shards"
        twin = self.compare("dense", torch.float64, 1e-5, f"data.train={shards}/heldout-*.h5", f"data.heldout={shards}/train-*.h5",
                            "train.eval_tokens=1000")
        self.assertGreater(STEPS * 8 / ((len(twin.train.tokens) - 1) // 64), 1.2, "epochs")

    def test_start(self):
        """A step at a rate that changes nothing leaves the weights that a run starts with."""
        run, _ = self.ours("vq", "train.steps=1", "optim.lr=1e-30", "optim.warmup_steps=0")
        out = self.folder / "start.npz"
        self.succeed("convert", "--to", "npz", "--checkpoint", run, "--out", out)
        theirs = dict(np.load(out))
        twin = Twin(Settings(run))
        np.testing.assert_array_equal(theirs.pop("vq_head.cluster_of_token"), twin.head.cluster)
        ours = twin.w
        self.assertEqual(set(theirs), set(ours))
        for tensor, value in theirs.items():
            # Logarithm, cosine: their float functions may differ by a unit in the last place, 2^-23 relative, each.
            np.testing.assert_allclose(ours[tensor].detach().numpy(), value, rtol=3e-7, atol=1e-9, err_msg=tensor)

    def test_lines(self):
        """A run is one line; what is there is not done again; a probe adds to it."""
        run, lines = self.ours("vq")
        out = self.folder / "rows.jsonl"
        command = [sys.executable, "-B", str(HERE / "twin.py"), str(run), "--out", str(out)]
        told = [subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
                for more in ([], ["--head", "tied", "--input", "ngram:rows=64", "--set", "train.steps=4", "--probe", "share:rows=3"], [])]
        self.assertIn("already", told[2])
        first, second = (json.loads(line) for line in out.read_text().splitlines())
        self.assertEqual([first[key] for key in ("row", "seed", "steps")], ["vq", 1, STEPS])
        heldout = next(line for line in lines if "heldout_loss" in line)
        self.assertAlmostEqual(first["heldout_nll"] / heldout["heldout_loss"], 1, delta=1e-4)
        self.assertAlmostEqual(first["heldout_perplexity"] / heldout["heldout_perplexity"], 1, delta=1e-3)
        self.assertEqual(second["row"], "tied+ngram:rows=64")
        self.assertEqual(first["parameters"] - second["parameters"], 2 * 8 * 32 + 8 - 64 * 32)  # codes at both ends, their biases; rows
        self.assertTrue(0 < second["gradient_share"] < 1)

    def test_what_it_has_not_is_refused(self):
        run, _ = self.ours("dense")
        with self.assertRaisesRegex(TwinError, "optim.kind = 'muon': the twin has 'adamw' alone"):
            Settings(run, ["optim.kind=muon"])
        begun, _ = self.ours("dense", init=run)
        with self.assertRaisesRegex(TwinError, "run.began_from = .*: the twin has '' alone"):
            Settings(begun)
        with self.assertRaisesRegex(TwinError, "no key"):
            Settings(run, ["optim.rate=1"])
        with self.assertRaisesRegex(TwinError, "no code map"):
            Twin(Settings(run), "vq")


if __name__ == "__main__":
    unittest.main(verbosity=2)
