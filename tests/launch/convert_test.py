"""vqlm convert and train --init as a user runs them, on a model of milliseconds."""

import json
import pathlib
import re
import tempfile
import unittest

from end_to_end_test import MODEL, set_options, write_text
from program import error_lines, run

DENSE = ["head.kind=dense"]


class Convert(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.addClassCleanup(cls.temporary.cleanup)
        write_text(cls.folder / "c4-train.00000-of-00001.json.gz", 200, seed=1)
        cls.ok("prepare", "--input", cls.folder / "c4-train.*.json.gz", "--train-tokenizer", "320", "--heldout", "0.1",
               "--out", cls.folder / "shards")
        cls.ok("train", *cls.training("dense", *MODEL, *DENSE))

    @classmethod
    def training(cls, name, *more, steps=4):
        return set_options([*more, f"data.train={cls.folder}/shards/train-*.h5", f"train.steps={steps}",
                            f"data.heldout={cls.folder}/shards/heldout-*.h5", f"run.dir={cls.folder}/{name}"])

    @staticmethod
    def ok(*arguments, **more):
        result = run(*arguments, **more)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, exit_code, words, *arguments):
        result = run(*arguments)
        lines = error_lines(result)
        self.assertEqual((result.returncode, len(lines)), (exit_code, 1), result.stderr)
        self.assertIn(words, lines[0])

    def convert(self, *arguments):
        return self.ok("convert", *arguments)

    def test_a_cap_of_the_logits_is_kept_or_refused(self):
        self.ok("train", *self.training("capped", *MODEL, *DENSE, "head.bias=false", "head.softcap=3"))
        capped, out, heldout = self.folder / "capped", self.folder / "capped-hf", f"{self.folder}/shards/heldout-*.h5"
        self.convert("--to", "hf", "--checkpoint", capped, "--out", out)
        self.assertEqual(json.loads((out / "config.json").read_text())["head_softcap"], 3)
        self.assertIn("logits capped at 3", self.convert("--info", out))
        said = [self.ok("eval", "--checkpoint", model, "--data", heldout, "--seq-len", "32") for model in (capped, out)]
        self.assertEqual(said[0].splitlines()[:4], said[1].splitlines()[:4])
        never = self.folder / "never"
        self.refused(1, "LlamaForCausalLM does not cap logits", "convert", "--to", "hf", "--expand", "--checkpoint", capped, "--out", never)
        self.refused(1, "head caps its logits (head.softcap = 3)", "convert", "--to", "gguf", "--checkpoint", capped, "--out", never)
        self.refused(2, "caps its logits (head.softcap = 3)", "convert", "--head", "vq", "--checkpoint", capped, "--out", never)
        # It is part of the model.
        self.refused(2, "head.softcap = 0", "train", *self.training("other", *MODEL, *DENSE, "head.bias=false", "head.softcap=0"), "--init", capped)
        self.ok("train", *self.training("on", "optim.warmup_steps=1"), "--init", capped)

    def test_npz_is_what_numpy_reads(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("NumPy is not here")
        out = self.folder / "dense.npz"
        self.convert("--to", "npz", "--checkpoint", self.folder / "dense", "--out", out)
        with numpy.load(out) as arrays:
            self.assertEqual(arrays["lm_head.weight"].shape, (320, 32))
            self.assertEqual(arrays["lm_head.weight"].dtype, numpy.float32)
            self.assertEqual(arrays["model.norm.weight"].shape, (32,))
            self.assertTrue(all(numpy.isfinite(arrays[name]).all() for name in arrays.files))
            self.assertEqual(len(arrays.files), 1 + 2 * 9 + 1 + 2)
        again = self.folder / "again.npz"
        self.convert("--to", "npz", "--checkpoint", self.folder / "dense", "--out", again)
        self.assertEqual(out.read_bytes(), again.read_bytes())

    def test_a_head_is_replaced_and_the_model_trains_on(self):
        vq = self.folder / "vq"
        said = self.convert("--head", "vq", "--checkpoint", self.folder / "dense", "--groups", "8", "--codes", "32",
                            "--clusters", "16", "--data", f"{self.folder}/shards/heldout-*.h5", "--out", vq)
        before, after = (float(x) for x in re.findall(r"perplexity \w+ +([0-9.]+)", said))
        self.assertLess(abs(after / before - 1), 0.1, said)
        self.assertIn("variance kept", said)
        first, fitted = (float(x) for x in re.search(r"([0-9.]+) nats of divergence to first order, ([0-9.]+) fitted", said).groups())
        self.assertLessEqual(fitted, first)
        self.assertIn("VQ: 16 clusters, 8 groups of 32 codes", self.convert("--info", vq))
        evaluation = self.folder / "vq.json"
        self.ok("eval", "--checkpoint", vq, "--data", f"{self.folder}/shards/heldout-*.h5", "--json", evaluation)
        self.assertAlmostEqual(json.loads(evaluation.read_text())["perplexity"], after, delta=0.01 * after)

        init = ["--config", vq / "config.toml", "--init", vq]
        batch = ["train.global_batch=8", "optim.warmup_steps=1", "train.micro_batch=2", "run.device=cpu", "optim.lr=1e-5"]
        self.ok("train", *init, *self.training("alone", *batch))
        self.ok("train", *init, *self.training("grid", *batch, "parallel.tensor=2"), ranks=4)
        losses = [[json.loads(line)["loss"] for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()
                   if '"loss"' in line] for name in ("alone", "grid")]
        self.assertEqual(len(losses[0]), 4)
        for alone, grid in zip(*losses):
            self.assertAlmostEqual(alone / grid, 1, delta=1e-5)

        self.refused(2, "start a run from it with --init", "train", "--config", vq / "config.toml", "--resume",
                     *self.training("vq", *batch))
        self.refused(2, "model.d_ff = 96, but the model of --init", "train", *init,
                     *self.training("other", *batch, "model.d_ff=96"))
        self.refused(2, "--resume", "train", *init, "--resume", *self.training("alone", *batch))

        dense = self.folder / "vq-dense"
        self.assertIn("an approximation", self.convert("--head", "dense", "--checkpoint", vq, "--out", dense))
        self.assertIn("dense, with a token bias", self.convert("--info", dense))

    def test_hugging_face_and_back_is_the_same_model(self):
        hf, back = self.folder / "hf", self.folder / "back"
        self.convert("--to", "hf", "--checkpoint", self.folder / "dense", "--out", hf)
        self.convert("--from", "hf", "--input", hf, "--out", back)
        self.assertIn("dense, with a token bias", self.convert("--info", hf))
        nll = []
        for model in (self.folder / "dense", hf, back):
            out = self.folder / "nll.json"
            # As many rows at once: what a product makes of a row may depend on their number.
            self.ok("eval", "--checkpoint", model, "--data", f"{self.folder}/shards/heldout-*.h5", "--seq-len", "32",
                    "--micro-batch", "2", "--json", out)
            nll.append(json.loads(out.read_text())["nll"])
        self.assertEqual(nll[0], nll[1])
        self.assertEqual(nll[0], nll[2])

    def test_a_run_takes_the_sizes_of_the_model_that_it_starts_from(self):
        hf = self.folder / "sizes"
        self.convert("--to", "hf", "--checkpoint", self.folder / "dense", "--out", hf)
        own = [word for word in MODEL if not word.startswith("model.")]
        for name, model in (("from-hf", hf), ("from-run", self.folder / "dense")):
            self.ok("train", "--init", model, *self.training(name, *own, "optim.lr=1e-9", "optim.warmup_steps=0"))
            config = (self.folder / name / "config.toml").read_text()
            for line in ("d_model = 32", "n_layers = 2", "n_heads = 4", "d_ff = 64", "vocab_size = 320", 'kind = "dense"', "bias = true",
                         f'began_from = "{model}"'):
                self.assertIn(line + "\n", config)
        losses = [json.loads((self.folder / name / "metrics.jsonl").read_text().splitlines()[0])["loss"] for name in ("from-hf", "from-run")]
        self.assertEqual(*losses)
        for key, value in (("model.n_heads", "2"), ("model.rope_theta", "500.0"), ("model.tie_embeddings", "true"), ("head.bias", "false"),
                           ("head.kind", "vq")):
            self.refused(2, f"{key} = {value}" if key != "head.kind" else 'head.kind = "vq", but the model of --init', "train", "--init", hf,
                         *self.training("contradicts", *own, f"{key}={value}"))
        self.refused(1, "no such folder", "train", "--init", self.folder / "nothing", *self.training("nothing", *own))
        self.assertFalse((self.folder / "contradicts" / "config.toml").exists())

    def test_input_codes_are_folded_in(self):
        options = ["head.kind=vq", "head.clusters=16", "head.members=embedding", "head.member_mean=true",
                   "head.input_codes=true"]
        self.ok("train", *self.training("codes", *MODEL, *options))
        codes, hf, dense = self.folder / "codes", self.folder / "codes-hf", self.folder / "codes-dense"
        self.convert("--to", "hf", "--checkpoint", codes, "--out", hf)
        self.assertIn("an approximation", self.convert("--head", "dense", "--checkpoint", codes, "--out", dense))
        self.assertIn("a vector of each cluster at the input", self.convert("--info", codes))
        for folded in (hf, dense):
            self.assertNotIn("at the input", self.convert("--info", folded))
        nll = {}
        for model in (codes, hf, dense):
            out = self.folder / "folded.json"
            self.ok("eval", "--checkpoint", model, "--data", f"{self.folder}/shards/heldout-*.h5", "--seq-len", "32",
                    "--json", out)
            nll[model] = json.loads(out.read_text())["nll"]
        self.assertAlmostEqual(nll[hf] / nll[codes], 1, delta=1e-5)
        self.assertAlmostEqual(nll[dense] / nll[codes], 1, delta=0.02)

        trained = (json.loads((codes / "metrics.jsonl").read_text().splitlines()[-1]).get("step"))
        self.assertEqual(trained, 4)
        for key in ("head.member_mean", "head.input_codes"):
            self.refused(2, key, "train", "--resume", *self.training("codes", *MODEL, *options, f"{key}=false", steps=6))

    def test_a_low_rank_head_multiplies_out(self):
        for name, tied in (("low", "false"), ("low-tied", "true")):
            model = self.folder / name
            self.ok("train", *self.training(name, *MODEL, "head.kind=low_rank", "head.rank=8", "head.bias=false", f"model.tie_embeddings={tied}"))
            self.assertIn("dense of rank 8, no bias", self.convert("--info", model))
            forms = {"dense": ("--head", "dense"), "stock": ("--to", "hf", "--expand"), "back": ("--from", "hf")}
            if tied == "false":
                forms["native"] = ("--to", "hf")
            else:
                self.refused(1, "--head dense, or --expand", "convert", "--to", "hf", "--checkpoint", model, "--out", self.folder / "no")
            nll = {}
            for form, words in {"own": None, **forms}.items():
                out = self.folder / f"{name}-{form}" if words else model
                if words:
                    source = ("--input", self.folder / f"{name}-stock") if form == "back" else ("--checkpoint", model)
                    self.convert(*words, *source, "--out", out)
                told = self.folder / "low.json"
                self.ok("eval", "--checkpoint", out, "--data", f"{self.folder}/shards/heldout-*.h5", "--seq-len", "32", "--json", told)
                nll[form] = json.loads(told.read_text())["nll"]
                self.assertAlmostEqual(nll[form] / nll["own"], 1, delta=1e-6, msg=form)
            config = json.loads((self.folder / f"{name}-stock" / "config.json").read_text())
            self.assertEqual((config["model_type"], config["tie_word_embeddings"]), ("llama", tied == "true"))
            self.ok("generate", "--checkpoint", model, "--prompt", "the", "--max-tokens", "5")
        low = self.folder / "low"
        self.refused(2, "--head dense first", "convert", "--head", "vq", "--checkpoint", low, "--out", self.folder / "no")
        self.refused(2, "its head is low_rank r=8 no bias", "codes", "make", "--map", "from-dense", "--from", low, "--clusters", "8",
                     "--out", self.folder / "no.h5")

    def test_heads_for_later_tokens_are_carried_or_left_out(self):
        heldout, told = f"{self.folder}/shards/heldout-*.h5", self.folder / "future.json"
        result = run("train", *self.training("future", *MODEL, "head.kind=vq", "head.clusters=16", "head.map=frequency", "head.future=2"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("; later tokens", result.stderr)
        model = self.folder / "future"
        steps = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
        self.assertTrue(all(len(line["future_losses"]) == 2 for line in steps if "loss" in line))

        def evaluated(name):
            text = self.ok("eval", "--checkpoint", self.folder / name, "--data", heldout, "--seq-len", "32", "--micro-batch", "2", "--json", told)
            return text, json.loads(told.read_text())

        text, own = evaluated("future")
        self.assertIn("of drafts accepted", text)
        self.assertEqual(len(own["future"]), 2)
        for head in own["future"]:
            self.assertTrue(0 <= head["acceptance"] <= 1 and head["nll"] > 0 and 0 < head["tokens"] < own["tokens"])
        # The first step's heads are the output head's copies, so that the losses are near.
        self.assertAlmostEqual(steps[0]["future_losses"][0], steps[0]["loss"], delta=0.5)
        self.convert("--to", "checkpoint", "--checkpoint", model, "--out", self.folder / "future-same")
        self.assertEqual(evaluated("future-same")[1]["future"], own["future"])
        out = run("convert", "--to", "hf", "--checkpoint", model, "--out", self.folder / "future-hf")
        self.assertEqual(out.returncode, 0, out.stderr)
        self.assertIn("left out: 2 heads for later tokens", out.stderr)
        plain = evaluated("future-hf")[1]
        self.assertNotIn("future", plain)
        self.assertAlmostEqual(plain["nll"] / own["nll"], 1, delta=1e-6)
        self.convert("--head", "dense", "--checkpoint", model, "--out", self.folder / "future-dense")
        self.assertNotIn("future", evaluated("future-dense")[1])
        # They are part of the model.
        self.refused(2, "head.future = 0", "train", *self.training("other", *MODEL, "head.kind=vq", "head.clusters=16", "head.future=0"), "--init", model)
        self.ok("train", *self.training("future-on", "optim.warmup_steps=1"), "--init", model)
        # They guess the text of generation without them.
        options = ["--prompt-tokens", "3,4,5", "--max-tokens", "20", "--temperature", "0", "--json"]
        said, drafted = (json.loads(self.ok("generate", "--checkpoint", model, *options, *more)) for more in ([], ["--draft"]))
        self.assertEqual(drafted["samples"][0], said["samples"][0])
        self.assertGreater(drafted["draft"]["passes"], 0)
        self.assertLessEqual(drafted["draft"]["accepted"], drafted["draft"]["drafted"])
        self.refused(2, "--temperature 1 draws others", "generate", "--checkpoint", model, "--prompt-tokens", "3", "--draft")
        self.refused(2, "not --samples 2", "generate", "--checkpoint", model, "--prompt-tokens", "3", "--draft", "--temperature", "0", "--samples", "2")
        self.refused(2, "has no heads for later tokens", "generate", "--checkpoint", self.folder / "dense", "--prompt-tokens", "3", "--draft",
                     "--temperature", "0")

    def test_an_adaptive_head_stays_what_it_is(self):
        model, hf, back = self.folder / "bands", self.folder / "bands-hf", self.folder / "bands-back"
        told = run("train", *self.training("bands", *MODEL, "head.kind=adaptive", "head.cutoffs=[6,20]", "head.tail_ratio=2"))
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn("code map: bands by frequency: 6 + 14 + ", told.stderr)
        self.assertIn("adaptive softmax: 3 bands cut at 6 20, each tail band 2 times narrower, with a token bias", self.convert("--info", model))
        self.convert("--to", "hf", "--checkpoint", model, "--out", hf)
        self.convert("--from", "hf", "--input", hf, "--out", back)
        nll = []
        for form in (model, hf, back):
            out = self.folder / "bands.json"
            self.ok("eval", "--checkpoint", form, "--data", f"{self.folder}/shards/heldout-*.h5", "--seq-len", "32", "--json", out)
            nll.append(json.loads(out.read_text())["nll"])
        for one in nll[1:]:
            self.assertAlmostEqual(one / nll[0], 1, delta=1e-6)  # in batches of other sizes
        self.assertNotIn("code_usage", json.loads((self.folder / "bands.json").read_text()))
        self.ok("generate", "--checkpoint", hf, "--prompt", "the", "--max-tokens", "5")
        self.refused(1, "no matrix equals an adaptive head", "convert", "--to", "hf", "--expand", "--checkpoint", model, "--out", self.folder / "no")
        self.refused(1, "has an adaptive head", "convert", "--to", "gguf", "--checkpoint", model, "--out", self.folder / "no")
        for head in ("dense", "vq"):
            self.refused(2, "no other head is made of an adaptive one", "convert", "--head", head, "--checkpoint", model, "--out", self.folder / "no")
        self.refused(2, "its head is adaptive at 6 20 ratio 2", "codes", "make", "--map", "from-dense", "--from", model, "--clusters", "8",
                     "--out", self.folder / "no.h5")
        self.refused(2, "its map is of frequencies alone", "codes", "refit", "--checkpoint", model, "--data", f"{self.folder}/shards/train-*.h5",
                     "--out", self.folder / "no.h5")
        self.refused(2, "head.cutoffs", "train", "--resume", *self.training("bands", *MODEL, "head.kind=adaptive", "head.cutoffs=[6,19]", steps=6))

    def test_usage(self):
        dense, out = self.folder / "dense", self.folder / "nowhere"
        self.refused(2, "name a model", "convert", "--out", out)
        self.refused(2, "say what to do", "convert", "--checkpoint", dense, "--out", out)
        self.refused(2, "--out: name", "convert", "--checkpoint", dense, "--to", "npz")
        self.refused(2, "is there already", "convert", "--checkpoint", dense, "--to", "npz", "--out", dense)
        self.refused(2, "--clusters: only with --head vq", "convert", "--checkpoint", dense, "--to", "npz", "--out", out,
                     "--clusters", "7")
        self.refused(2, "--dtype: only with --to hf or gguf", "convert", "--checkpoint", dense, "--to", "npz", "--out", out,
                     "--dtype", "bfloat16")
        self.refused(2, "--groups 7: it must divide", "convert", "--checkpoint", dense, "--head", "vq", "--groups", "7",
                     "--out", out)
        self.refused(2, "is one already", "convert", "--checkpoint", dense, "--head", "dense", "--out", out)
        self.refused(2, "--fit-tokens: only with --data", "convert", "--checkpoint", dense, "--head", "vq", "--fit-tokens", "100", "--out", out)
        self.refused(2, "it needs 38 at least (the model's width is 32); name more text, or say --fit-tokens 0", "convert", "--checkpoint",
                     dense, "--head", "vq", "--seq-len", "8", "--fit-tokens", "30", "--data", f"{self.folder}/shards/heldout-*.h5", "--out", out)
        self.refused(2, "--input: only with --from hf", "convert", "--input", dense, "--to", "npz", "--out", out)
        self.refused(1, "no such folder", "convert", "--info", out)
        self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
