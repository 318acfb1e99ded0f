"""Negative control of kill_test.py: its comparison catches a restore that is wrong in one thing only. A run is killed, its newest
checkpoint is made wrong behind the back of every hash, the resume is taken in, and the comparison is not."""

import pathlib
import re
import shutil
import tempfile
import unittest

import forge
from job import Job
from tiny_runs import HEADS, MODEL, Reference, STEPS, history, newest_checkpoint, prepare, train_arguments, wait_for_step

TIMEOUT = 120
SEED = 1  # train.seed
FORGERIES = {
    "stale cursor": lambda checkpoint: forge.stale_cursor(checkpoint, MODEL["train.global_batch"]),
    "m and v swapped": lambda checkpoint: forge.exchange(checkpoint, forge.other_moment),
    "v for m": lambda checkpoint: forge.exchange(checkpoint, forge.second_moment),
    "another layer's v": lambda checkpoint: forge.exchange(checkpoint, forge.other_layer),
    "another seed": lambda checkpoint: forge.other_seed(checkpoint, SEED, SEED + 1),
}


class BrokenRestore(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        prepare(cls.folder)

    def killed_run(self, head, grid):
        """A run killed -9 after half of its steps."""
        run = self.folder / f"killed-{head}"
        ranks = grid[0] * grid[1]
        job = Job(train_arguments(self.folder, run.name, head, grid), ranks, f"{run}.log")
        wait_for_step(job, run, STEPS // 2)
        job.kill_all()
        self.assertEqual(job.orphans(), [])
        return run

    def resumed(self, killed, name, head, grid, forgery, **settings):
        """(differences from the uninterrupted run, exit code and words) of a copy of the killed run that is resumed after
        `forgery`, and that it began where its checkpoint says."""
        run = self.folder / name.replace(" ", "-").replace("'", "")
        shutil.copytree(killed, run)
        checkpoint = newest_checkpoint(run)
        forgery(checkpoint)
        job = Job([*train_arguments(self.folder, run.name, head, grid, **settings), "--resume"], grid[0] * grid[1], f"{run}.log")
        code = job.wait(TIMEOUT)
        begin = re.search(r"continuing after step (\d+)", job.words())
        self.assertIsNotNone(begin, f"{name}: the resume was not taken in:\n{job.words()}")
        self.assertEqual(int(begin[1]), int(checkpoint.name[5:]), f"{name}: the resume took another checkpoint")
        return run, code, job.words()

    def test_the_comparison_catches_what_the_resume_cannot(self):
        for head, grid in (("dense", (1, 1)), ("vq", (2, 1))):
            reference = Reference(self.folder, head, grid)
            killed = self.killed_run(head, grid)
            with self.subTest(head=head, forgery="none"):
                run, code, words = self.resumed(killed, f"{head} rewritten", head, grid,
                                                lambda checkpoint: forge.exchange(checkpoint, lambda name: None))
                self.assertEqual(code, 0, words)
                self.assertEqual(reference.differences_at_end(run), [])
            for name, forgery in FORGERIES.items():
                with self.subTest(head=head, forgery=name):
                    settings = {"train__seed": SEED + 1} if name == "another seed" else {}
                    run, code, words = self.resumed(killed, f"{head} {name}", head, grid, forgery, **settings)
                    found = reference.differences(history(run))
                    self.assertTrue(found, f"a restore with {name} went unnoticed")
                    print(f"{head} {name}: {len(found)} differences, the first: {found[0]}", flush=True)


if __name__ == "__main__":
    unittest.main()
