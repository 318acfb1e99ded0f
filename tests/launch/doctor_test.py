"""vqlm doctor: what it finds, and that each failed check is named. Over vqlm_simt, whose GPUs are the host executor's, the
devices; over the program of this build the rest."""

import json
import pathlib
import random
import tempfile
import unittest

from program import PROGRAM, error_lines, run

ON_DEVICES = pathlib.Path(PROGRAM).name == "vqlm_simt"


def lines_of(result, first_word):
    return [line for line in result.stdout.splitlines() if line.split() and line.split()[0] == first_word]


class DoctorTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)

    def examine(self, *arguments, ranks=0, environment=None, shell=None):
        """The result and the JSON report."""
        report = self.path / "doctor.json"
        report.unlink(missing_ok=True)
        result = run("doctor", "--json", report, *arguments, ranks=ranks, environment=environment, shell=shell)
        return result, json.loads(report.read_text(encoding="utf-8")) if report.exists() else None


@unittest.skipIf(ON_DEVICES, "nothing here depends on the devices")
class Doctor(DoctorTest):
    def make_shards(self):
        rng = random.Random(5)
        words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
        text = "\n\n".join(" ".join(rng.choices(words, k=60)) for _ in range(400))
        (self.path / "text.txt").write_text(text, encoding="utf-8")
        made = run("prepare", "--input", self.path / "text.txt", "--train-tokenizer", 320, "--out", self.path / "shards", timeout=200)
        self.assertEqual(made.returncode, 0, made.stderr)
        return f"{self.path}/shards/train-*.h5"

    def test_the_cpu_alone(self):
        result, report = self.examine("--device", "cpu")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([check["name"] for check in report["checks"]], ["device", "matmul result", "matmul speed", "all-reduce world"])
        self.assertTrue(report["ok"] and all(check["ok"] for check in report["checks"]))
        self.assertTrue(report["checks"][0]["text"].startswith("cpu ("))
        self.assertGreater(report["checks"][2]["rate"], 1e8)
        self.assertIn("MPI", report["mpi"]["library"])
        self.assertEqual(report["mpi"]["thread_level"], "not started")
        self.assertTrue(lines_of(result, "mpi")[0].endswith(", not started: one rank"), result.stdout)
        self.assertEqual(len(lines_of(result, "ok")), 4)
        self.assertEqual(len(lines_of(result, "skipped")), 1)
        self.assertIn("all 4 checks passed", result.stdout)

    def test_ranks_speak_once_and_sum_up(self):
        shards = self.make_shards()
        result, report = self.examine("--device", "cpu", "--tensor", 2, "--data", shards, ranks=4)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(lines_of(result, "vqlm")), 1)
        self.assertEqual(len(report["ranks"]), 4)
        names = [check["name"] for check in report["checks"]]
        self.assertEqual(names, ["device", "matmul result", "matmul speed", "all-reduce world", "all-reduce data", "all-reduce tensor", "shard read"])
        for check in report["checks"][3:6]:
            self.assertIn("exact over", check["text"])
        self.assertGreater(report["checks"][6]["rate"], 0)

    def test_a_damaged_shard_fails_by_name(self):
        shards = self.make_shards()
        shard = next((self.path / "shards").glob("train-*.h5"))
        content = bytearray(shard.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(64)
        shard.write_bytes(content)
        result, report = self.examine("--device", "cpu", "--data", shards)
        self.assertEqual(result.returncode, 1)
        self.assertFalse(report["ok"])
        (failed,) = lines_of(result, "FAILED")
        self.assertIn("shard read", failed)
        self.assertIn(shard.name, failed)
        self.assertEqual(error_lines(result), ["vqlm: error: doctor: 1 of 5 checks failed: shard read"])

    def test_missing_shards_fail_on_all_ranks_once(self):
        result, report = self.examine("--device", "cpu", "--data", "/nowhere/*.h5", ranks=2)
        self.assertEqual(result.returncode, 1)
        (failed,) = lines_of(result, "FAILED")
        self.assertIn("/nowhere/*.h5", failed)
        self.assertEqual(report["checks"][-1]["name"], "shard read")

    def test_bad_arguments(self):
        self.assertEqual(run("doctor", "--device", "gpu").returncode, 2)
        self.assertEqual(run("doctor", "--tensor", 0).returncode, 2)


@unittest.skipUnless(ON_DEVICES, "the machine may have GPUs or none")
class DoctorOnDevices(DoctorTest):
    def test_one_device(self):
        result, report = self.examine()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(report["cuda"]["built"])
        self.assertEqual(len(report["devices"]), 4)
        self.assertIn("cuda:0", report["checks"][0]["text"])
        self.assertIn("bf16", report["checks"][2]["text"])

    def test_two_devices_over_nccl(self):
        result, report = self.examine(ranks=2)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("exact over 2 ranks", report["checks"][3]["text"])
        self.assertIn("gpu 1 (0000:02:00.0)", report["ranks"][1])
        self.assertRegex(report["nccl"], r"^\d+\.\d+\.\d+$")

    def test_one_visible_device_a_rank(self):
        one_each = "export SIMT_DEVICES=1 SIMT_PCI_BASE=$((7 * OMPI_COMM_WORLD_LOCAL_RANK))"  # srun --gpus-per-task=1
        result, report = self.examine(ranks=2, shell=one_each)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("gpu 0 (0000:01:00.0)", report["ranks"][0])
        self.assertIn("gpu 0 (0000:08:00.0)", report["ranks"][1])
        self.assertIn("exact over 2 ranks", report["checks"][3]["text"])

    def test_no_device_is_the_cpu_unless_asked_for(self):
        none = {"SIMT_DEVICES": "0"}
        result, report = self.examine(environment=none)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(report["checks"][0]["text"].startswith("cpu ("))
        self.assertIn("computing on the CPU", result.stderr)
        result, report = self.examine("--device", "cuda", environment=none)
        self.assertEqual(result.returncode, 1)
        self.assertIn('run.device = "cpu"', lines_of(result, "FAILED")[0])

    def test_a_device_without_stream_ordered_memory_serves_too(self):
        result, report = self.examine(environment={"SIMT_MEMORY_POOLS": "0"})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertFalse(report["devices"][0]["memory_pools"])
        self.assertIn("plain blocks", result.stdout)

    def test_slices_of_one_card_are_named(self):
        slice_of_each = "export SIMT_DEVICES=1 SIMT_DEVICE_NAME='NVIDIA H200 MIG 1g.18gb'"
        result, report = self.examine(ranks=2, shell=slice_of_each)
        self.assertEqual(result.returncode, 1)
        self.assertTrue(report["devices"][0]["mig"])
        self.assertIn("MIG slices", lines_of(result, "FAILED")[0])

    def test_more_ranks_than_devices_are_refused_with_the_counts(self):
        result, report = self.examine(ranks=2, environment={"SIMT_DEVICES": "1"})
        self.assertEqual(result.returncode, 1)
        (failed,) = lines_of(result, "FAILED")
        self.assertIn("2 ranks on this node, 1 GPU", failed)
        self.assertEqual(report["checks"][0]["name"], "device")


if __name__ == "__main__":
    unittest.main()
