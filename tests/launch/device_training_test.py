"""The CUDA form of the program (on the host executor, its streams deferred, NCCL's stand-in between the ranks) trains like the
CPU back end, and gives the same bits whatever the order in which its streams run.

Tolerance. The CUDA back end rounds to bf16 (unit roundoff u = 2^-8, root mean square u / sqrt(3)) where the CPU keeps fp32;
sums are fp32 in both. On the way to a logit lie about 9 roundings a layer (norm, q k v, probabilities, their sum, projection,
residual; norm, gate and up, product, projection, residual) and 3 in the head. Independent errors add as the root of their
number r, so a logit of size s carries s u sqrt(r / 3), and a mean loss over M positions, each a difference of two such, about
s u sqrt(2 r / (3 M)); 4 of these are allowed. The logits' part without bias, which stays fp32, is below s = 2 in models a few
steps old. Updates carry the errors of their gradients on: one more such error in each step. What a wrong kernel or a missing
wait does to a loss is larger: a step's update alone moves it by more (checked)."""

import json
import math
import pathlib
import tempfile
import unittest

import end_to_end_test as text
from program import run

U = 2.0 ** -8
LAYERS = 2
STEPS = 5
LOGIT = 2.0
POSITIONS = 320  # of a step, and of the evaluation
MODEL = ["model.d_model=128", f"model.n_layers={LAYERS}", "model.n_heads=4", "model.n_kv_heads=2", "model.d_ff=96",
         "data.seq_len=40", "train.global_batch=8", "train.micro_batch=2", "optim.warmup_steps=2", "optim.lr=3e-3",
         f"train.steps={STEPS}"]
HEADS = {"dense": ["head.kind=dense"], "tied": ["head.kind=dense", "model.tie_embeddings=true"],
         "vq": ["head.kind=vq", "head.clusters=8", "head.groups=4", "head.codes=8", "head.map=frequency", "head.learning=commitment"]}


def tolerance(step):
    return 4 * LOGIT * U * math.sqrt(2 * (9 * LAYERS + 3) * step / (3 * POSITIONS))


class DeviceTraining(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        text.write_text(cls.folder / "c4-train.00000-of-00001.json.gz", 300, seed=1)
        result = run("prepare", "--input", cls.folder / "c4-train.*.json.gz", "--train-tokenizer", "320", "--heldout", "0.05",
                     "--out", cls.folder / "shards")
        assert result.returncode == 0, result.stderr

    def train(self, name, *settings, ranks=0, **environment):
        """The step losses, gradient norms and held-out losses of a run."""
        data = [f"data.train={self.folder}/shards/train-*.h5", f"data.heldout={self.folder}/shards/heldout-*.h5",
                "train.eval_tokens=320", f"run.dir={self.folder}/{name}"]
        result = run("train", *text.set_options([*MODEL, *data, *settings]), ranks=ranks, environment=environment, timeout=200)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.last_words = result.stderr
        lines = [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "loss" in line]
        self.assertEqual(len(steps), STEPS)
        return ([line["loss"] for line in steps], [line["grad_norm"] for line in steps],
                [line["heldout_loss"] for line in lines if "heldout_loss" in line])

    def test_a_grid_of_devices_trains_like_the_cpu(self):
        for name, head in HEADS.items():
            with self.subTest(head=name):
                losses, norms, heldout = self.train(f"{name}-cpu", *head, "run.device=cpu")
                grid = ["run.device=cuda", "parallel.tensor=2"]
                device = self.train(f"{name}-cuda", *head, *grid, ranks=4)
                self.assertIn("cuda:0", self.last_words)
                for step, (expected, actual) in enumerate(zip(losses, device[0]), 1):
                    self.assertAlmostEqual(actual, expected, delta=tolerance(step))
                for step, (expected, actual) in enumerate(zip(norms, device[1]), 1):
                    self.assertAlmostEqual(actual / expected, 1, delta=tolerance(step))
                self.assertAlmostEqual(device[2][-1], heldout[-1], delta=tolerance(STEPS + 1))
                self.assertGreater(losses[0] - losses[-1], 4 * tolerance(STEPS))  # else agreement would say little

    def test_order_of_streams_graphs_and_overlap_change_no_bit(self):
        head = [*HEADS["vq"], "run.device=cuda", "parallel.tensor=2"]
        first = self.train("first", *head, ranks=4, SIMT_SEED="1")
        for name, settings, seed in (("again", [], 7), ("direct", ["run.cuda_graphs=false"], 3),
                                     ("in-turn", ["parallel.overlap=false"], 5)):
            with self.subTest(run=name):
                self.assertEqual(self.train(name, *head, *settings, ranks=4, SIMT_SEED=str(seed)), first)


if __name__ == "__main__":
    unittest.main()
