"""vqlm selftest: passes where all is well and leaves nothing behind; what fails is named. Over vqlm_simt, the devices."""

import json
import pathlib
import tempfile
import unittest

from program import PROGRAM, error_lines, run

ON_DEVICES = pathlib.Path(PROGRAM).name == "vqlm_simt"
COMPUTING = ["determinism", "gradient spike", "replica check"]
FILES = ["folder", "shared folder", "file locks", "disk", "checkpoint", "damage"]


class SelftestTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)

    def examine(self, *arguments, ranks=0):
        """The result and the names of the checks, which all passed; nothing but the report is left."""
        result = run("selftest", "--dir", self.path, "--json", self.path / "report.json", *arguments, ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual([file.name for file in self.path.iterdir()], ["report.json"])
        report = json.loads((self.path / "report.json").read_text(encoding="utf-8"))
        self.assertTrue(report["ok"] and all(check["ok"] for check in report["checks"]))
        self.assertIn(f"all {len(report['checks'])} checks passed", result.stdout)
        return result, [check["name"] for check in report["checks"]]


@unittest.skipIf(ON_DEVICES, "nothing here depends on the devices")
class Selftest(SelftestTest):
    def test_one_rank(self):
        _, names = self.examine("--device", "cpu")
        self.assertEqual(names, ["device", "against the CPU", "collectives world", *COMPUTING, *FILES])

    def test_four_ranks(self):
        result, names = self.examine("--device", "cpu", ranks=4)
        groups = ["collectives world", "collectives data", "collectives tensor"]
        self.assertEqual(names, ["device", "against the CPU", *groups, *COMPUTING, *FILES])
        self.assertIn("a flipped bit is found", result.stdout)
        self.assertIn("4 damaged rank files refused", result.stdout)

    def test_a_missing_folder_fails_by_name(self):
        result = run("selftest", "--device", "cpu", "--dir", self.path / "missing", ranks=2)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stdout, rf"FAILED  folder .*{self.path}/missing: .*choose another --dir")
        (line,) = error_lines(result)
        self.assertIn("vqlm: error: selftest: 1 of 7 checks failed: folder", line)

    def test_bad_arguments(self):
        self.assertEqual(run("selftest", "--tensor", "-1").returncode, 2)
        self.assertEqual(run("selftest", "--device", "cpu", "--tensor", "3", ranks=2).returncode, 2)


@unittest.skipUnless(ON_DEVICES, "the machine may have GPUs or none")
class SelftestOnDevices(SelftestTest):
    def test_two_devices(self):
        result, _ = self.examine("--device", "cuda", ranks=2)
        self.assertIn("cuda:0", result.stdout)
        self.assertRegex(result.stdout, r"ok +against the CPU +losses within")


if __name__ == "__main__":
    unittest.main()
