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

    def test_a_folder_of_hugging_face(self):
        hf = self.folder / "hf"
        self.succeed(run("convert", "--to", "hf", "--checkpoint", self.folder / "vq", "--out", hf, "--dtype", "float32"))
        options = ["--prompt-tokens", "7,30,45", "--temperature", "0", "--max-tokens", "8"]
        self.assertEqual(self.succeed(generate(hf, *options)).stdout, self.succeed(generate(self.folder / "vq", *options)).stdout)
        self.succeed(generate(hf, "--prompt", "bada"))
        os.remove(hf / "tokenizer.model")  # a tokenizer of another kind would leave none either
        self.refused(generate(hf, "--prompt", "bada"), 2, str(hf), "tokenizer.model", "--prompt-tokens")
        self.succeed(generate(hf, *options))


if __name__ == "__main__":
    unittest.main()
