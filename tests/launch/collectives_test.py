"""vqlm bench collectives under mpirun, and what vqlm plan makes of it."""

import json
import pathlib
import re
import tempfile
import unittest

from program import SOURCE_DIR, run


class Collectives(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.file = pathlib.Path(temporary.name) / "network.json"

    def bench(self, ranks, *options):
        result = run("bench", "collectives", "--device", "cpu", "--max-bytes", "65536", "--seconds", "0.01", "--json", self.file,
                     *options, ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout, json.loads(self.file.read_text(encoding="utf-8"))

    def test_a_grid_has_its_groups_with_every_collective_and_size(self):
        text, found = self.bench(4, "--tensor", "2")
        self.assertEqual([(group["group"], group["ranks"]) for group in found["groups"]], [("world", 4), ("data", 2), ("tensor", 2)])
        for group in found["groups"]:
            self.assertEqual([(rate["collective"], rate["bytes"]) for rate in group["rates"]],
                             [(name, size) for name in ("all_reduce", "reduce_scatter", "all_gather", "all_to_all")
                              for size in (1024, 8192, 65536)])
            self.assertTrue(all(rate["seconds"] > 0 and rate["bus_bytes_per_second"] > 0 for rate in group["rates"]))
            self.assertIn(f"group '{group['group']}', {group['ranks']} ranks", text)
        self.assertEqual(found["pairs"], [])  # of one host

        plan = run("plan", "--config", f"{SOURCE_DIR}/configs/demo-vq.toml", "--vocab", "8192", "--grid", "2x1", "--measured", self.file)
        self.assertEqual(plan.returncode, 0, plan.stderr)
        found["rates"]["network_bytes_per_second"] /= 100
        self.file.write_text(json.dumps(found), encoding="utf-8")
        slower = run("plan", "--config", f"{SOURCE_DIR}/configs/demo-vq.toml", "--vocab", "8192", "--grid", "2x1", "--measured", self.file)
        self.assertNotEqual(plan.stdout, slower.stdout)
        both = run("plan", "--measured", self.file, "--network-gbs", "1")
        self.assertEqual(both.returncode, 2)
        self.assertRegex(both.stderr, re.compile("measured.*network-gbs|network-gbs.*measured", re.DOTALL))

    def test_one_process_says_that_there_is_nothing_to_measure(self):
        text, found = self.bench(0)
        self.assertIn("one rank: nothing to exchange", text)
        self.assertEqual(found["rates"], {})


if __name__ == "__main__":
    unittest.main()
