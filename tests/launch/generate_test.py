"""Text from models that were trained a few steps: both heads, text and token ids, and what is refused."""

import json
import os
import pathlib
import tempfile
import unittest

from end_to_end_test import DENSE, MODEL, VQ, set_options, write_text
from program import error_lines, run


def generate(checkpoint, *arguments, stdin="/dev/null"):
    return run("generate", "--checkpoint", checkpoint, "--device", "cpu", "--threads", "1", *arguments, shell=f"exec < {stdin}")


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        write_text(cls.folder / "c4-train.00000-of-00001.json.gz", 200, seed=1)
        cls.succeed(run("prepare", "--input", cls.folder / "c4-train.*.json.gz", "--train-tokenizer", "320", "--heldout", "0.1", "--out", cls.folder / "shards"))
        for name, head in (("vq", VQ), ("dense", DENSE)):
            cls.succeed(run("train", *set_options([*MODEL, *head, f"data.train={cls.folder}/shards/train-*.h5", f"data.heldout={cls.folder}/shards/heldout-*.h5",
                                                   f"run.dir={cls.folder}/{name}", "train.steps=20", "optim.lr=0.01"])))

    @classmethod
    def succeed(cls, result):
        assert result.returncode == 0, result.stderr
        return result

    def refused(self, result, exit_code, *words):
        self.assertEqual(result.returncode, exit_code, result.stderr)
        self.assertEqual(result.stdout, "")
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, result.stderr)
        for word in words:
            self.assertIn(word, lines[0])

    def test_greedy_text_is_the_same_again_and_from_standard_input(self):
        (self.folder / "prompt.txt").write_text("bada\n")
        for name in ("vq", "dense"):
            with self.subTest(head=name):
                options = ["--temperature", "0", "--max-tokens", "12"]
                first = self.succeed(generate(self.folder / name, "--prompt", "bada", *options))
                self.assertTrue(first.stdout.endswith("\n"))
                self.assertGreater(len(first.stdout), 5)
                self.assertEqual(self.succeed(generate(self.folder / name, *options, stdin=self.folder / "prompt.txt")).stdout, first.stdout)
                self.assertIn("tokens/s", first.stderr)
                self.assertIn("output head", first.stderr)

    def test_a_prompt_is_cut_and_begins_with_nothing(self):
        def told(*arguments):
            return json.loads(self.succeed(generate(self.folder / "dense", "--json", "--temperature", "0", *arguments)).stdout)

        begun, bare = told("--prompt", "bada", "--max-tokens", "4"), told("--prompt", "bada", "--max-tokens", "4", "--no-begin")
        self.assertEqual(begun["prompt_tokens"][1:], bare["prompt_tokens"])
        whole = told("--prompt", "bada bada bada", "--max-tokens", "1", "--no-begin")["prompt_tokens"]
        cut = told("--prompt", "bada bada bada", "--max-tokens", "6", "--no-begin", "--context", "10", "--cut-prompt")
        self.assertEqual(cut["prompt_tokens"], whole[-4:])
        self.assertEqual(len(cut["samples"][0]["tokens"]), 6)
        self.refused(generate(self.folder / "dense", "--prompt", "bada", "--max-tokens", "10", "--context", "10", "--cut-prompt"), 2,
                     "--max-tokens 10 leaves no room for a prompt in a context of 10")

    def test_json_says_what_the_text_says(self):
        options = ["--prompt", "bada", "--max-tokens", "10", "--seed", "3", "--temperature", "1.3", "--top-p", "0.9"]
        text = self.succeed(generate(self.folder / "vq", *options)).stdout
        out = json.loads(self.succeed(generate(self.folder / "vq", *options, "--json")).stdout)
        self.assertEqual(len(out["samples"]), 1)
        self.assertEqual(out["samples"][0]["text"] + "\n", text)
        self.assertGreater(out["tokens_per_second"], 0)
        self.assertTrue(0 < out["head_share"] < 1)
        # The same tokens go in as numbers, and numbers come out.
        numbers = ",".join(map(str, out["prompt_tokens"]))
        ids = self.succeed(generate(self.folder / "vq", "--prompt-tokens", numbers, *options[2:])).stdout
        self.assertEqual([int(word) for word in ids.split(",")], out["samples"][0]["tokens"])

    def test_samples_differ_and_a_seed_repeats_them(self):
        def samples(seed):
            options = ["--prompt", "bada", "--max-tokens", "10", "--samples", "3", "--seed", str(seed), "--json"]
            return [sample["tokens"] for sample in json.loads(self.succeed(generate(self.folder / "dense", *options)).stdout)["samples"]]
        first = samples(1)
        self.assertEqual(len(first), 3)
        self.assertNotEqual(first[0], first[1])
        self.assertEqual(first, samples(1))
        self.assertNotEqual(first, samples(2))

    def test_the_context_limit_is_said(self):
        result = self.succeed(generate(self.folder / "vq", "--prompt", "bada", "--max-tokens", "100", "--temperature", "0"))
        self.assertIn("context limit of 32 tokens", result.stderr)  # data.seq_len of the run
        longer = self.succeed(generate(self.folder / "vq", "--prompt", "bada", "--max-tokens", "60", "--temperature", "0", "--context", "64"))
        self.assertIn("trained on samples of 32 tokens", longer.stderr)
        self.assertTrue(longer.stdout.startswith(result.stdout[:-1]))
        self.refused(generate(self.folder / "vq", "--prompt", "bada " * 100), 1, "context of 32", "--context")

    def test_what_is_refused(self):
        self.refused(generate(self.folder / "vq", "--prompt-tokens", "1,400"), 1, "token 400", "[0, 320)")
        self.refused(generate(self.folder / "vq", "--prompt", "x", "--top-p", "1.5"), 2, "--top-p 1.5")
        self.refused(generate(self.folder / "shards", "--prompt", "x"), 1, "shards")

    def assert_alike(self, *models):
        """Each puts the same token before the same prompt."""
        options = ["--prompt", "bada \u00e9", "--temperature", "0", "--max-tokens", "4", "--json"]
        prompts = [json.loads(self.succeed(generate(model, *options)).stdout)["prompt_tokens"] for model in models]
        for prompt in prompts[1:]:
            self.assertEqual(prompt, prompts[0])

    def test_a_folder_of_hugging_face(self):
        hf = self.folder / "hf"
        self.succeed(run("convert", "--to", "hf", "--checkpoint", self.folder / "vq", "--out", hf, "--dtype", "float32"))
        options = ["--prompt-tokens", "7,30,45", "--temperature", "0", "--max-tokens", "8"]
        self.assertEqual(self.succeed(generate(hf, *options)).stdout, self.succeed(generate(self.folder / "vq", *options)).stdout)
        self.assert_alike(self.folder / "vq", hf)
        os.remove(hf / "tokenizer.model")  # a tokenizer of another kind would leave none either
        self.refused(generate(hf, "--prompt", "bada"), 2, str(hf), "tokenizer.model", "--prompt-tokens")
        self.succeed(generate(hf, *options))

    def test_a_model_with_a_tokenizer_json(self):
        shards, model = self.folder / "byte-shards", self.folder / "byte-level"
        self.succeed(run("prepare", "--input", self.folder / "c4-train.*.json.gz", "--train-tokenizer", "400", "--kind", "byte-bpe", "--heldout", "0.1",
                         "--out", shards))
        self.succeed(run("train", *set_options([*MODEL, *VQ, f"data.train={shards}/train-*.h5", f"data.heldout={shards}/heldout-*.h5",
                                                f"run.dir={model}", "train.steps=5"])))
        options = ["--prompt", "bada \u00e9", "--temperature", "0", "--max-tokens", "8"]
        first = self.succeed(generate(model, *options))
        self.assertIn('token 0 ("<|endoftext|>") stands before the prompt', first.stderr)
        evaluation = self.succeed(run("eval", "--checkpoint", model, "--data", f"{shards}/heldout-*.h5"))
        self.assertIn("bits", evaluation.stdout)
        shown = self.succeed(run("codes", "show", model / "code_map.h5", "--tokenizer", shards))
        self.assertIn("\u2581", shown.stdout)
        # There and back again: the same tokenizer but for what it puts before a text, and the same text.
        hf, back = self.folder / "byte-hf", self.folder / "byte-back"
        self.succeed(run("convert", "--to", "hf", "--checkpoint", model, "--out", hf, "--dtype", "float32"))
        config = json.loads((hf / "tokenizer_config.json").read_text())
        self.assertEqual((config["tokenizer_class"], config["eos_token"]), ("PreTrainedTokenizerFast", "<|endoftext|>"))
        self.assertEqual(json.loads((hf / "generation_config.json").read_text())["eos_token_id"], 0)
        self.succeed(run("convert", "--from", "hf", "--input", hf, "--out", back))
        texts = set()
        self.assert_alike(model, hf, back)
        for folder in (hf, back):
            theirs, ours = (json.loads((path / "tokenizer.json").read_text()) for path in (folder, shards))
            self.assertEqual({**theirs, "post_processor": None}, ours)
            said = self.succeed(run("eval", "--checkpoint", folder, "--data", f"{shards}/heldout-*.h5", "--seq-len", "32"))
            self.assertNotIn("tokenizer", said.stderr)  # is known to be the shards' own
            texts.add(self.succeed(generate(folder, *options)).stdout)
        self.assertEqual(len(texts), 1)
        # One that cannot be run is missed by text alone.
        other = json.loads((hf / "tokenizer.json").read_text())
        other["model"]["type"] = "Unigram"
        (hf / "tokenizer.json").write_text(json.dumps(other))
        self.refused(generate(hf, "--prompt", "bada"), 1, 'model.type is "Unigram"', "--prompt-tokens")
        self.succeed(generate(hf, "--prompt-tokens", "7,30", "--max-tokens", "4"))


if __name__ == "__main__":
    unittest.main()
