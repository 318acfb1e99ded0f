"""launch/linux_doc_to_c4.py: what becomes a document, and C4's format."""

import glob
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.environ["VQLM_SOURCE_DIR"] + "/launch/linux_doc_to_c4.py"


def convert(source, out):
    return subprocess.run([sys.executable, "-B", SCRIPT, source, out], capture_output=True, text=True, check=False)


class LinuxDocToC4(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.source = self.folder / "Documentation"
        (self.source / "translations/it").mkdir(parents=True)
        (self.source / "driver-api").mkdir()
        long_text = "word " * 100
        (self.source / "plain.txt").write_text(long_text + "plain", encoding="utf-8")
        (self.source / "driver-api/packed.rst.gz").write_bytes(gzip.compress((long_text + "größe").encode()))
        (self.source / "translations/it/left-out.rst").write_text(long_text, encoding="utf-8")
        (self.source / "short.rst").write_text("contents", encoding="utf-8")
        (self.source / "latin1.txt").write_bytes(long_text.encode() + b"gr\xf6\xdfe")
        (self.source / "picture.svg").write_text(long_text, encoding="utf-8")

    def test_documents_are_lines_of_json(self):
        result = convert(self.source, self.folder / "out")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("latin1.txt: not UTF-8", result.stderr)
        documents = {}
        for name in glob.glob(f"{self.folder}/out/c4-train.*-of-00004.json.gz"):
            with gzip.open(name, "rt", encoding="utf-8") as lines:
                for line in lines:
                    document = json.loads(line)
                    self.assertEqual(set(document), {"text", "timestamp", "url"})
                    documents[document["url"]] = document["text"]
        self.assertEqual(set(documents), {"https://docs.kernel.org/plain.html", "https://docs.kernel.org/driver-api/packed.html"})
        self.assertTrue(documents["https://docs.kernel.org/driver-api/packed.html"].endswith("größe"))

    def test_the_same_source_gives_the_same_bytes(self):
        convert(self.source, self.folder / "a")
        convert(self.source, self.folder / "b")
        for name in os.listdir(self.folder / "a"):
            self.assertEqual((self.folder / "a" / name).read_bytes(), (self.folder / "b" / name).read_bytes())

    def test_a_missing_folder_is_named(self):
        result = convert(self.folder / "missing", self.folder / "out")
        self.assertEqual(result.returncode, 1)
        self.assertIn("missing", result.stderr)


if __name__ == "__main__":
    unittest.main()
