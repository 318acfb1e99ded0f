"""Runs of the program's CUDA form on a small model, for the tests that compare them, and how far they may differ.

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
from program import error_lines, run

U = 2.0 ** -8
LAYERS = 2
LOGIT = 2.0
POSITIONS = 320  # of a step, and of the evaluation
MODEL = ["model.d_model=128", f"model.n_layers={LAYERS}", "model.n_heads=4", "model.n_kv_heads=2", "model.d_ff=96",
         "data.seq_len=40", "train.global_batch=8", "train.micro_batch=2", "optim.warmup_steps=2", "optim.lr=3e-3",
         "optim.embedding_lr_ratio=1"]
HEADS = {"dense": ["head.kind=dense"], "capped": ["head.kind=dense", "head.softcap=8"],
         "tied": ["head.kind=dense", "model.tie_embeddings=true"],
         "low_rank": ["head.kind=low_rank", "head.rank=24"],
         "low_rank_tied": ["head.kind=low_rank", "head.rank=24", "model.tie_embeddings=true"],
         "adaptive": ["head.kind=adaptive", "head.cutoffs=[6,14]"],
         "vq": ["head.kind=vq", "head.clusters=8", "head.members=codes", "head.input_codes=false", "head.groups=4", "head.codes=8", "head.map=frequency", "head.learning=commitment"],
         "vq_ema": ["head.kind=vq", "head.clusters=8", "head.members=codes", "head.input_codes=false", "head.groups=4", "head.codes=8", "head.map=frequency", "head.learning=ema"],
         "vq_embedding": ["head.kind=vq", "head.clusters=8", "head.map=frequency", "head.members=embedding", "head.member_mean=false",
                          "head.input_codes=false"],
         "vq_embedding_mean": ["head.kind=vq", "head.clusters=9", "head.map=frequency", "head.members=embedding",
                          "head.member_mean=true", "head.input_codes=true"],
         "future_dense": ["head.kind=dense", "head.future=2"],
         "future_vq": ["head.kind=vq", "head.clusters=9", "head.map=frequency", "head.future=2"],
         "qwen": ["head.kind=dense", "model.head_dim=64", "model.attention_bias=true", "model.qk_norm=head"],
         "olmo": ["head.kind=dense", "model.qk_norm=width", "model.norm_placement=post"],
         "gemma": ["head.kind=dense", "model.tie_embeddings=true", "model.qk_norm=head", "model.norm_placement=both",
                   "model.activation=geglu", "model.embedding_scale=11", "model.attention_scale=24", "model.window=9",
                   "model.window_pattern=2", "model.window_rope_theta=100"],
         "tables": ["head.kind=vq", "head.clusters=9", "head.map=frequency", "data.document_mask=true",
                    "input.tables=[{order=2,rows=301},{order=3,rows=64}]", "optim.input_tables_update=dense"],
         "tables_by_rows": ["head.kind=dense", "input.tables=[{order=2,rows=301},{order=3,rows=64}]",
                            "optim.embedding_update=rows", "optim.embedding_decay_ratio=0"],
         "muon": ["head.kind=dense", "model.tie_embeddings=true", "optim.kind=muon"]}
GRID = ["run.device=cuda", "parallel.tensor=2"]  # with four ranks: 2 x 2


def tolerance(step):
    return 4 * LOGIT * U * math.sqrt(2 * (9 * LAYERS + 3) * step / (3 * POSITIONS))


class DeviceRuns(unittest.TestCase):
    """A folder with shards in folder/shards; a run NAME is in folder/NAME."""

    vocabulary = "320"

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        text.write_text(cls.folder / "c4-train.00000-of-00001.json.gz", 300, seed=1)
        result = run("prepare", "--input", cls.folder / "c4-train.*.json.gz", "--train-tokenizer", cls.vocabulary, "--heldout", "0.05",
                     "--out", cls.folder / "shards")
        assert result.returncode == 0, result.stderr

    def options(self, name, *settings):
        """The words after `vqlm train`."""
        data = [f"data.train={self.folder}/shards/train-*.h5", f"data.heldout={self.folder}/shards/heldout-*.h5",
                f"train.eval_tokens={POSITIONS}", f"run.dir={self.folder}/{name}"]
        return text.set_options([*MODEL, *data, *settings])

    def start(self, name, *settings, ranks=0, flags=(), timeout=200, **environment):
        return run("train", *self.options(name, *settings), *flags, ranks=ranks, environment=environment, timeout=timeout)

    def train(self, name, *settings, ranks=0, flags=(), **environment):
        """The step losses, gradient norms and held-out losses of a run that must succeed."""
        result = self.start(name, *settings, ranks=ranks, flags=flags, **environment)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.last_words = result.stderr
        return self.history(name)

    def metrics(self, name):
        return [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]

    def history(self, name):
        steps = [line for line in self.metrics(name) if "loss" in line]
        first = steps[0]["step"]  # 1, but for a fork
        self.assertEqual([line["step"] for line in steps], list(range(first, first + len(steps))))
        return ([line["loss"] for line in steps], [line["grad_norm"] for line in steps],
                [line["heldout_loss"] for line in self.metrics(name) if "heldout_loss" in line])

    def assert_alike(self, actual, expected):
        """Two histories agree within the tolerance; held-out losses: the last."""
        for what in (actual, expected):
            self.assertEqual([len(part) for part in what[:2]], [len(expected[0])] * 2)
        for step, (loss, expected_loss) in enumerate(zip(actual[0], expected[0]), 1):
            self.assertAlmostEqual(loss, expected_loss, delta=tolerance(step))
        for step, (norm, expected_norm) in enumerate(zip(actual[1], expected[1]), 1):
            self.assertAlmostEqual(norm / expected_norm, 1, delta=tolerance(step))
        self.assertAlmostEqual(actual[2][-1], expected[2][-1], delta=tolerance(len(expected[0]) + 1))

    def assert_fails(self, result, *words):
        """Exit code 1 and one error line with the words."""
        self.assertEqual(result.returncode, 1, result.stderr)
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, result.stderr)
        for word in words:
            self.assertIn(word, lines[0])
