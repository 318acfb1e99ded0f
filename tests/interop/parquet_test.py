"""Parquet by pyarrow gives the shards that JSON lines of the same text give."""

import json
import pathlib
import re
import sys
import tempfile
import unittest

import interop  # noqa: F401  (goes on in its environment)
import pyarrow
import pyarrow.parquet
from program import SOURCE_DIR, error_lines, run

READER = {"VQLM_PYTHON": sys.executable}


class Parquet(unittest.TestCase):
    def test_the_same_shards_as_from_json_lines(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            texts = [block for path in sorted(pathlib.Path(SOURCE_DIR, "docs").glob("*.md")) for block in path.read_text().split("\n\n") if block.strip()]
            texts[7] = None  # no text, in both forms
            (folder / "text.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
            table = pyarrow.table({"number": list(range(len(texts))), "body": texts})
            pyarrow.parquet.write_table(table, folder / "text.parquet", compression="zstd", row_group_size=100)

            def prepare(source, *more):
                return run("prepare", "--input", folder / source, "--text-field", "body", "--train-tokenizer", "400", "--heldout", "0.1",
                           "--out", folder / f"of-{source}", *more, environment=READER)

            def made(source):
                result = prepare(source)
                self.assertEqual(result.returncode, 0, result.stderr)
                mapped = run("codes", "make", "--data", "train-*.h5", "--clusters", "8", "--groups", "0", "--out", "map.h5", cwd=folder / f"of-{source}")
                self.assertEqual(mapped.returncode, 0, mapped.stderr)
                rows = [line for line in result.stdout.splitlines() if line.startswith(("train", "heldout", "all", "skipped"))]
                skipped = re.findall(r":(\d+): skipped: (.*)", result.stderr)
                self.assertEqual([number for number, _ in skipped], ["8"])
                out = folder / f"of-{source}"
                return rows, skipped, (out / "tokenizer.model").read_bytes(), (out / "map.h5").read_bytes()

            self.assertEqual(made("text.parquet"), made("text.jsonl"))
            refused = run("prepare", "--input", folder / "text.parquet", "--train-tokenizer", "400", "--out", folder / "no", environment=READER)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("has no column text; --text-field names one of number, body", error_lines(refused)[0])
            whole = (folder / "text.parquet").read_bytes()
            (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
            cut = prepare("cut.parquet")
            self.assertEqual(cut.returncode, 1)
            self.assertIn("cannot be read as Parquet", error_lines(cut)[0])


if __name__ == "__main__":
    unittest.main()
