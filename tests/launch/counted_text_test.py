"""How much text a run's token counts and its code map are of: what is told of it, and what resuming and replaying make of it."""

import json
import pathlib
import re
import shutil
import tempfile
import tomllib
import unittest

from end_to_end_test import DENSE, MODEL, VQ, set_options, write_text
from program import error_lines, run

STEPS = 6  # of 8 samples of 32 tokens
TRAINED = STEPS * 8 * 32


class CountedText(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.addClassCleanup(cls.temporary.cleanup)
        write_text(cls.folder / "c4-train.00000-of-00001.json.gz", 300, seed=1)
        result = run("prepare", "--input", cls.folder / "c4-train.*.json.gz", "--train-tokenizer", "320", "--heldout", "0.1",
                     "--out", cls.folder / "shards")
        assert result.returncode == 0, result.stderr
        cls.data = f"{cls.folder}/shards/train-*.h5"
        made = run("codes", "make", "--data", cls.data, "--map", "corpus", "--clusters", "8", "--codes", "8", "--groups", "4",
                   "--out", cls.folder / "all.h5")
        assert made.returncode == 0, made.stderr
        cls.counted, cls.all = map(int, re.search(r"counted (\d+) of the shards' (\d+) tokens", made.stdout).groups())

    def train(self, name, *settings, ranks=0, flags=(), head=VQ):
        data = [f"data.train={self.data}", f"data.heldout={self.folder}/shards/heldout-*.h5", f"run.dir={self.folder}/{name}"]
        result = run("train", *set_options([*MODEL, *data, f"train.steps={STEPS}", *head, *settings]), *flags, ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stderr

    def told(self, name):
        """Of the run's evaluation: its line about the map, and what the JSON has."""
        out = self.folder / f"{name}.json"
        result = run("eval", "--checkpoint", self.folder / name, "--json", out)
        self.assertEqual(result.returncode, 0, result.stderr)
        line = [line for line in result.stdout.splitlines() if line.startswith("code map saw")]
        return line, json.loads(out.read_text()).get("code_map")

    def report(self, *names):
        result = run("report", *(self.folder / name for name in names))
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def losses(self, name):
        lines = [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    def config(self, name):
        return tomllib.loads((self.folder / name / "config.toml").read_text())

    def test_the_default_is_the_text_that_is_trained_on(self):
        self.assertEqual(self.counted, self.all)
        self.assertGreater(self.all, 3 * TRAINED)
        log = self.train("trained")
        self.assertIn(f"token counts of the text that is trained on: {TRAINED} tokens, in {STEPS * 8} samples\n", log)
        self.assertRegex(log, f"code map: corpus: neighbours of {TRAINED} tokens of .*, seed 1\n")
        self.assertNotIn("times the tokens", log)
        self.assertEqual(self.told("trained"), ([f"code map saw   {TRAINED} tokens"], {"counted_tokens": TRAINED, "trained_tokens": TRAINED}))
        self.assertIn(f"trained: its code map saw {TRAINED:,} tokens\n", self.report("trained"))
        self.assertEqual(self.config("trained")["run"]["counted_samples"], STEPS * 8)
        # A dense head starts from the same counts.
        self.assertIn(f"trained on: {TRAINED} tokens", self.train("dense", head=DENSE))
        self.assertEqual(self.told("dense"), ([], None))
        # On two ranks: the same map, to the byte.
        self.train("ranks", ranks=2)
        self.assertEqual((self.folder / "ranks/code_map.h5").read_bytes(), (self.folder / "trained/code_map.h5").read_bytes())

    def test_more_text_is_told_everywhere(self):
        times = f"{self.all / TRAINED:.3g} times the tokens that are trained on"
        for name, settings in (("every", ["data.counted_text=all"]), ("file", [f"head.map={self.folder}/all.h5"])):
            with self.subTest(name):
                log = self.train(name, *settings)
                self.assertRegex(log, f"code map: corpus: neighbours of {self.all} .*; the map saw {self.all} tokens, {times}\n")
                line, saved = self.told(name)
                self.assertEqual(line, [f"code map saw   {self.all} tokens, {times}"])
                self.assertAlmostEqual(saved["times_trained"], self.all / TRAINED)
                self.assertIn(f"{name}: its code map saw {self.all:,} tokens, {times}\n", self.report(name))
        self.assertIn(f"token counts of all training shards: {self.all} tokens, {times}\n", self.train("dense-all", "data.counted_text=all", head=DENSE))
        wrong = run("train", *set_options([f"data.train={self.data}", "data.counted_text=some"]))
        self.assertEqual(wrong.returncode, 2)
        self.assertRegex(error_lines(wrong)[0], "data.counted_text = \"some\".*trained, all")

    def test_a_longer_run_keeps_its_map_and_is_replayed_as_it_began(self):
        self.train("longer")
        begun = (self.folder / "longer/code_map.h5").read_bytes()
        log = self.train("longer", f"train.steps={2 * STEPS}", "data.counted_text=all", flags=["--resume"], ranks=2)
        self.assertNotIn("token counts", log)
        self.assertNotIn("making the code map", log)
        self.assertIn('data.counted_text = "all": the run goes on from counts of "trained", with which it began', log)
        self.assertEqual((self.folder / "longer/code_map.h5").read_bytes(), begun)
        config = self.config("longer")
        self.assertEqual((config["run"]["counted_samples"], config["data"]["counted_text"]), (STEPS * 8, "trained"))
        # From the beginning: with the counts of six steps, which the longer run began with.
        shutil.rmtree(self.folder / "longer/checkpoints")
        replayed = run("replay", "--run", self.folder / "longer", "--step", "2")
        self.assertEqual(replayed.returncode, 0, replayed.stderr)
        self.assertEqual(replayed.stdout.count("the same to the bit"), 2, replayed.stdout)

    def test_runs_of_earlier_versions_go_on(self):
        self.train("earlier", "data.counted_text=all", "train.steps=3")
        file = self.folder / "earlier/config.toml"
        file.write_text("".join(line for line in file.read_text().splitlines(True) if "counted_" not in line))
        replayed = run("replay", "--run", self.folder / "earlier", "--step", "1")
        self.assertEqual(replayed.stdout.count("the same to the bit"), 2, replayed.stdout)
        self.train("earlier", flags=["--resume"])
        self.assertEqual(sorted(self.losses("earlier")), list(range(1, STEPS + 1)))
        self.train("whole", "data.counted_text=all")
        self.assertEqual(self.config("earlier")["data"]["counted_text"], "all")


if __name__ == "__main__":
    unittest.main()
