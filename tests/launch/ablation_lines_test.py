"""launch/ablation/ablation_lines.py: a study's lines compared, with intervals and p-values by a Python that has SciPy."""

import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import unittest

from program import SOURCE_DIR


class Chance(unittest.TestCase):
    def compare(self, lines, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "runs.jsonl")
            path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            tool = pathlib.Path(SOURCE_DIR, "launch", "ablation", "ablation_lines.py")
            pythons = [python for python in (sys.executable, "/usr/bin/python3")
                       if subprocess.run([python, "-c", "import scipy"], stderr=subprocess.DEVNULL, check=False).returncode == 0]
            self.assertTrue(pythons, "no Python with SciPy; launch/build.sh installs python3-scipy")
            return subprocess.run([pythons[0], "-B", tool, path, *arguments], capture_output=True, text=True, check=False)

    @staticmethod
    def line(row, seed, nll, **others):
        line = {"row": row, "seed": seed, "steps": 600, "parameters": 1000, "nll": nll, "perplexity": math.exp(nll), "seconds_a_step_p10": 0.5}
        return json.dumps(line | others)

    def test_pairs_have_students_interval(self):
        lines = [self.line("base", seed, 4.0 + 0.1 * seed) for seed in range(3)]
        lines += [self.line("other", seed, 4.0 + 0.1 * seed + less) for seed, less in enumerate([-0.10, -0.12, -0.14])]
        lines.append(self.line("once", 0, 4.5))
        result = self.compare(lines, "--baseline", "base")
        self.assertEqual(result.returncode, 0, result.stderr)
        cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in result.stdout.splitlines()}
        # Mean -0.12, deviation 0.02: t = -0.12 / (0.02 / sqrt(3)) = -10.39 with two degrees of freedom, p = 0.0091, and 4.303
        # standard errors to either side.
        half = 4.302653 * 0.02 / math.sqrt(3)
        ends = [f"{100 * math.expm1(-0.12 + side * half):+.1f}" for side in (-1, 1)]
        self.assertEqual(cells["other"][-3:], ["-11.3 %", f"{ends[0]} to {ends[1]} %", "0.0091"])
        self.assertEqual(cells["once"][-3:], [f"{100 * math.expm1(0.5):+.1f} %", "-", "-"])
        self.assertEqual(cells["base"][1:7], ["3", "600", "1,000", f"{statistics.fmean(math.exp(4 + 0.1 * s) for s in range(3)):.2f}", "500", "300"])

    def test_what_is_no_study_is_named(self):
        for lines, arguments, words in [
            (["{"], ["base"], ["runs.jsonl:1", "no line of a study"]),
            ([self.line("base", 0, 4.0)] * 2, ["base"], ["runs.jsonl:2", "twice"]),
            ([self.line("base", 0, 4.0)], ["bse"], ["no row bse", "it has base"]),
        ]:
            result = self.compare(lines, "--baseline", *arguments)
            self.assertEqual(result.returncode, 1, result.stdout)
            for word in words:
                self.assertIn(word, result.stderr)


if __name__ == "__main__":
    unittest.main()
