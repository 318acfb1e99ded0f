"""Bad days of a run on devices: too little memory, gradients that are not finite, a rank that dies, hangs, or fails alone."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import unittest

from device_runs import GRID, HEADS, DeviceRuns
from program import PROGRAM

SMALL = [*HEADS["dense"], *GRID, "train.steps=3"]
# Weights are multiplied by 1 - 100 x 10 in each step and moved by 100: the squares of bf16 activations overflow at once.
DIVERGING = ["optim.lr=100", "optim.weight_decay=10", "optim.warmup_steps=0", "train.grad_clip=0", "train.steps=20",
             "train.max_skipped_steps=2", "checkpoint.every=1", "checkpoint.keep=0"]


def processes_with(word):
    """Ids of the processes that have the word in their command lines."""
    found = []
    for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in line.read_bytes():
                found.append(int(line.parent.name))
        except OSError:  # ended meanwhile
            pass
    return found


def orphans(word, timeout=20):
    """Processes with the word that still live so many seconds after their job ended: one that was killed needs some to end."""
    end = time.monotonic() + timeout
    while (left := processes_with(word)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


class DeviceFailures(DeviceRuns):
    def files_of_ranks(self, name, step):
        """The content hashes of a checkpoint's rank files."""
        manifest = json.loads((self.folder / name / f"checkpoints/step-{step:08}/manifest.json").read_text())
        return {file["name"]: file["xxh3"] for file in manifest["files"] if re.fullmatch(r"rank-\d+\.h5", file["name"])}

    def fault(self, name, kind, at, group, rank):
        """A run that must not end well, and of which no process may be left."""
        where = {"NCCL_STANDIN_" + kind: str(at), "NCCL_STANDIN_GROUP": group, "NCCL_STANDIN_RANK": str(rank)}
        result = self.start(name, *SMALL, "train.steps=20", "parallel.timeout_seconds=3", ranks=4, timeout=60, **where)
        self.assertNotEqual(result.returncode, 0)
        self.assertNotIn("exceeded the time", result.stderr)  # mpirun's own, after 60 s
        self.assertEqual(orphans(f"run.dir={self.folder}/{name}"), [])
        return result

    def test_a_run_that_does_not_fit_is_refused_and_can_be_started_again(self):
        # 32 MiB are cuBLASLt's workspace, a tenth is kept for what nobody accounts for; the run needs some more.
        result = self.start("large", *SMALL, "data.seq_len=640", "train.micro_batch=4", ranks=4, SIMT_MEMORY="46M")
        self.assert_fails(result, "out of device memory: needs", "a rank", "free", "activations", "choose", "train.micro_batch =",
                          "data.seq_len =")
        self.assertFalse((self.folder / "large/metrics.jsonl").exists())
        self.train("large", *SMALL, ranks=4)

    def test_a_run_that_just_fits_trains(self):
        # What is asked for as one piece at the start must not count the workspace, which is there already, twice.
        self.train("fits", *SMALL, ranks=4, SIMT_MEMORY="40M")

    def test_gradients_that_are_not_finite_are_skipped_alike_and_then_end_the_run(self):
        result = self.start("diverging", *HEADS["vq"], *GRID, *DIVERGING, ranks=4)
        self.assert_fails(result, "step 4", "train.max_skipped_steps = 2", "lower optim.lr", "--resume")
        skipped = re.findall(r"\[[\d:]+(?: rank (\d))?\] warning: (step \d): .* the update was skipped", result.stderr)
        self.assertEqual(sorted(skipped), [(rank, step) for rank in ("", "1", "2", "3") for step in ("step 2", "step 3")])
        self.assertEqual([line["step"] for line in self.metrics("diverging") if line.get("skipped")], [2, 3, 4])
        saved = self.files_of_ranks("diverging", 1)
        self.assertEqual(len(saved), 4)
        self.assertEqual(self.files_of_ranks("diverging", 4), saved)  # nothing was updated

    def test_a_rank_that_hangs_ends_the_job_by_the_time_out(self):
        # Those that graphs replay keep the number that they were recorded with: the data group's is the last of them.
        for group, at, rank, collective in (("world", 20, 1, "all_reduce"), ("data", 26, 3, "all_gather")):
            with self.subTest(group=group):
                result = self.fault(f"hang-{group}", "HANG_AT", at, group, rank)
                self.assertEqual(result.returncode, 69, result.stderr)
                words = result.stderr
                self.assertRegex(words, rf"watchdog: {collective} #\d+ of group '{group}' .* not completed")
                self.assertIn("parallel.timeout_seconds = 3", words)

    def test_a_rank_that_dies_ends_the_job(self):
        result = self.fault("die", "DIE_AT", 26, "data", 3)
        self.assertIn("rank 3", result.stderr)
        self.assertIn("signal 9", result.stderr)

    def test_the_error_of_one_rank_is_seen_before_the_peers_watchdogs_end_the_job(self):
        shutil.copytree(self.folder / "shards", self.folder / "damaged")
        shard = next((self.folder / "damaged").glob("train-*.h5"))
        data = bytearray(shard.read_bytes())
        for begin in range(len(data) // 4, len(data) * 3 // 4, 1000):  # so that every chunk there fails its checksum
            data[begin] ^= 255
        shard.write_bytes(data)
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "--timeout", "60"]
        for rank in range(4):
            damaged = [f"data.train={self.folder}/damaged/train-*.h5"] if rank == 2 else []
            command += [*([":"] if rank else []), "-n", "1", PROGRAM, "train", *self.options("alone", *SMALL, *damaged)]
        # Rank 2 fails where it reads text for the token counts, while rank 0 waits in the collective that adds them up: there it
        # sees an error of NCCL's. In an earlier one rank 2 would wait, too, and not yet have failed.
        for at in range(5, 12):
            environment = {**os.environ, "NCCL_STANDIN_FAIL_AT": str(at), "NCCL_STANDIN_GROUP": "world", "NCCL_STANDIN_RANK": "0"}
            result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=70, check=False)
            if "rank 2: " in result.stderr:
                break
        self.assert_fails(result, "rank 2", shard.name, "checksum")
        self.assertIn("watchdog: ", result.stderr)  # else there was nothing to be faster than


if __name__ == "__main__":
    unittest.main()
