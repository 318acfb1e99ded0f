"""Ids of byte-level BPE against PyPI's `tokenizers` itself, on this project's own text and on strings drawn at random; the goldens
of tests/tokenizers are of one version, and of texts that were thought of."""

import json
import pathlib
import random
import tempfile
import unittest

import interop  # noqa: F401  (goes on in its environment)
import h5py
import tokenizers
from program import SOURCE_DIR, run

FAMILIES = ["gpt2", "roberta", "llama3", "qwen2", "smollm2", "cl100k", "o200k"]
# Characters that every version of Unicode of the last ten years classes alike.
PIECES = [" ", "  ", "\n", "\r\n", "\t", "a", "Z", "the", "don't", "I'LL", "'s", "'", "0", "12", "3456", "٣", "²", "½", "é", "e\u0301", "ß", "İ",
          "Ω", "я", "中文", "かな", "한국", "א", "ب", "क्षि", "ไทย", "🙂", "👩‍👩‍👧", "🇩🇪", "\u00a0", "\u2003", "\u200b", "\u180e", "\ufeff", "...", "!?",
          "_", "-", "/", "\\", "\x00", "\x1f", "\u2028", "<|endoftext|>", "<|im_start|>", "</s>", "<mask>", "naïve"]


def texts():
    blocks = [block for name in ("docs/*.md", "core/*.cpp", "launch/*.py") for path in sorted(pathlib.Path(SOURCE_DIR).glob(name))
              for block in path.read_text(encoding="utf-8").split("\n\n") if block]
    numbers = random.Random(7)
    drawn = ["".join(numbers.choices(PIECES, k=numbers.randint(1, 40))) for _ in range(3000)]
    return blocks + drawn + [" " * 10_000, "a" * 10_000, "\n" * 999]


class Tokenizers(unittest.TestCase):
    def test_ids_are_those_of_the_library(self):
        documents = texts()
        self.assertGreater(sum(map(len, documents)), 300_000)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
            for family in FAMILIES:
                with self.subTest(family=family, version=tokenizers.__version__):
                    file = pathlib.Path(SOURCE_DIR, "tests", "tokenizers", f"{family}.json")
                    library = tokenizers.Tokenizer.from_file(str(file))
                    out = folder / family
                    result = run("prepare", "--input", folder / "text.jsonl", "--tokenizer", file, "--eos", "0", "--heldout", "0", "--out", out)
                    self.assertEqual(result.returncode, 0, result.stderr)
                    with h5py.File(out / "train-00000.h5") as shard:
                        ids, ends, records = (shard[name][:].tolist() for name in ("tokens", "documents", "records"))
                    self.assertEqual(records, list(range(len(documents))))
                    expected = library.encode_batch(documents, add_special_tokens=False)
                    wrong = [i for i, encoding in enumerate(expected) if ids[ends[i] : ends[i + 1] - 1] != encoding.ids]
                    self.assertEqual([documents[i][:80] for i in wrong[:3]], [])


if __name__ == "__main__":
    unittest.main()
