"""A program that links no MPI library: it runs as one rank, says so, and refuses a launcher's several ranks."""

import json
import pathlib
import subprocess
import tempfile
import unittest

from program import PROGRAM, error_lines, run


class AloneTest(unittest.TestCase):
    def test_no_library_of_mpi_is_linked(self):
        libraries = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True, check=True).stdout
        self.assertIn("libc.so", libraries)
        for name in ("libmpi", "libopen-rte", "libopen-pal", "libpmix", "libhwloc"):
            self.assertNotIn(name, libraries)

    def test_doctor_finds_one_rank(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "doctor.json"
            result = run("doctor", "--device", "cpu", "--json", path)
            report = json.loads(path.read_text(encoding="utf-8"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(report["mpi"], {"library": "none", "thread_level": "not started"})
        self.assertEqual(len(report["ranks"]), 1)
        self.assertIn("mpi     not built in: one rank", result.stdout)

    def test_several_ranks_are_refused_with_the_way_out(self):
        for announced in ({"OMPI_COMM_WORLD_SIZE": "2"}, {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},
                          {"PMIX_RANK": "1"}):
            result = run("doctor", "--device", "cpu", environment={"VQLM_TERMINAL": "0", **announced})
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertNotIn("all-reduce", result.stdout)
            if "PMIX_RANK" in announced:  # rank 0 speaks for all
                continue
            [line] = error_lines(result)
            self.assertIn("the launcher started 2 processes, but this program was built without MPI", line)
            self.assertIn("launch/build.sh", line)


if __name__ == "__main__":
    unittest.main()
