"""vqlm plan: computed without hardware and data, printed for people and as JSON; what is wrong is said in one line."""

import json
import pathlib
import random
import tempfile
import unittest

from program import SOURCE_DIR, error_lines, run

CONFIG = f"{SOURCE_DIR}/configs/gpt2-small-dense.toml"


class Plan(unittest.TestCase):
    def plan(self, *arguments):
        """The plan's words and its JSON."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "plan.json"
            result = run("plan", *arguments, "--json", path)
            plan = json.loads(path.read_text(encoding="utf-8"))
            fits = plan.get("fits", True)
            self.assertEqual(result.returncode, 0 if fits else 1, result.stderr)
            if not fits:
                self.assertIn("does not fit", error_lines(result)[0])
            return result.stdout, plan

    def assert_refused(self, words, *arguments):
        result = run("plan", *arguments)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(len(error_lines(result)), 1, result.stderr)
        for word in words:
            self.assertIn(word, error_lines(result)[0])

    def test_what_fits(self):
        text, plan = self.plan("--config", CONFIG, "--vocab", 50257, "--grid", "8x2", "--device-memory", "80GB")
        self.assertIn(": fits", text)
        self.assertIn("stated, not measured", text)
        self.assertIn("--grid 8x2 replaces", text)
        self.assertEqual(plan["grid"], {"data": 8, "tensor": 2, "ranks": 16})
        self.assertTrue(plan["fits"])
        self.assertEqual(plan["device_memory_bytes"], 80_000_000_000)
        memory = plan["memory_bytes"]
        self.assertEqual(sum(memory[use] for use in memory if use != "total"), memory["total"])
        groups = {(entry["group"], entry["ranks"]) for entry in plan["collectives"]}
        self.assertEqual(groups, {("data", 8), ("tensor", 2), ("world", 16)})
        seconds = plan["seconds"]
        self.assertLess(seconds["step"], seconds["step_without_overlap"])
        self.assertAlmostEqual(plan["tokens_per_second"] * seconds["step"], plan["tokens_per_step"], delta=1)
        self.assertTrue(0 < plan["mfu"] < 1)

    def test_a_tensor_group_exchanges_for_members_of_the_embedding_what_a_tied_dense_head_does(self):
        def sent(*head):
            keys = ["model.d_model=768", "model.n_heads=12", *head]
            _, plan = self.plan("--vocab", 50257, "--grid", "1x4", *[word for key in keys for word in ("--set", key)])
            bytes_sent = sum(entry["sent_bytes"] for entry in plan["collectives"] if entry["group"] == "tensor")
            return bytes_sent, plan["micro_batches"]

        tied, micro_batches = sent("head.kind=dense", "model.tie_embeddings=true", "head.bias=false")
        members, _ = sent("head.kind=vq", "head.clusters=256")
        # The clusters' means and their gradient besides, (256, 768) in f32, of which an all-reduce over 4 sends 3 / 2.
        means = 2 * micro_batches * 256 * 768 * 4 * 3 / 2
        # Targets and statistics are exchanged by both, the members' not by chunks: less than 1 % of all.
        self.assertAlmostEqual(members, tied + means, delta=0.01 * tied)
        self.assertLess(means, 0.1 * tied)

    def test_what_does_not_fit_and_the_changes_that_make_it_fit(self):
        arguments = ["--config", CONFIG, "--vocab", 50257, "--grid", "8x1", "--device-memory", "12GB"]
        text, plan = self.plan(*arguments, "--set", "train.micro_batch=64")
        self.assertIn("DOES NOT FIT", text)
        self.assertFalse(plan["fits"])
        fitting = [change["change"] for change in plan["changes"] if change["fits"]]
        largest = plan["largest_micro_batch"]
        self.assertIn(f"train.micro_batch = {largest}", fitting)
        self.assertIn(f"train.micro_batch that fits: {largest}", text)
        # It does as it says, and the next larger one does not.
        for micro_batch, fits in [(largest, True), (2 * largest, False)]:
            _, other = self.plan(*arguments, "--set", f"train.micro_batch={micro_batch}")
            self.assertEqual(other["fits"], fits)

    def test_rates_change_the_time_alone(self):
        _, slow = self.plan("--config", CONFIG, "--vocab", 50257, "--grid", "4x1", "--peak-tflops", 100)
        _, fast = self.plan("--config", CONFIG, "--vocab", 50257, "--grid", "4x1", "--peak-tflops", 200)
        self.assertEqual(slow["memory_bytes"], fast["memory_bytes"])
        self.assertEqual(slow["collectives"], fast["collectives"])
        self.assertGreater(slow["seconds"]["step"], fast["seconds"]["step"])

    def test_the_heads_differ_by_the_vocabulary(self):
        def head_bytes(name):
            _, plan = self.plan("--config", f"{SOURCE_DIR}/configs/gpt2-small-{name}.toml", "--vocab", 50257, "--grid", "1x1")
            return plan["memory_bytes"]["gradients"]

        # V d of the dense head, 2 K d + K of the VQ head with K = 256 and input codes; to within the padding of a few groups.
        # On a GPU the matrix has rows for the next multiple of 64 of V.
        self.assertAlmostEqual((head_bytes("dense") - head_bytes("vq")) / 4, 50304 * 768 - 512 * 768 - 256, delta=64 * 20)

    def test_the_vocabulary_of_the_shards(self):
        with tempfile.TemporaryDirectory() as folder:
            words = random.Random(1).choices(["aa", "bb", "cc", "dd", "ee"], k=2000)
            text = pathlib.Path(folder) / "text.txt"
            text.write_text("\n\n".join(" ".join(words[i : i + 50]) for i in range(0, 2000, 50)), encoding="utf-8")
            prepared = run("prepare", "--input", text, "--train-tokenizer", 270, "--heldout", "0", "--out", f"{folder}/shards")
            self.assertEqual(prepared.returncode, 0, prepared.stderr)
            shards = ["--set", f"data.train={folder}/shards/train-*.h5"]
            _, plan = self.plan("--config", CONFIG, *shards)
            self.assertEqual(plan["model"]["vocab_size"], 270)
            _, plan = self.plan("--config", CONFIG, *shards, "--vocab", 999)
            self.assertEqual(plan["model"]["vocab_size"], 999)

    def test_bad_input(self):
        known = ["--config", CONFIG, "--vocab", 50257]
        self.assert_refused(["vocabulary is not known", "--vocab"], "--config", CONFIG, "--set", "data.train=/nowhere/*.h5")
        self.assert_refused(["--grid 8by2", "8x2"], *known, "--grid", "8by2")
        self.assert_refused(["--device-memory 80Gb2", "80GiB"], *known, "--device-memory", "80Gb2")
        self.assert_refused(["--device-memory 80", "a number and a unit"], *known, "--device-memory", "80")
        self.assert_refused(["--reserve much"], *known, "--reserve", "much", "--device-memory", "80GB")
        self.assert_refused(["model.n_heads = 12", "parallel.tensor = 5", "choose"], *known, "--grid", "8x5")
        self.assert_refused(["train.global_batch = 512", "parallel.data = 7"], *known, "--grid", "7x1")
        self.assert_refused(["--network-gbs", "above 0"], *known, "--network-gbs", "-3")
        self.assert_refused(["train.precision"], *known, "--dtype", "fp32", "--set", "train.precision=bf16")
        self.assert_refused(["train.stesp", "train.steps"], *known, "--set", "train.stesp=3")

    def test_several_processes_are_refused(self):
        result = run("plan", "--config", CONFIG, "--vocab", 50257, ranks=2)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("plan", error_lines(result)[0])
        self.assertIn("without mpirun", error_lines(result)[0])


if __name__ == "__main__":
    unittest.main()
