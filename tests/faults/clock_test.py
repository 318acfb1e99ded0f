"""A clock that goes backwards all the time changes nothing: neither a run, nor which checkpoint is the newest, nor the resume."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

from job import Job
from tiny_runs import Reference, STEPS, prepare, train_arguments, wait_for_step

TIMEOUT = 120


class Clock(unittest.TestCase):
    def test_a_killed_run_on_a_clock_that_goes_back(self):
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            self.skipTest("there is no C compiler")
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        prepare(folder)
        shim = folder / "backward_clock.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, pathlib.Path(__file__).parent / "backward_clock.c", "-ldl"],
                       check=True)
        date = subprocess.run(["date", "+%s"], env={"LD_PRELOAD": str(shim)}, capture_output=True, text=True, check=True).stdout
        now = subprocess.run(["date", "+%s"], capture_output=True, text=True, check=True).stdout
        self.assertLess(int(date), int(now), "the shim does nothing")
        for grid in ((1, 1), (2, 1)):
            reference = Reference(folder, "vq", grid)
            run = folder / f"backwards-{grid[0]}"
            for attempt, flags in enumerate(([], ["--resume"])):
                job = Job([*train_arguments(folder, run.name, "vq", grid), *flags], grid[0], f"{run}-{attempt}.log",
                          environment={"LD_PRELOAD": shim})
                self.addCleanup(job.kill_all)
                if attempt == 0:
                    wait_for_step(job, run, STEPS // 2)
                    job.kill_all()
                else:
                    self.assertEqual(job.wait(TIMEOUT), 0, job.words())
            self.assertEqual(reference.differences_at_end(run), [], job.words())
            self.assertIn("continuing after step", job.words())
            self.assertGreaterEqual(len(list(run.glob("events.*"))), 1)


if __name__ == "__main__":
    unittest.main()
