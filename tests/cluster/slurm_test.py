"""launch/train.sbatch under a real Slurm of two nodes: whatever ends a job early, the run goes on by itself until it has all
its steps, and is the run that nothing happened to, bit by bit; only scancel ends it for good.

VQLM_CLUSTER_LONG=1 also tries what takes minutes: preemption and the death of a node."""

import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

sys.path.append(str(pathlib.Path(__file__).parent.parent / "faults"))
from hosts import Cluster, kill, skip_all, wait_until, why_not
from job import ENVIRONMENT, PROGRAM
from slurm import PROGRAMS, Slurm
from tiny_runs import Reference, STEPS, history, prepare, train_arguments

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch/train.sbatch"
HEAD, GRID = "vq", (2, 2)
STRIKE = 14  # the step after which a test breaks something
SIZES = ["--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0"]
takes_minutes = unittest.skipUnless(os.environ.get("VQLM_CLUSTER_LONG"), "takes minutes: set VQLM_CLUSTER_LONG=1")
needs_relay = unittest.skipUnless(pathlib.Path("/dev/net/tun").exists(), "there is no /dev/net/tun for a slow link")


def setUpModule():
    global cluster, slurm, reference
    cluster = unittest.enterModuleContext(Cluster(hosts=2))
    slurm = Slurm(cluster)
    prepare(cluster.folder)
    (cluster.folder / "empty.toml").touch()  # every key is set by words
    reference = Reference(cluster.folder, HEAD, GRID)


class TrainSbatch(unittest.TestCase):
    def setUp(self):
        self.run_dir = cluster.folder / self.id().rpartition(".")[2]
        self.jobs = []
        self.addCleanup(self.sweep)

    def sweep(self):
        for job in self.jobs:
            cluster.run("h1", "scancel", job, environment=slurm.environment)
        slurm.wait_for_nodes()

    def submit(self, *options, **variables):
        environment = {**ENVIRONMENT, "PROGRAM": PROGRAM, "DEVICE": "cpu", "CONFIG": "empty.toml", "RUN": str(self.run_dir),
                       **variables}
        words = train_arguments(cluster.folder, self.run_dir.name, HEAD, GRID)[1:]
        self.jobs.append(slurm.submit(*SIZES, *options, SCRIPT, *words, environment=environment))
        return self.jobs[-1]

    def steps(self):
        return max((step for step, kind in history(self.run_dir) if kind == "step"), default=0)

    def wait_for_step(self, job, step, requeued=False):
        # Between the end of a start and its place in the queue a job may have the state of that end for a moment. And Slurm 22.05
        # forgets one requeue in four of a job that ends by itself, non-zero, within milliseconds of it: then it is asked again.
        well = time.monotonic()
        def reached():
            nonlocal well, requeued
            state = slurm.job(job)["JobState"]
            if state in ("PENDING", "CONFIGURING", "RUNNING"):
                well = time.monotonic()
            if requeued and state == "FAILED" and time.monotonic() - well > 10:
                requeued = False
                slurm.run("scontrol", "requeue", job)
                slurm.start_now(job)
            self.assertLess(time.monotonic() - well, 20, f"{state}: {slurm.log(job)}")
            return self.steps() >= step
        wait_until(reached, f"step {step}", seconds=120)

    def wait_for_state(self, job, state, seconds=120):
        def reached():
            now = slurm.job(job)["JobState"]
            if now in ("CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT") and now != state:
                self.fail(f"job {job} is {now}, not {state}:\n{slurm.log(job)}")
            return now == state
        wait_until(reached, f"{state} of job {job}", seconds)

    def assert_completes(self, job, restarts):
        self.wait_for_state(job, "COMPLETED")
        self.assertEqual(slurm.job(job)["Restarts"], str(restarts))
        self.assertEqual(reference.differences_at_end(self.run_dir), [])

    @needs_relay
    def test_the_time_limit_saves_and_the_job_goes_on(self):
        cluster.slow("h2", 80)  # more than a second a step, so that it does not end before its time
        self.addCleanup(lambda: cluster.relays and cluster.quicken("h2"))
        job = self.submit("--time=1", "--signal=B:USR1@20")
        self.wait_for_step(job, 1)
        self.wait_for_state(job, "PENDING")
        cluster.quicken("h2")
        self.assertIn("saved before its end", slurm.log(job))
        self.assertLess(self.steps(), STEPS)
        slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
        slurm.start_now(job)
        self.assert_completes(job, restarts=1)

    def test_requeued_goes_on_and_cancelled_does_not(self):
        job = self.submit()
        self.wait_for_step(job, STRIKE)
        slurm.run("scontrol", "requeue", job)
        slurm.start_now(job)
        self.wait_for_step(job, self.steps() + 5, requeued=True)
        slurm.run("scancel", job)
        self.wait_for_state(job, "CANCELLED")
        wait_until(lambda: not cluster.left(), "the end of the ranks")
        self.assertIn((slurm.job(job)["JobState"], slurm.job(job)["Restarts"]), [("CANCELLED", "1"), ("CANCELLED", "2")])
        self.assertTrue((self.run_dir / f"checkpoints/step-{self.steps():08}/manifest.json").exists(), slurm.log(job))
        # Submitted again, and now with a log a rank.
        job = self.submit(RANK_LOGS="logs")
        self.assert_completes(job, restarts=0)
        logs = cluster.folder / f"logs/{job}.0"
        self.assertEqual(sorted(path.name for path in logs.iterdir()), [f"rank-{rank}.log" for rank in range(4)])
        self.assertIn(f"step {STEPS}/{STEPS}", (logs / "rank-0.log").read_text())

    @takes_minutes
    def test_a_signal_saves_where_mpirun_starts_the_ranks(self):
        for how in (["--batch", "--signal=USR1"], ["--signal=USR1"]):  # to the script; to what it has started on other nodes
            job = self.submit(MPI="mpirun", REQUEUE="no")
            self.wait_for_step(job, self.steps() + 5)
            slurm.run("scancel", *how, job)
            self.wait_for_state(job, "FAILED")
            self.assertEqual(slurm.job(job)["ExitCode"], "75:0", slurm.log(job))
        self.assert_completes(self.submit(MPI="mpirun"), restarts=0)

    def test_programs_of_mpich_modules_and_containers_start(self):
        (cluster.folder / "hello.c").write_text("""#include <mpi.h>
#include <stdio.h>
int main(int n, char** words) {
  int rank, size;
  MPI_Init(&n, &words), MPI_Comm_rank(MPI_COMM_WORLD, &rank), MPI_Comm_size(MPI_COMM_WORLD, &size);
  printf("%d of %d: %s\\n", rank, size, words[1]);
  return MPI_Finalize();
}
""")
        variables = {"BASH_FUNC_module%%": "() { echo module \"$@\"; }", "MODULES": "gcc/13 mpi", "CONTAINER": "env -u NOTHING"}
        for compiler in ("mpicc.openmpi", "mpicc.mpich"):
            if not shutil.which(compiler):
                continue
            subprocess.run([compiler, "-o", cluster.folder / compiler, cluster.folder / "hello.c"], check=True)
            job = self.submit("--nodes=1", PROGRAM=f"{cluster.folder}/{compiler}", **variables)
            self.wait_for_state(job, "COMPLETED")
            self.assertEqual(sorted(slurm.log(job).splitlines()), ["0 of 2: train", "1 of 2: train", "module load gcc/13 mpi"])

    def test_what_cannot_run_is_said_before_it_starts(self):
        for variables, words in (({"SLURM_NTASKS_PER_NODE": 4, "SLURM_CPUS_ON_NODE": 6}, "4 ranks a node, 2 cores each"),
                                 ({"PROGRAM": "no/vqlm"}, "PROGRAM=no/vqlm: no such program"),
                                 ({"MODULES": "gcc"}, "MODULES=gcc: there is no module command"),
                                 ({"MPI": "mpirun", "PROGRAM": "true"}, "needs launch/near_gpu.sh"),
                                 ({"DEVICE": "tpu"}, "DEVICE=tpu"), ({"REQUEUE": "maybe"}, "REQUEUE=maybe")):
            environment = {**slurm.environment, "SLURM_CPUS_PER_TASK": 2, "SLURM_SUBMIT_DIR": cluster.folder, "CONFIG": "c",
                           "RUN": "r", "PROGRAM": PROGRAM, **variables}
            told = cluster.run("h1", SCRIPT, environment=environment)
            self.assertEqual(told.returncode, 2, told)
            self.assertIn(words, told.stderr)

    @takes_minutes
    def test_a_preempted_job_comes_back(self):
        job = self.submit("--partition=low")
        self.wait_for_step(job, STRIKE)
        rival = slurm.submit(*SIZES[:3], "--wrap", "sleep 2")
        self.jobs.append(rival)
        self.wait_for_state(rival, "COMPLETED")
        slurm.start_now(job)
        self.assert_completes(job, restarts=1)

    @takes_minutes
    def test_a_job_outlives_a_node(self):
        job = self.submit()
        self.wait_for_step(job, STRIKE)
        cluster.cut("h2")
        try:
            for name in ("slurmd", "slurmstepd", "vqlm"):
                for pid in cluster.pids("h2", name):
                    kill(pid)
            self.wait_for_state(job, "PENDING", seconds=240)
        finally:
            cluster.mend("h2")
            slurm.start_node("h2")
        slurm.wait_for_nodes()
        slurm.start_now(job)
        self.assert_completes(job, restarts=1)

    @takes_minutes
    def test_an_array_is_a_chain(self):
        job = self.submit("--array=1-3%1", REQUEUE="no")
        self.wait_for_step(job, STRIKE)
        # Its exit code is 1 though the signal arrives: it tries the elements that wait, too.
        cluster.run("h1", "scancel", "--signal=USR1", f"{job}_1", environment=slurm.environment)
        wait_until(lambda: slurm.run("squeue", "-h", "-j", job) == "", "the end of the chain")
        self.assertEqual(reference.differences_at_end(self.run_dir), [])


if __name__ == "__main__":
    if reason := why_not("mpirun", *PROGRAMS):
        skip_all(reason)
    unittest.main()
