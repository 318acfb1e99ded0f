"""Inputs of `vqlm prepare` that only the whole program takes: a pipe, ids without a header, Parquet without its reader."""

import array
import gzip
import pathlib
import struct
import subprocess
import tempfile
import unittest

from end_to_end_test import write_text
from program import PROGRAM, error_lines, run


def table(result):
    """The rows of the summary, which tell documents, tokens and bytes of every split."""
    return [line.split() for line in result.stdout.splitlines() if line.startswith(("train", "heldout", "all"))]


class Prepare(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        write_text(cls.folder / "text.json.gz", 150, seed=4)
        cls.lines = gzip.decompress((cls.folder / "text.json.gz").read_bytes())
        (cls.folder / "text.jsonl").write_bytes(cls.lines)

    def piped(self, lines, *arguments):
        return subprocess.run([PROGRAM, "prepare", "--input", "-", *map(str, arguments)], input=lines, capture_output=True, check=False)

    def map_of(self, out):
        """A code map made of all tokens of the training shards, in their order."""
        made = run("codes", "make", "--data", "train-*.h5", "--map", "corpus", "--clusters", "8", "--groups", "0", "--out", "map.h5", "--force", cwd=self.folder / out)
        self.assertEqual(made.returncode, 0, made.stderr)
        return (self.folder / out / "map.h5").read_bytes()

    def test_a_pipe_gives_the_shards_of_a_file(self):
        by_name = run("prepare", "--input", self.folder / "text.jsonl", "--train-tokenizer", "320", "--heldout", "0.1", "--out", self.folder / "file")
        self.assertEqual(by_name.returncode, 0, by_name.stderr)
        by_pipe = self.piped(self.lines, "--train-tokenizer", 320, "--heldout", 0.1, "--out", self.folder / "pipe")
        self.assertEqual(by_pipe.returncode, 0, by_pipe.stderr)
        by_pipe.stdout = by_pipe.stdout.decode()
        self.assertEqual(table(by_name), table(by_pipe))
        self.assertEqual((self.folder / "file" / "tokenizer.model").read_bytes(), (self.folder / "pipe" / "tokenizer.model").read_bytes())
        self.assertEqual(self.map_of("file"), self.map_of("pipe"))
        self.assertFalse((self.folder / "pipe" / "standard-input.jsonl").exists())
        # The same again is recognised, something else is not taken for it.
        again = self.piped(self.lines, "--train-tokenizer", 320, "--heldout", 0.1, "--out", self.folder / "pipe")
        self.assertIn("encoded 0 documents", again.stdout.decode())
        changed = self.piped(self.lines[: len(self.lines) // 2], "--train-tokenizer", 320, "--heldout", 0.1, "--out", self.folder / "pipe")
        self.assertIn("has changed", changed.stderr.decode())
        nothing = self.piped(b"", "--train-tokenizer", 320, "--out", self.folder / "nothing")
        self.assertNotEqual(nothing.returncode, 0)
        twice = run("prepare", "--input", "-", "--input", "-", "--train-tokenizer", "320", "--out", self.folder / "twice")
        self.assertEqual(twice.returncode, 2)
        self.assertFalse((self.folder / "twice").exists())

    def test_ids_without_a_header(self):
        ids = [5 * number % 97 + 1 if number % 50 else 0 for number in range(5000)]
        header = "{'descr': '<u2', 'fortran_order': False, 'shape': (%d,), }\n" % len(ids)
        packed = array.array("H", ids).tobytes()
        (self.folder / "with.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack(f"<H{len(header)}s", len(header), header.encode()) + packed)
        (self.folder / "without.npy").write_bytes(packed)
        (self.folder / "wide.bin").write_bytes(array.array("i", ids).tobytes())
        (self.folder / "odd.bin").write_bytes(packed + b"\0")

        def prepare(file, *more):
            return run("prepare", "--from-tokens", self.folder / file, "--vocab-size", "100", "--eos", "0", "--heldout", "0.1",
                       "--out", self.folder / f"of-{file}", *more)

        told = prepare("with.npy")
        self.assertEqual(told.returncode, 0, told.stderr)
        for file, dtype in (("without.npy", "uint16"), ("wide.bin", "int32")):
            raw = prepare(file, "--dtype", dtype)
            self.assertEqual(raw.returncode, 0, raw.stderr)
            self.assertEqual(table(raw), table(told))
            self.assertEqual(self.map_of(f"of-{file}"), self.map_of("of-with.npy"))
        other = prepare("without.npy", "--dtype", "uint8")  # other ids: made again, and these are too large
        self.assertIn("has changed", other.stderr)
        for file, more, words in (("without.npy", [], ["--dtype uint16"]), ("with.npy", ["--dtype", "uint16"], ["header", "leave --dtype out"]),
                                  ("odd.bin", ["--dtype", "uint16"], ["10001 bytes", "uint16"]), ("wide.bin", ["--dtype", "float32"], ["uint8, uint16"])):
            refused = run("prepare", "--from-tokens", self.folder / file, "--vocab-size", "100", "--out", self.folder / "refused", *more)
            self.assertNotEqual(refused.returncode, 0)
            for word in words:
                self.assertIn(word, error_lines(refused)[0])

    def test_parquet_says_what_its_reader_lacks(self):
        (self.folder / "a.parquet").write_bytes(b"PAR1 and so on")
        (self.folder / "no" / "pyarrow").mkdir(parents=True)
        (self.folder / "no" / "pyarrow" / "__init__.py").write_text("raise ImportError\n")
        for environment, word in (({"PYTHONPATH": str(self.folder / "no")}, "pip install pyarrow"), ({"VQLM_PYTHON": "/nowhere/python"}, "/nowhere/python cannot be started")):
            refused = run("prepare", "--input", self.folder / "a.parquet", "--train-tokenizer", "320", "--out", self.folder / "parquet", environment=environment)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(word, error_lines(refused)[0])
            self.assertIn("a.parquet", error_lines(refused)[0])


if __name__ == "__main__":
    unittest.main()
