"""Runs of several sources, and where their samples come from, as a user meets them."""

import json
import pathlib
import re
import tempfile
import unittest

from program import error_lines, run

MODEL = ["model.d_model=32", "model.n_layers=1", "model.n_heads=4", "model.d_ff=64", "head.kind=dense", "data.seq_len=16",
         "train.global_batch=8", "train.micro_batch=2", "train.steps=12", "train.eval_every=6", "optim.warmup_steps=2",
         "checkpoint.every=5", "checkpoint.keep=0", "run.device=cpu", "run.threads=1"]


def set_options(values):
    return [word for value in values for word in ("--set", value)]


def sentence(source, number):
    """Words that only this record has, so that its text tells where it is from."""
    return f"{source} record {number} speaks of " + " ".join(f"{source}{number}w{i}" for i in range(6))


class Mixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        for source, records, more in (("web", 120, ("--train-tokenizer", "300")), ("code", 60, ("--tokenizer", cls.folder / "web")),
                                      ("math", 30, ("--tokenizer", cls.folder / "web"))):
            lines = "\n\n".join(json.dumps({"text": sentence(source, number)} if number % 7 else {"title": "no text"})
                                for number in range(records))
            (cls.folder / f"{source}.jsonl").write_text(lines + "\n", encoding="utf-8")
            result = run("prepare", "--input", cls.folder / f"{source}.jsonl", *more, "--heldout", "0.1", "--out", cls.folder / source)
            assert result.returncode == 0, result.stderr
        (cls.folder / "mix.toml").write_text(f"""
[[data.mix]]
name = "web"
train = "{cls.folder}/web/train-*.h5"
weight = 0.75
[[data.mix]]
name = "code"
train = "{cls.folder}/code/train-*.h5"
weight = 0.25
[[data.heldout]]
name = "web"
shards = "{cls.folder}/web/heldout-*.h5"
[[data.heldout]]
name = "code"
shards = "{cls.folder}/code/heldout-*.h5"
""", encoding="utf-8")

    def train(self, name, *more, flags=(), ranks=0, config=True):
        file = ("--config", self.folder / "mix.toml") if config else ()
        return run("train", *file, *set_options([*(MODEL if config else ()), f"run.dir={self.folder / name}", *more]), *flags, ranks=ranks)

    def trained(self, name, *more, **options):
        result = self.train(name, *more, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def metrics(self, name):
        return [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def command(self, *words, code=0, ranks=0):
        result = run(*words, ranks=ranks)
        self.assertEqual(result.returncode, code, result.stderr + result.stdout)
        return result

    def test_losses_and_epochs_by_source(self):
        result = self.trained("plain")
        steps = [line for line in self.metrics("plain") if "loss" in line]
        self.assertEqual({frozenset(line["loss_by_source"]) for line in steps}, {frozenset(("web", "code"))})
        for line in steps:  # 6 of 8 samples are web's
            mean = 0.75 * line["loss_by_source"]["web"] + 0.25 * line["loss_by_source"]["code"]
            self.assertAlmostEqual(line["loss"], mean, delta=1e-6)
        evaluations = [line for line in self.metrics("plain") if "heldout_loss" in line]
        self.assertEqual(len(evaluations), 2)
        self.assertEqual(set(evaluations[0]["heldout_by_set"]), {"web", "code"})
        self.assertRegex(result.stderr, r"read so far: web \d\.\d+ epochs \(72 samples\), code \d\.\d+ epochs \(24 samples\)")

        # The run's own sets, then sets by name, then one: the same numbers.
        def reported():
            table = self.command("report", self.folder / "plain").stdout
            self.assertLessEqual(max(map(len, table.splitlines())), 120)
            self.assertRegex(table, r"loss by source, last steps +code +web\n-+\nplain +\d\.\d{4} +\d\.\d{4}\n")
            return re.search(r"held-out perplexity by set +code +web\n-+\nplain +(\S+) +(\S+)\n", table).groups(), re.search(r"\nplain.* (\S+)  \S+ +0\n", table)[1]

        before = reported()
        self.command("eval", "--checkpoint", self.folder / "plain", "--json", self.folder / "plain" / "eval.json", "--device", "cpu")
        self.assertEqual(reported(), before)
        out = self.folder / "plain.json"
        words = self.command("eval", "--checkpoint", self.folder / "plain", "--json", out, "--device", "cpu").stdout
        sets = json.loads(out.read_text(encoding="utf-8"))["sets"]
        told = evaluations[1]["heldout_by_set"]
        self.assertEqual({name: (value["nll"], value["tokens"]) for name, value in sets.items()},
                         {name: (value["loss"], value["tokens"]) for name, value in told.items()})
        self.assertIn(f"all sets: perplexity {evaluations[1]['heldout_perplexity']:.4f}", words)
        self.command("eval", "--checkpoint", self.folder / "plain", "--json", out, "--device", "cpu",
                     "--data", f"c={self.folder}/code/heldout-*.h5", "--data", f"w={self.folder}/web/heldout-*.h5")
        again = json.loads(out.read_text(encoding="utf-8"))["sets"]
        self.assertEqual((again["c"]["nll"], again["w"]["nll"]), (sets["code"]["nll"], sets["web"]["nll"]))
        self.command("eval", "--checkpoint", self.folder / "plain", "--json", out, "--device", "cpu", "--data", f"{self.folder}/code/heldout-*.h5")
        self.assertEqual(json.loads(out.read_text(encoding="utf-8"))["nll"], sets["code"]["nll"])

    def test_other_weights_at_a_resume_are_a_new_stage(self):
        self.trained("grows", "train.steps=5")
        math = [f"data.mix.math.train={self.folder}/math/train-*.h5", "data.mix.math.weight=1"]
        result = self.trained("grows", *math, "train.steps=12", flags=("--resume",), ranks=2)
        self.assertIn("data.mix: from step 6 on code 12.5 %, math 50 %, web 37.5 %; before code 25 %, web 75 %", result.stderr)
        self.assertEqual([sorted(line["loss_by_source"]) for line in self.metrics("grows") if line.get("step") in (5, 6) and "loss" in line],
                         [["code", "web"], ["code", "math", "web"]])
        again = self.trained("grows", "train.steps=14", config=False, flags=("--resume",))
        self.assertNotIn("data.mix: from step", again.stderr)
        gone = self.train("grows", "train.steps=16", "data.mix.code.weight=0", flags=("--resume",), config=False)
        self.assertEqual(gone.returncode, 0, gone.stderr)
        text = (self.folder / "grows" / "config.toml").read_text(encoding="utf-8")
        self.assertRegex(text, r'name = "math"\ntrain = "[^"]*"\nweight = 1\nfrom_step = 6\nfrom_sample = 40\n')

    def test_a_source_that_is_missing_is_refused_by_name(self):
        self.trained("lost", "train.steps=5")
        (self.folder / "web.toml").write_text(f'[[data.mix]]\nname = "web"\ntrain = "{self.folder}/web/train-*.h5"\nweight = 1\n',
                                              encoding="utf-8")
        result = run("train", "--config", self.folder / "web.toml", *set_options([*MODEL, f"run.dir={self.folder}/lost"]), "--resume")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("source code", error_lines(result)[0])
        self.assertIn("weight = 0", error_lines(result)[0])
        other = self.train("lost", f"data.mix.code.train={self.folder}/math/train-*.h5", flags=("--resume",))
        self.assertEqual(other.returncode, 1, other.stderr)
        self.assertIn("math/train-*.h5", error_lines(other)[0])
        held = self.train("held", f"data.mix.code.train={self.folder}/code/*.h5")
        self.assertEqual(held.returncode, 2, held.stderr)
        self.assertIn("code/heldout-00000.h5", error_lines(held)[0])

    def test_samples_and_where_are_each_others_inverse(self):
        self.trained("told", "train.steps=5")
        self.trained("told", "train.global_batch=4", "train.steps=30", flags=("--resume", "--time-limit", "1000"))
        listed = {}
        for step in (1, 5, 6, 7, 30):
            words = self.command("samples", "--run", self.folder / "told", "--step", step, "--text").stdout
            self.assertEqual(len(re.findall(r"^sample ", words, re.M)), 8 if step <= 5 else 4)
            records = re.findall(r"record (\d+) of (\S+)\n((?:      \|.*\n)+)", words)
            self.assertTrue(records, words)
            for number, file, text in records:
                name = pathlib.Path(file).stem
                inside = set(re.findall(r"(?:web|code)\d+w\d", text))
                self.assertTrue(all(word.startswith(f"{name}{number}w") for word in inside), text)
                listed.setdefault((pathlib.Path(file).name, int(number)), set()).add(step)
        for (file, number), steps in list(listed.items())[:12]:
            words = self.command("samples", "--run", self.folder / "told", "--where", f"{file}:{number}").stdout
            self.assertLessEqual(steps, {int(step) for step in re.findall(r"^    step (\d+)", words, re.M)}, words)

    def test_samples_refuses_what_is_not_there(self):
        self.trained("short", "train.steps=5")
        folder = self.folder / "short"
        for words, code, told in (((folder, "--step", 9), 2, "steps 1 to 5"), ((folder, "--where", "web.jsonl:7"), 1, "record 7 is in no training shard"),
                                  ((folder, "--where", "news.jsonl:1"), 1, "no training shard was made of it"),
                                  ((folder, "--where", "web.jsonl"), 2, "FILE:RECORD"), ((folder,), 2, "--step N"),
                                  ((self.folder, "--step", 1), 1, "is no run's folder")):
            result = self.command("samples", "--run", *words, code=code)
            self.assertIn(told, error_lines(result)[0])

    def test_a_replayed_step_is_the_runs_to_the_bit(self):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                name = f"replayed{ranks}"
                self.trained(name, ranks=ranks)
                before = {path: path.read_bytes() for path in (self.folder / name).rglob("*") if path.is_file()}
                for step in (8, 3):  # from the checkpoint of step 5; from the start
                    result = self.command("replay", "--run", self.folder / name, "--step", step, "--worst", "2", ranks=ranks)
                    self.assertEqual(result.stdout.count("the same to the bit"), 2, result.stdout)
                    self.assertEqual(len(re.findall(r"^loss \d+\.\d+: sample \d+, .*record \d+ of ", result.stdout, re.M)), 2)
                self.assertEqual(before, {path: path.read_bytes() for path in (self.folder / name).rglob("*") if path.is_file()})
        result = self.command("replay", "--run", self.folder / "replayed0", "--step", "8", ranks=2)
        self.assertIn("the run's grid was 1 x 1 ranks, this one is 2 x 1", result.stderr)
        self.assertIn("differs by", result.stdout)

    def test_a_jump_names_the_samples(self):
        # Step 21 begins with a source of noise, whose losses stand out.
        noise = "\n\n".join(json.dumps({"text": "\u4e00\u4e8c\u4e09 \U0001f600 " * 30 + str(n)}, ensure_ascii=False) for n in range(20))
        (self.folder / "noise.jsonl").write_text(noise + "\n", encoding="utf-8")
        self.command("prepare", "--input", self.folder / "noise.jsonl", "--tokenizer", self.folder / "web", "--heldout", "0", "--out",
                     self.folder / "noise")
        result = self.trained("jumps", f"data.mix.noise.train={self.folder}/noise/train-*.h5", "data.mix.noise.weight=10",
                              "data.mix.noise.from_step=41", "train.steps=42", "optim.lr=0.01", ranks=2)
        self.assertRegex(result.stderr, r"step 41: the loss jumps to [\d.]+, [\d.]+ robust standard deviations")
        self.assertEqual(len(re.findall(r"  loss [\d.]+: \S*noise/train-00000.h5 document \d+", result.stderr)), 3, result.stderr)


if __name__ == "__main__":
    unittest.main()
