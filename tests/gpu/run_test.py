"""first_run.sh or second_run.sh (GPU_RUN) as a whole, tiny, with the programs of the host executor: budgets, every stage in the
table and the archive, none failed; and, of a run that is killed in its second stage, what the archive keeps of the first."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
RUN = os.environ["GPU_RUN"]
OPTIONS = ["--simt", "--quick", "--bin", os.environ["VQLM_BUILD_DIR"], "--python", sys.executable]
LIMIT = {"first_run": 170, "second_run": 540}[RUN]
WITHOUT_GPU = {"first_run": set(), "second_run": {"counters", "memcheck", "racecheck", "synccheck", "initcheck"}}[RUN]
FIGURES = {  # what the line of a stage must show
    "doctor": r"runtime \d+\.\d+ .*NCCL \d+\.\d+", "op_tests": r"^[1-9]\d* tests passed$", "nccl": r"^[1-9]\d* tests passed$",
    "graphs_dense": r"^3 runs of 5 steps, the same losses and norms in every digit", "graphs_vq": r"^3 runs of 5 steps, the same",
    "products": r"head, V = 129 .*; head, V = 192 ", "small": r"tokens/s.*; no ratio \(--quick\)", "small_vq": r"tokens/s",
    "attention": r"T 64 head 64 forward \d+ %.*no ratio", "tune": r"^first .* ms, tuned .* ms: .*x; products: (\d+) of \1 shapes have their algorithm",
    "training": r"dense 1:.*held-out 1:.* 2:.*vq 1:.*held-out 1:",
    "large": r"tokens/s", "large_vq": r"tokens/s", "graphs": r"^on .* ms, graphs off .* ms: .*x, dependent launches off .* ms: .*x", "head": r"^vq .*dense ", "ops": r"^copy ",
    "memory": r"^planned \d+ MiB, used \d+: the difference is workspace"}


class RunTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)

    def start(self, *options):
        environment = {**os.environ, "OUT": str(self.path / "out"), "WORK": str(self.path / "work"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([HERE / f"{RUN}.sh", *OPTIONS, *options], env=environment, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def stages(self):
        """Name and budget of each, as --dry-run lists them."""
        run = self.start("--dry-run")
        words, _ = run.communicate(timeout=60)
        self.assertEqual(run.returncode, 0, words)
        *stages, (last, whole) = re.findall(r"^(in all|\S+) +(\d+) s  ", words, re.MULTILINE)
        self.assertEqual(last, "in all")
        return {name: int(budget) for name, budget in stages}, int(whole)

    def archive(self):
        self.assertEqual([entry.name for entry in (self.path / "out").iterdir()], [f"{RUN}.tar.gz"])
        with tarfile.open(self.path / "out" / f"{RUN}.tar.gz") as archive:
            return {member.name.removeprefix("./"): archive.extractfile(member).read().decode() for member in archive.getmembers()}

    def test_budgets_add_up_within_the_limit(self):
        stages, whole = self.stages()
        self.assertEqual(whole, sum(stages.values()) + len(stages) + 1)  # a second after each, and one more
        self.assertLessEqual(whole, LIMIT)

    def test_every_stage_passes_and_lies_in_the_archive(self):
        stages, _ = self.stages()
        run = self.start()
        words, _ = run.communicate(timeout=400)
        logs = "\n".join(path.read_text(encoding="utf-8") for path in sorted((self.path / "work" / RUN).glob("*.log")))
        self.assertEqual(run.returncode, 0, words + logs)
        self.assertEqual(words.count("\nstage          status"), len(stages), words)
        files = self.archive()
        table = [line.split("\t") for line in files["table.tsv"].splitlines()]
        self.assertEqual([row[0] for row in table], list(stages))
        self.assertIn("none failed", files["table.txt"])
        for name, status, _, figures in table:
            self.assertEqual(status, "skipped" if name in WITHOUT_GPU else "passed", figures)
            if name in FIGURES:
                self.assertRegex(figures, FIGURES[name], name)
            self.assertIn(f"{name}.log", files)

    def test_a_killed_run_leaves_the_finished_stages(self):
        first, second, *_ = self.stages()[0]
        run = self.start("--only", f"{first},{second}")
        for line in run.stdout:
            if line.startswith(f"{first} "):
                break
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        files = self.archive()
        self.assertEqual([line.split("\t")[:2] for line in files["table.tsv"].splitlines()], [[first, "passed"]])
        self.assertIn(f"{first}.log", files)

    def run_with_tools(self, tools, *options):
        """A run on a machine that has a card by the words of these tools (name: shell code); returns table rows by stage."""
        for name, code in tools.items():
            tool = self.path / "tools" / name
            tool.parent.mkdir(exist_ok=True)
            tool.write_text(f"#!/bin/sh\n{code}\n", encoding="utf-8")
            tool.chmod(0o755)
        for name in ("vqlm", "cuda_tests"):  # which the tools below do not start
            (self.path / "tools" / name).symlink_to("/bin/true")
        environment = {**os.environ, "OUT": str(self.path / "out"), "WORK": str(self.path / "work"),
                       "PATH": f"{self.path}/tools:{os.environ['PATH']}"}
        subprocess.run([HERE / f"{RUN}.sh", "--bin", self.path / "tools", *options], env=environment, capture_output=True,
                       check=False, timeout=60)
        rows = {name: (status, figures) for name, status, _, figures in
                (line.split("\t") for line in self.archive()["table.tsv"].splitlines())}
        shutil.rmtree(self.path / "tools")
        return rows

    @unittest.skipUnless(RUN == "second_run", "the first run starts no tool but nvidia-smi")
    def test_the_tools_of_a_card_are_asked_and_judged(self):
        smi = 'while :; do echo "1980, 600.50, 60, 99, 2000"; sleep 0.1; done'
        ncu = """printf '"ID","Kernel Name","gpu__time_duration.sum"\\n"","","ns"\\n"0","adamw_kernel","1,234"\\n'; echo "ARGS $*"; sleep 1"""
        check = """echo "========= COMPUTE-SANITIZER"; echo "[  PASSED  ] 3 tests."; echo "ARGS $*" """
        only = ("--only", "counters,memcheck,initcheck")
        rows = self.run_with_tools({"nvidia-smi": smi, "ncu": ncu, "compute-sanitizer": check}, *only)
        self.assertEqual(rows["counters"], ("passed", "adamw_kernel 1,234 ns [SM 1,980 MHz, at least 1,980; 600 W; 60 C]"))
        self.assertEqual(rows["memcheck"][0], "passed")
        self.assertIn("3 tests passed, 0 reports about our kernels", rows["memcheck"][1])
        files = self.archive()
        self.assertIn("--clock-control none --target-processes all", files["ncu.csv"])
        self.assertIn("--tool memcheck --target-processes all", files["sanitizer-memcheck.txt"])
        self.assertIn("--kernel-regex kns=vqlm", files["sanitizer-initcheck.txt"])
        self.assertIn("1980, 600.50", files["card.csv"])

        report = """printf '========= Invalid __global__ read\\n=========     at vqlm::cuda::rope_kernel(float*)+0x1\\n'; exit 9"""
        rows = self.run_with_tools({"ncu": "echo '==ERROR== ERR_NVGPUCTRPERM - no permission'; exit 1", "compute-sanitizer":
                                    check + "; " + report}, *only)
        self.assertEqual(rows["counters"], ("skipped", "==ERROR== ERR_NVGPUCTRPERM - no permission"))
        self.assertEqual(rows["memcheck"][0], "failed (1)")
        self.assertIn("1 reports about our kernels", rows["memcheck"][1])

        rows = self.run_with_tools({"compute-sanitizer": "echo 'Error: Device not supported'; exit 1"}, *only)
        self.assertEqual(rows["memcheck"][0], "skipped")


if __name__ == "__main__":
    unittest.main()
