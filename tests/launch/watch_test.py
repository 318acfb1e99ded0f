"""Ranks that hang, and ranks that are never connected: the job ends in bounded time and says which rank on which host it was."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from program import PROGRAM, SOURCE_DIR, run
from stop_test import write_text

HOST = socket.gethostname()


class Watch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        write_text(cls.folder / "text.txt", words=40_000, seed=1)
        prepared = run("prepare", "--input", "text.txt", "--train-tokenizer", "300", "--heldout", "0.1", "--out", "shards",
                       cwd=cls.folder)
        if prepared.returncode != 0:
            raise AssertionError(prepared.stderr)

    def command(self, name, *sets):
        """A training on two ranks without an end."""
        options = ["run.device=cpu", "run.threads=1", "train.steps=1000000", "train.eval_every=0", "head.clusters=16",
                   f"run.dir={name}", *sets]
        return ["mpirun", "-n", "2", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", PROGRAM,
                "train", "--config", f"{SOURCE_DIR}/configs/smoke.toml", *(word for option in options for word in ("--set", option))]

    @contextlib.contextmanager
    def job(self, command):
        """It has no end of its own: where a test fails it is killed."""
        process = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            process.stderr.close()

    def steps(self, name):
        path = self.folder / name / "metrics.jsonl"
        if not path.exists():
            return 0
        return max((json.loads(line).get("step", 0) for line in path.read_text(encoding="utf-8").splitlines()[:-1]), default=0)

    def wait_for_step(self, name, step, process):
        deadline = time.monotonic() + 120
        while self.steps(name) < step:
            self.assertIsNone(process.poll(), "the run ended early")
            self.assertLess(time.monotonic(), deadline, "no step in two minutes")
            time.sleep(0.1)

    def ranks_of(self, process):
        """Process numbers of the ranks below mpirun, by rank."""
        found = {}
        for children in pathlib.Path(f"/proc/{process.pid}/task").glob("*/children"):
            for child in children.read_text().split():
                environment = pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                found.update((int(word.split(b"=")[1]), int(child)) for word in environment if word.startswith(b"OMPI_COMM_WORLD_RANK="))
        self.assertEqual(sorted(found), [0, 1])
        return found

    def train_until_stopped(self, name, rank, *sets):
        """What the job says that ends because a rank was stopped by SIGSTOP for good."""
        with self.job(self.command(name, *sets)) as process:
            self.wait_for_step(name, 3, process)
            time.sleep(2)  # of beats
            ranks = self.ranks_of(process)
            os.kill(ranks[rank], signal.SIGSTOP)
            try:
                _, words = process.communicate(timeout=120)
            finally:
                for pid in ranks.values():
                    if os.path.exists(f"/proc/{pid}"):
                        os.kill(pid, signal.SIGKILL)
        self.assertEqual(process.returncode, 69, words)
        return words

    def test_a_rank_that_is_stopped_for_good_ends_the_job_by_its_name(self):
        words = self.train_until_stopped("stopped", 1, "parallel.heartbeat_seconds=6")
        self.assertRegex(words, rf"watchdog: rank 1 on {HOST}: no sign of life for \d+ s: .*\(last seen in step \d+, ")
        self.assertIn("parallel.heartbeat_seconds = 6", words)

    def test_so_does_rank_0(self):
        words = self.train_until_stopped("stopped-0", 0, "parallel.heartbeat_seconds=6")
        self.assertRegex(words, rf"rank 1\] error: watchdog: rank 0 on {HOST}: no sign of life for \d+ s")

    def test_a_rank_that_is_stopped_for_a_while_is_warned_of_and_goes_on(self):
        command = self.command("paused", "parallel.heartbeat_seconds=30")
        with self.job(command) as process:
            self.wait_for_step("paused", 60, process)
            rank = self.ranks_of(process)[1]
            os.kill(rank, signal.SIGSTOP)
            time.sleep(13)
            os.kill(rank, signal.SIGCONT)
            self.wait_for_step("paused", self.steps("paused") + 20, process)
            process.send_signal(signal.SIGUSR1)
            _, words = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, words)
        self.assertRegex(words, rf"warning: watchdog: rank 1 on {HOST}: no sign of life for 1\d s")
        self.assertIn(f"rank 1 on {HOST}: gives signs of life again", words)
        self.assertNotIn(f"rank 0 on {HOST}: no", words)  # which was well
        self.assertRegex(words, r"warning: step \d+: took 1\d\.\d s, \d+ times the median")

    def test_ranks_that_mpi_does_not_connect_end_with_the_interfaces(self):
        # One of the two never starts MPI, so that the other waits in its start.
        command = ["mpirun", "-n", "1", "--oversubscribe", "--bind-to", "none", PROGRAM, "doctor", ":", "-n", "1", "sleep", "100"]
        result = subprocess.run(command, env={**os.environ, "VQLM_START_SECONDS": "4"}, capture_output=True, text=True, timeout=90,
                                check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn(f"MPI has not connected the ranks after 4 s (VQLM_START_SECONDS), seen on {HOST}", result.stderr)
        self.assertIn("launch/mpirun.sh --interface", result.stderr)

    def test_an_interface_that_is_not_there_is_an_error(self):
        result = run("doctor", ranks=2, environment={"VQLM_INTERFACE": "nosuch0"})
        self.assertEqual(result.returncode, 1)
        self.assertIn('= "nosuch0": this host has no such interface; it has ', result.stderr)

    def test_a_folder_that_the_hosts_do_not_share_is_refused_before_the_first_step(self):
        # Each rank in a folder of its own, as on hosts without a common file system.
        for rank in ("0", "1"):
            (self.folder / f"host{rank}").mkdir()
            os.symlink(self.folder / "shards", self.folder / f"host{rank}/shards")
        inner = self.command("apart", "train.steps=5", "optim.warmup_steps=0")
        mpirun, program = inner[:inner.index(PROGRAM)], inner[inner.index(PROGRAM):]
        command = [*mpirun, "bash", "-c", 'cd "host$OMPI_COMM_WORLD_RANK" && exec "$0" "$@"', *program]
        result = subprocess.run(command, cwd=self.folder, env={**os.environ, "VQLM_SHARED_FOLDER_SECONDS": "3"}, capture_output=True,
                                text=True, timeout=60, check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("run.dir = apart: rank 1 does not see what rank 0 wrote there", result.stderr)
        self.assertFalse((self.folder / "host0/apart/metrics.jsonl").exists())
        self.assertFalse((self.folder / "host0/apart/seen-by-all").exists())


if __name__ == "__main__":
    unittest.main()
