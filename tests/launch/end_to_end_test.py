"""From text to an evaluated model with the program alone, and what it says to bad input on the way."""

import gzip
import json
import math
import pathlib
import random
import shutil
import struct
import tempfile
import unittest

from program import error_lines, run

MODEL = ["model.d_model=32", "model.n_layers=2", "model.n_heads=4", "model.d_ff=64", "data.seq_len=32",
         "train.global_batch=8", "train.micro_batch=2", "optim.warmup_steps=2", "run.device=cpu"]
VQ = ["head.kind=vq", "head.clusters=8", "head.members=codes", "head.input_codes=false", "head.groups=4", "head.codes=8", "head.map=corpus"]
DENSE = ["head.kind=dense"]
EVAL_KEYS = {"nll", "perplexity", "bits_per_byte", "tokens", "bytes", "documents", "nll_ci95", "bands"}
STEP_KEYS = {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "seconds_data", "seconds_head", "mfu"}


def write_text(path, documents, seed, words=400):
    """Documents of made-up words with Zipf-like frequencies, in C4's format."""
    rng = random.Random(seed)
    lexicon = ["".join(rng.choice("bcdfglmnprst") + rng.choice("aeiou") for _ in range(rng.randint(1, 4)))
               for _ in range(words)]
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for number in range(documents):
            text = " ".join(lexicon[int(words ** rng.random()) - 1] for _ in range(rng.randint(20, 120)))
            lines.write(json.dumps({"text": text + ".", "timestamp": "2020-01-01T00:00:00Z", "url": f"doc/{number}"}) + "\n")


def set_options(values):
    return [word for value in values for word in ("--set", value)]


class EndToEnd(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.addClassCleanup(cls.temporary.cleanup)
        write_text(cls.folder / "c4-train.00000-of-00001.json.gz", 600, seed=1)
        cls.prepare("shards", "--train-tokenizer", "320")

    @classmethod
    def prepare(cls, out, *tokenizer):
        result = run("prepare", "--input", cls.folder / "c4-train.*.json.gz", *tokenizer, "--heldout", "0.1",
                     "--out", cls.folder / out)
        assert result.returncode == 0, result.stderr

    def train(self, name, *more, ranks=0, steps=6, shards="shards", flags=()):
        data = [f"data.train={self.folder}/{shards}/train-*.h5", f"data.heldout={self.folder}/{shards}/heldout-*.h5",
                f"run.dir={self.folder}/{name}", f"train.steps={steps}"]
        return run("train", *set_options([*MODEL, *data, *more]), *flags, ranks=ranks)

    def evaluate(self, name, ranks=0, shards="shards"):
        out = self.folder / f"{name}-{ranks}.json"
        result = run("eval", "--checkpoint", self.folder / name, "--data", f"{self.folder}/{shards}/heldout-*.h5",
                     "--bands-from", f"{self.folder}/{shards}/train-*.h5", "--json", out, ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(out.read_text())

    def assert_succeeds(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)

    def assert_fails(self, result, exit_code, *words):
        self.assertEqual(result.returncode, exit_code, result.stderr)
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, result.stderr)
        for word in words:
            self.assertIn(word, lines[0])

    def metrics(self, name):
        return [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]

    def test_both_heads_train_on_a_grid_and_evaluate_alike_on_any_ranks(self):
        for kind, head in (("vq", VQ), ("dense", DENSE)):
            with self.subTest(head=kind):
                self.assert_succeeds(self.train(kind, *head, "parallel.tensor=2", ranks=4, steps=25))
                steps = [line for line in self.metrics(kind) if "loss" in line]
                self.assertEqual([line["step"] for line in steps], list(range(1, 26)))
                self.assertLessEqual(STEP_KEYS, set(steps[0]))
                self.assertLess(steps[-1]["loss"], steps[0]["loss"])
                alone = self.evaluate(kind)
                spread = self.evaluate(kind, ranks=3)
                self.assertLessEqual(EVAL_KEYS, set(alone))
                self.assertEqual(alone["nll"], spread["nll"])
                self.assertEqual(alone["bands"], spread["bands"])
                self.assertEqual(alone.get("parts"), spread.get("parts"))
                self.assertEqual("parts" in alone, kind == "vq")
                self.assertEqual([band["first_rank"] for band in alone["bands"]], [1, 17, 129])
                self.assertEqual(sum(band["tokens"] for band in alone["bands"]), alone["tokens"])
                self.assertLess(alone["bands"][0]["perplexity"], alone["bands"][1]["perplexity"])
                self.assertNotIn("nll", alone["bands"][2])  # byte pieces, which the text does not have
                self.assertGreater(alone["bands"][0]["share"], 0.2)
                self.assertAlmostEqual(sum(band["share"] * band.get("nll", 0) for band in alone["bands"]), alone["nll"], places=6)
                self.assertAlmostEqual(alone["perplexity"], math.exp(alone["nll"]), places=6)
                self.assertLess(alone["nll"], math.log(320))
                self.assertLess(alone["nll_ci95"][0], alone["nll"])
                self.assertGreater(alone["nll_ci95"][1], alone["nll"])
                shutil.copy(self.folder / f"{kind}-0.json", self.folder / kind / "eval.json")
        report = run("report", self.folder / "vq", self.folder / "dense")
        self.assert_succeeds(report)
        self.assertIn("vq K=8", report.stdout)

    def test_resume_goes_on_with_the_same_model_only(self):
        self.assert_succeeds(self.train("once", *DENSE, steps=3))
        self.assert_succeeds(self.train("once", *DENSE, steps=5, flags=["--resume"]))
        self.assertEqual(self.metrics("once")[-1]["step"], 5)
        self.assert_fails(self.train("once", *DENSE, "model.n_layers=3", flags=["--resume"]), 2, "model.n_layers = 3")

    def test_a_run_goes_on_by_its_own_configuration_on_other_ranks_and_logs_what_it_says(self):
        self.assert_succeeds(self.train("own", *VQ, steps=3))
        on = run("train", "--set", f"run.dir={self.folder}/own", "--set", "train.steps=5", "--resume", ranks=2)
        self.assert_succeeds(on)
        for words in (f"the configuration is {self.folder}/own/config.toml", "train.steps = 5, before 3", "parallel.data = 2, before 1"):
            self.assertIn(words, on.stderr)
        self.assertEqual(self.metrics("own")[-1]["step"], 5)
        log = (self.folder / "own" / "run.log").read_text().splitlines()
        begun = [line for line in log if line.startswith("vqlm ")]
        self.assertEqual(len(begun), 2)
        self.assertRegex(begun[0], r"^vqlm \d.*; host .* 1 ranks of \d+ threads; .*vqlm train --set")
        self.assertRegex(begun[1], "2 ranks of .* --resume$")
        said = [line.split("] ", 1)[1].partition(": ")[2] for line in log if "train.steps = 5, before 3" in line]
        self.assertEqual(said, ["train.steps = 5, before 3"])  # before the run began, and once
        self.assertTrue(any("step 5/5" in line for line in log[log.index(begun[1]) :]))
        self.assert_succeeds(self.train("own", *VQ, steps=2, flags=["--force"]))
        self.assertEqual(len([line for line in (self.folder / "own" / "run.log").read_text().splitlines() if line.startswith("vqlm ")]), 1)

    def test_a_run_that_moved_goes_on_where_it_is(self):
        self.assert_succeeds(self.train("old", *DENSE, steps=2))
        shutil.copytree(self.folder / "old", self.folder / "moved")
        resume = ["train", "--config", self.folder / "moved" / "config.toml", "--resume", *set_options(["train.steps=3"])]
        both = run(*resume)
        self.assert_succeeds(both)
        self.assertIn("holds another: going on with", both.stderr)
        self.assertEqual((self.metrics("old")[-1]["step"], self.metrics("moved")[-1]["step"]), (3, 2))
        shutil.rmtree(self.folder / "old")
        moved = run(*resume)
        self.assert_succeeds(moved)
        self.assertIn("holds none: going on with", moved.stderr)
        self.assertEqual(self.metrics("moved")[-1]["step"], 3)
        self.assertFalse((self.folder / "old").exists())

    def test_a_jump_of_the_rate_is_told(self):
        self.assert_succeeds(self.train("longer", *DENSE, steps=6))
        same = self.train("longer", *DENSE, steps=6, flags=["--resume"])
        self.assertNotIn("the learning rate goes from", same.stderr)
        longer = self.train("longer", *DENSE, steps=12, flags=["--resume"])
        self.assertRegex(longer.stderr, r"warn.*the learning rate goes from \S+ at step 6 to \S+ at step 7")

    def test_held_out_shards_are_not_trained_on(self):
        self.assert_fails(self.train("both", *DENSE, f"data.train={self.folder}/shards/*.h5"), 2, "both name",
                          "heldout-00000.h5")

    def test_a_padded_vocabulary_goes_on(self):
        self.assert_succeeds(self.train("padded", *DENSE, "model.vocab_size=384", steps=2))
        init = self.train("padded-on", *DENSE, "model.vocab_size=384", steps=2, flags=["--init", self.folder / "padded"])
        self.assert_succeeds(init)
        self.assert_succeeds(self.train("padded-on", *DENSE, "model.vocab_size=384", steps=3, flags=["--resume"]))

    def test_what_cannot_be_read_again_is_refused(self):
        self.assert_fails(self.train("tiny", *DENSE, "optim.eps=1e-50"), 2, "optim.eps = 1e-50", "32-bit")

    def test_shards_that_do_not_fit(self):
        write_text(self.folder / "c4-train.other.json.gz", 300, seed=9)
        self.addCleanup((self.folder / "c4-train.other.json.gz").unlink)
        self.prepare("other", "--train-tokenizer", "330")
        self.assert_succeeds(self.train("fits", *DENSE, steps=2))
        other = f"{self.folder}/other/heldout-*.h5"
        self.assert_fails(run("eval", "--checkpoint", self.folder / "fits", "--data", other), 1, "tokenize", other)
        self.assert_fails(self.train("mixed", *DENSE, f"data.heldout={other}"), 1, "tokenize", other)

    def test_ids_that_another_tokenizer_made(self):
        rng = random.Random(3)
        ids = [token for _ in range(400) for token in (*(rng.randint(1, 99) for _ in range(rng.randint(5, 40))), 0)]
        header = "{'descr': '<u2', 'fortran_order': False, 'shape': (%d,), }\n" % len(ids)
        (self.folder / "ids.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack(f"<H{len(header)}s{len(ids)}H", len(header), header.encode(), *ids))
        prepared = run("prepare", "--from-tokens", self.folder / "ids.npy", "--vocab-size", "100", "--eos", "0", "--heldout", "0.1", "--out", self.folder / "ids")
        self.assert_succeeds(prepared)
        self.assertIn("n/a", prepared.stdout)
        self.assert_succeeds(self.train("of_ids", *DENSE, "train.eval_every=3", shards="ids", steps=3))
        heldout = [line for line in self.metrics("of_ids") if "heldout_loss" in line]
        self.assertTrue(heldout)
        self.assertNotIn("heldout_bits_per_byte", heldout[-1])
        result = self.evaluate("of_ids", shards="ids")
        self.assertLess(result["nll"], 10)
        self.assertLessEqual(EVAL_KEYS - {"bits_per_byte", "bytes"}, set(result))
        self.assertFalse({"bits_per_byte", "bytes"} & set(result))
        raw = self.folder / "train.bin"
        raw.write_bytes(struct.pack(f"<{len(ids)}H", *ids))
        self.assert_fails(run("prepare", "--from-tokens", raw, "--vocab-size", "100", "--out", self.folder / "raw"), 1, "train.bin", "--dtype uint16")

    def test_a_truncated_shard(self):
        shutil.copytree(self.folder / "shards", self.folder / "cut")
        shard = sorted((self.folder / "cut").glob("train-*.h5"))[0]
        data = shard.read_bytes()
        for kept in (0, 100, len(data) // 2, len(data) - 1):
            with self.subTest(kept=kept):
                shard.write_bytes(data[:kept])
                self.assert_fails(self.train(f"cut-{kept}", *DENSE, shards="cut"), 1, shard.name, "prepare")
                self.assertFalse((self.folder / f"cut-{kept}").exists())

    def test_a_grid_that_does_not_fit(self):
        self.assert_fails(self.train("heads", *DENSE, "model.n_heads=2", "parallel.tensor=4", ranks=4), 2,
                          "n_heads = 2", "tensor = 4")
        self.assert_fails(self.train("ranks", *DENSE, "parallel.data=3", ranks=2), 2, "3", "2 ranks")
        self.assertFalse((self.folder / "heads").exists())

    def test_a_folder_that_is_no_checkpoint(self):
        self.assert_fails(run("eval", "--checkpoint", self.folder, "--data", f"{self.folder}/shards/heldout-*.h5"), 1,
                          str(self.folder), "manifest.json")


if __name__ == "__main__":
    unittest.main()
