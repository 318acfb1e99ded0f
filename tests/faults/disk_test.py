"""Disks that are full, folders that cannot be written or disappear, two jobs on one run folder: what can be done is done, what
cannot is said, checkpoints that are there stay good, and the resume is the uninterrupted run, bit by bit."""

import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from job import Job
from tiny_runs import Reference, STEPS, history, newest_checkpoint, prepare, tensor_files, train_arguments, wait_for_step

TIMEOUT = 120
# A file size limit then makes writing fail with EFBIG, as a full disk does with ENOSPC, instead of ending the process.
WITHOUT_SIGXFSZ = """import os, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])"""


class Disk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        prepare(cls.folder)
        cls.reference = Reference(cls.folder, "vq", (1, 1))
        whole = newest_checkpoint(cls.folder / "whole-vq-1x1")
        cls.checkpoint_bytes = sum(path.stat().st_size for path in whole.iterdir())
        cls.largest_file = max(path.stat().st_size for path in whole.iterdir())

    def arguments(self, run, **settings):
        return train_arguments(self.folder, run, "vq", (1, 1), **settings)

    def start(self, run, *flags, **settings):
        self.starts = getattr(self, "starts", 0) + 1
        job = Job([*self.arguments(run, **settings), *flags], 1, self.folder / f"{self.id()}-{self.starts}.log",
                  prefix=[sys.executable, "-c", WITHOUT_SIGXFSZ])
        self.addCleanup(job.kill_all)
        return job

    def assert_error(self, job, *words, codes=(1,)):
        self.assertIn(job.wait(TIMEOUT), codes, job.words())
        errors = [line for line in job.words().splitlines() if "vqlm: error: " in line]
        self.assertEqual(len(errors), 1, job.words())
        for word in words:
            self.assertIn(str(word), errors[0])

    def assert_resume_ends_well(self, run, **settings):
        job = self.start(run, "--resume=auto", **settings)
        self.assertEqual(job.wait(TIMEOUT), 0, job.words())
        self.assertEqual(self.reference.differences_at_end(run), [], job.words())
        return job.words()

    def mount(self, size, *options):
        """A disk of its own, or a skipped test where only root may mount."""
        point = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", point]
        try:
            mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            self.skipTest("there is no mount command")
        if mounted.returncode != 0:
            self.skipTest(f"no small disk can be mounted here: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", point], check=True)
        return point

    def assert_trained_on_without_saving(self, job, run, newest):
        """The last save failed, so the job failed; but every step was done, and what was saved before is what resumes."""
        self.assert_error(job, f"step {STEPS}", "was not saved", "make room")
        self.assertEqual(self.reference.differences(history(run)), [])
        self.assertIn((STEPS, "step"), history(run))
        saved = sorted(path.name for path in (run / "checkpoints").glob("step-????????"))
        self.assertEqual(saved, [f"step-{step:08}" for step in newest], job.words())

    def test_full_from_the_first_save_on(self):
        disk = self.mount(self.checkpoint_bytes * 3 // 5)
        run = disk / "run"
        self.assert_trained_on_without_saving(self.start(run, checkpoint__max_failed_saves=0), run, [])
        subprocess.run(["mount", "-o", "remount,size=64M", disk], check=True)
        self.assertIn("starting at step 0", self.assert_resume_ends_well(run))

    def test_a_file_that_may_not_grow_on(self):
        run = self.folder / "limited"
        job = self.start(run, checkpoint__keep=0, checkpoint__max_failed_saves=0)
        wait_for_step(job, run, 10)
        resource.prlimit(job.process.pid, resource.RLIMIT_FSIZE, (self.largest_file * 3 // 4,) * 2)
        job.wait(TIMEOUT)
        newest = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-????????"))
        self.assertGreaterEqual(newest, 6)  # that of step 8 may still have been in the background
        self.assert_trained_on_without_saving(job, run, range(2, newest + 1, 2))
        self.assertIn(f"continuing after step {newest} ", self.assert_resume_ends_well(run, checkpoint__keep=0))

    def test_full_in_the_middle_of_a_run(self):
        disk = self.mount(self.checkpoint_bytes * 6 + 65536)
        run = disk / "run"
        job = self.start(run, checkpoint__keep=0, checkpoint__max_failed_saves=0)
        job.wait(TIMEOUT)
        newest = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-????????"))
        self.assertGreaterEqual(newest, 6)
        self.assert_trained_on_without_saving(job, run, range(2, newest + 1, 2))
        self.assertIn(f"{run}/checkpoints/step-{newest + 2:08}", job.words())  # the first that failed is named
        subprocess.run(["mount", "-o", "remount,size=64M", disk], check=True)
        self.assertIn(f"continuing after step {newest} ", self.assert_resume_ends_well(run, checkpoint__keep=0))

    def test_saves_that_fail_again_and_again_end_the_run(self):
        disk = self.mount(self.checkpoint_bytes * 3 // 5)
        run = disk / "run"
        job = self.start(run, checkpoint__max_failed_saves=3)
        self.assert_error(job, "3 saves in a row have failed (checkpoint.max_failed_saves = 3)", "No space left",
                          "this run has no checkpoint yet", "make room")
        self.assertLess(max(step for step, kind in history(run) if kind == "step"), STEPS)
        subprocess.run(["mount", "-o", "remount,size=64M", disk], check=True)
        self.assert_resume_ends_well(run)

    def test_a_lowered_keep_makes_room_at_a_resume(self):
        disk = self.mount(self.checkpoint_bytes * 6 + 65536)
        run = disk / "run"
        self.assert_error(self.start(run, checkpoint__keep=0, checkpoint__max_failed_saves=2), "2 saves in a row have failed")
        self.assertGreaterEqual(len(list((run / "checkpoints").glob("step-????????"))), 3)
        self.assert_resume_ends_well(run, checkpoint__keep=1, checkpoint__max_failed_saves=1)

    def test_full_when_metrics_are_written_and_room_again(self):
        disk = self.mount("16M")
        run = disk / "run"
        job = self.start(run)
        wait_for_step(job, run, 10)
        job.process.send_signal(signal.SIGSTOP)
        filler = disk / "filler"
        with open(filler, "wb", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(4096))
            except OSError:
                pass  # full
        job.process.send_signal(signal.SIGCONT)
        end = time.monotonic() + TIMEOUT
        while "No space left" not in job.words() and job.process.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        filler.unlink()
        code = job.wait(TIMEOUT)
        self.assertIn("No space left", job.words())
        self.assertIn(code, (0, 1), job.words())
        self.assertEqual(self.reference.differences(history(run)), [])
        if code == 0:  # there was room again in time
            self.assertEqual(self.reference.differences_at_end(run), [])
        else:
            self.assert_resume_ends_well(run)

    def test_run_folders_that_cannot_be_written(self):
        (self.folder / "file").write_text("in the way", encoding="utf-8")
        self.assert_error(self.start(self.folder / "file/run"), self.folder / "file/run")
        (self.folder / "in-the-way/checkpoints").mkdir(parents=True)
        (self.folder / "in-the-way/metrics.jsonl").mkdir()
        self.assert_error(self.start(self.folder / "in-the-way", "--resume=auto"), "metrics.jsonl", codes=(1, 2))
        disk = self.mount("1M", "ro")
        self.assert_error(self.start(disk / "run"), disk / "run", "Read-only")

    def test_a_run_folder_that_disappears(self):
        run = self.folder / "gone"
        job = self.start(run)
        wait_for_step(job, run, 10)
        job.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)  # a stopped process may be at the end of a system call
        shutil.rmtree(run)
        job.process.send_signal(signal.SIGCONT)
        code = job.wait(TIMEOUT)
        self.assertIn(code, (0, 1), job.words())
        if code == 1:
            self.assertIn(str(run), next(line for line in job.words().splitlines() if "vqlm: error: " in line))
        # Checkpoints after that are written to a new folder, and a resume from them has everything but the old metrics.
        job = self.start(run, "--resume")
        self.assertEqual(job.wait(TIMEOUT), 0, job.words())
        self.assertEqual(tensor_files(newest_checkpoint(run)), self.reference.files)
        self.assertEqual(self.reference.differences(history(run)), [])

    def test_a_second_job_on_one_run_folder_is_refused(self):
        run = self.folder / "shared"
        first = self.start(run)
        wait_for_step(first, run, 5)
        first.process.send_signal(signal.SIGSTOP)  # so that it cannot end before the others
        before = sorted(run.rglob("*"))
        for flags in (["--resume=auto"], ["--force"], []):
            self.assert_error(self.start(run, *flags), run, f"process {first.process.pid}", os.uname().nodename, codes=(1, 2))
        self.assertEqual(sorted(run.rglob("*")), before)
        first.kill_all()
        self.assertTrue(re.search("continuing after step|starting at step 0", self.assert_resume_ends_well(run)))


if __name__ == "__main__":
    unittest.main()
