"""A run that is asked to stop saves itself and ends well; --resume goes on and leaves one consistent history."""

import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time
import unittest

from program import PROGRAM, SOURCE_DIR, run


UNFINISHED = 75  # EX_TEMPFAIL: saved, to be continued


def write_text(path, words, seed):
    """Plain text of random sentences from a small vocabulary, a blank line between documents."""
    numbers = random.Random(seed)
    vocabulary = ["".join(numbers.choices("abcdefghij", k=numbers.randint(2, 7))) for _ in range(200)]
    documents = [" ".join(numbers.choices(vocabulary, k=100)) for _ in range(words // 100)]
    path.write_text("\n\n".join(documents), encoding="utf-8")


class Stop(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        write_text(self.folder / "text.txt", words=40_000, seed=1)
        prepared = run("prepare", "--input", "text.txt", "--train-tokenizer", "300", "--heldout", "0.1", "--out", "shards",
                       cwd=self.folder)
        self.assertEqual(prepared.returncode, 0, prepared.stderr)
        self.run_dir = self.folder / "run"
        self.arguments = ["train", "--config", f"{SOURCE_DIR}/configs/smoke.toml", "--set", f"run.dir={self.run_dir}",
                          "--set", "head.clusters=16", "--set", "run.device=cpu", "--set", "run.threads=1"]

    def history(self):
        lines = (self.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def steps(self):
        return [line["step"] for line in self.history() if "loss" in line]

    def wait_for_step(self, step, process):
        for _ in range(600):
            if (self.run_dir / "metrics.jsonl").exists():
                text = (self.run_dir / "metrics.jsonl").read_text(encoding="utf-8")
                if f'"step":{step},' in text:
                    return
            self.assertIsNone(process.poll(), "the run ended early")
            time.sleep(0.1)
        self.fail("no step in a minute")

    def assert_saved(self, process, words):
        self.assertEqual(process.returncode, UNFINISHED, words)
        last = self.steps()[-1]
        self.assertTrue((self.run_dir / f"checkpoints/step-{last:08}/manifest.json").exists(), words)
        self.assertEqual(self.steps(), list(range(1, last + 1)))

    def test_a_signal_saves_and_resume_goes_on(self):
        for number, how in enumerate([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]):
            existing = ["--resume"] if number else []
            done = self.steps()[-1] if number else 0
            command = [PROGRAM, *self.arguments, "--set", "train.steps=1000000", "--set", "train.eval_every=0", *existing]
            with subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True) as process:
                self.wait_for_step(done + 3, process)
                process.send_signal(how)
                _, words = process.communicate(timeout=60)
            self.assert_saved(process, words)

    def test_an_evaluation_that_a_stop_left_out_is_made_up(self):
        def evaluated():
            return [line["step"] for line in self.history() if "heldout_loss" in line]

        command = [PROGRAM, *self.arguments, "--set", "train.steps=1000000", "--set", "train.eval_every=1", "--set",
                   "optim.warmup_steps=1"]
        with subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True) as process:
            self.wait_for_step(3, process)
            process.send_signal(signal.SIGTERM)
            _, words = process.communicate(timeout=60)
        self.assert_saved(process, words)
        last = self.steps()[-1]
        self.assertEqual(evaluated(), list(range(1, last)))  # who asked for the end did not wait
        command[command.index("train.steps=1000000")] = f"train.steps={last + 1}"
        for _ in range(2):  # the second time nothing is left to do
            end = subprocess.run([*command, "--resume"], cwd=self.folder, capture_output=True, text=True, check=False)
            self.assertEqual(end.returncode, 0, end.stderr)
            self.assertEqual(evaluated(), list(range(1, last + 2)))
        self.assertNotIn("evaluating now", end.stderr)

    def test_a_signal_to_the_launch_script_saves_on_all_ranks(self):
        launch = [f"{SOURCE_DIR}/launch/mpirun.sh", "-n", "2", PROGRAM, *self.arguments]
        command = [*launch, "--set", "train.steps=1000000", "--set", "train.eval_every=0"]
        for number, how in enumerate([signal.SIGTERM, signal.SIGINT]):
            existing = ["--resume"] if number else []
            done = self.steps()[-1] if number else 0
            with subprocess.Popen([*command, *existing], cwd=self.folder, stderr=subprocess.PIPE, text=True,
                                  start_new_session=True) as process:
                self.wait_for_step(done + 3, process)
                os.killpg(process.pid, how)  # as a terminal's Ctrl-C does
                _, words = process.communicate(timeout=60)
            self.assert_saved(process, words)
            for noise in ("-----", "non-zero", "Forwarding"):
                self.assertNotIn(noise, words)
        last = self.steps()[-1]
        end = subprocess.run([*launch, "--set", f"train.steps={last + 2}", "--set", "train.eval_every=0", "--resume"], cwd=self.folder,
                             capture_output=True, text=True, check=False)
        self.assertEqual((end.returncode, self.steps()[-1]), (0, last + 2), end.stderr)

    def test_ctrl_c_ends_a_command_that_saves_nothing_without_a_stack_of_messages(self):
        for how, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            command = [f"{SOURCE_DIR}/launch/mpirun.sh", "-n", "2", PROGRAM, "bench", "step", "--config", f"{SOURCE_DIR}/configs/smoke.toml",
                       "--vocab", "8000", "--steps", "100000", "--device", "cpu"]
            with subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  start_new_session=True) as process:
                time.sleep(3)
                self.assertIsNone(process.poll(), "it ended before it was stopped")
                os.killpg(process.pid, how)
                _, words = process.communicate(timeout=60)
            self.assertEqual(process.returncode, code, words)
            for noise in ("-----", "signal", "abort", "Abort"):
                self.assertNotIn(noise, words)

    def test_the_launch_script_says_what_the_program_cannot(self):
        launch = [f"{SOURCE_DIR}/launch/mpirun.sh", "-n", "2"]
        killed = subprocess.run([*launch, "bash", "-c", "kill -9 $$"], capture_output=True, text=True, check=False)
        self.assertEqual(killed.returncode, 137, killed.stderr)
        self.assertIn("signal 9 (KILL)", killed.stderr)
        missing = subprocess.run([*launch, "no-such-program"], capture_output=True, text=True, check=False)
        self.assertNotEqual(missing.returncode, 0)
        self.assertIn("no-such-program", missing.stderr)
        passed = subprocess.run([*launch[:-1], "1", "bash", "-c", f"printf -- '-%.0s' {{1..76}} >&2; printf '\\nhalf' >&2; exit 0"],
                                capture_output=True, text=True, check=False)
        self.assertEqual((passed.returncode, passed.stderr), (0, "-" * 76 + "\nhalf"))

    def test_what_the_launch_script_leaves_out_may_come_in_pieces(self):
        (self.folder / "bin").mkdir()
        stub = self.folder / "bin" / "mpirun"
        stub.write_text("#!/bin/sh\nfor piece in 'mpir' 'un: Forwarding ' 'signal 10 to job\n' 'mpirun: what' ' else\n'; do\n"
                        "  printf \"$piece\" >&2; sleep 0.3\ndone\n")
        stub.chmod(0o755)
        result = subprocess.run([f"{SOURCE_DIR}/launch/mpirun.sh", "-n", "2", "true"], capture_output=True, text=True, check=False,
                                env={**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"})
        self.assertEqual((result.returncode, result.stderr), (0, "mpirun: what else\n"))

    def test_the_slurm_script_requeues_what_is_not_finished(self):
        (self.folder / "bin").mkdir()
        stubs = {"srun": 'echo "$@" >srun.txt; exit "$CODE"', "scontrol": 'echo "$@" >>scontrol.txt', "vqlm": "exit 9"}
        for name, body in stubs.items():
            (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
            (self.folder / "bin" / name).chmod(0o755)
        for code, more, requeued in ((0, {}, False), (75, {}, True), (75, {"REQUEUE": "no"}, False), (1, {}, False)):
            (self.folder / "scontrol.txt").unlink(missing_ok=True)
            environment = {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(self.folder), "CONFIG": "c",
                           "RUN": "r", "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "77", "CODE": str(code), **more}
            result = subprocess.run([f"{SOURCE_DIR}/launch/train.sbatch", "--set", "optim.lr=1e-4"], env=environment, capture_output=True,
                                    text=True, check=False)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertTrue((self.folder / "srun.txt").read_text().endswith("--set optim.lr=1e-4\n"))
            self.assertEqual((self.folder / "scontrol.txt").exists(), requeued)
            if requeued:
                self.assertEqual((self.folder / "scontrol.txt").read_text(), "requeue 77\n")

    def test_a_time_limit_saves_and_resume_goes_on(self):
        endless = [*self.arguments, "--set", "train.steps=1000000", "--set", "train.eval_every=0"]
        for existing in ([], ["--resume"]):
            done = self.steps()[-1] if existing else 0
            result = run(*endless, "--time-limit", "4s", *existing, cwd=self.folder)
            self.assert_saved(result, result.stderr)
            self.assertIn("--time-limit 4s; continue with --resume", result.stderr)
            self.assertGreater(self.steps()[-1], done)
        self.assertEqual(run(*endless, "--time-limit", "soon", cwd=self.folder).returncode, 2)

    def test_a_second_job_is_refused_and_a_killed_one_frees_the_folder(self):
        endless = [*self.arguments, "--set", "train.steps=1000000", "--set", "train.eval_every=0"]
        with subprocess.Popen([PROGRAM, *endless, "--set", "checkpoint.every=2"], cwd=self.folder, stderr=subprocess.DEVNULL) as process:
            self.wait_for_step(5, process)
            for existing in ("--resume", "--force"):
                refused = run(*endless, existing, cwd=self.folder)
                self.assertEqual(refused.returncode, 1, refused.stderr)
                self.assertIn(f"process {process.pid}", refused.stderr)
            self.assertIsNone(process.poll(), "the first job did not survive the second")
            process.kill()
        result = run(*endless, "--resume", "--time-limit", "2s", cwd=self.folder)
        self.assert_saved(result, result.stderr)

    def test_the_launch_script_returns_the_exit_code(self):
        launch = [f"{SOURCE_DIR}/launch/mpirun.sh", "-n", "2", PROGRAM]
        result = subprocess.run([*launch, "train", "--set", "train.steps=none"], capture_output=True, check=False)
        self.assertEqual(result.returncode, 2, result.stderr)

    def test_a_run_is_not_overwritten_unasked(self):
        short = [*self.arguments, "--set", "train.steps=2", "--set", "optim.warmup_steps=1"]
        self.assertEqual(run(*short, cwd=self.folder).returncode, 0)
        before = self.history()
        refused = run(*short, cwd=self.folder)
        self.assertEqual(refused.returncode, 2, refused.stderr)
        self.assertIn("--resume", refused.stderr)
        self.assertIn("--force", refused.stderr)
        self.assertEqual(self.history(), before)
        shorter = [*short, "--set", "train.steps=1", "--set", "optim.warmup_steps=0"]
        self.assertEqual(run(*shorter, "--force", cwd=self.folder).returncode, 0)
        self.assertEqual(self.steps(), [1])


if __name__ == "__main__":
    unittest.main()
