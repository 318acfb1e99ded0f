"""launch/mpirun.sh over two hosts: the training is the one of one host bit by bit, faults end it in time with the host's
name, and resuming goes on as if nothing had happened."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest

sys.path.append(str(pathlib.Path(__file__).parent.parent / "faults"))
from hosts import USER, USER_ID, Cluster, kill, skip_all, wait_until, why_not
from job import ENVIRONMENT, PROGRAM
from links import can_limit, can_slow
from tiny_runs import Reference, history, prepare, train_arguments, wait_for_step

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch/mpirun.sh"
HELP = subprocess.run([PROGRAM, "train", "--help"], capture_output=True, text=True, check=True).stdout
HAS_HEARTBEAT = "parallel.heartbeat_seconds" in HELP
takes_minutes = unittest.skipUnless(os.environ.get("VQLM_CLUSTER_LONG"), "takes minutes: set VQLM_CLUSTER_LONG=1")
ORDINARY = {name: value for name, value in ENVIRONMENT.items() if "ROOT" not in name}
HEAD, GRID = "vq", (2, 2)
UNFINISHED = 75  # the exit code of a run that is saved, to be continued
STRIKE = 14  # the step after which a test breaks something
TIMEOUT = 400  # an undisturbed run takes some seconds, on a machine that is starved minutes


def setUpModule():
    global cluster, reference
    cluster = unittest.enterModuleContext(Cluster(hosts=2))
    (cluster.folder / "hosts.txt").write_text("h1\nh2  # the other one\n")
    prepare(cluster.folder)
    reference = Reference(cluster.folder, HEAD, GRID)  # four ranks of one host


def launch(*command):
    return [LAUNCH, "--hosts", cluster.folder / "hosts.txt", "--ranks-per-node", "2", *command]


class Job:
    """A training of four ranks, started on h1."""

    def __init__(self, run, *more, options=(), user="root", **settings):
        self.log = cluster.folder / f"{run.replace('/', '-')}.log"
        command = launch(*options, PROGRAM, *train_arguments(cluster.folder, run, HEAD, GRID, **settings), *more)
        self.process = cluster.start("h1", *command, log=self.log, user=user,
                                     environment=ENVIRONMENT if user == "root" else ORDINARY)
        self.heard = 0

    def words(self):
        """What it has said since strike()."""
        return self.log.read_bytes()[self.heard:].decode("utf-8", "replace")

    def strike(self, how, pid):
        self.heard = self.log.stat().st_size
        kill(pid, how)


class Trainings(unittest.TestCase):
    """What tests of one need."""

    def setUp(self):
        self.run_dir = cluster.folder / self.id().rpartition(".")[2]
        self.jobs = []
        self.addCleanup(self.sweep)

    def sweep(self):
        for _, pid, _ in cluster.left():
            kill(pid)
        for job in self.jobs:
            job.process.wait(20)

    def start(self, *more, **named):
        self.jobs.append(Job(self.run_dir.name, *more, **named))
        return self.jobs[-1]

    def started(self, **settings):
        job = self.start(**settings)
        wait_for_step(job, self.run_dir, STRIKE)
        return job

    def ended(self, job, seconds):
        """The exit code of a job that ends in so many seconds, and leaves nothing running."""
        end = time.monotonic() + seconds
        while (code := job.process.poll()) is None and time.monotonic() < end:
            time.sleep(0.02)
        self.assertIsNotNone(code, f"goes on after {seconds} s:\n{job.words()}")
        wait_until(lambda: not cluster.left(), f"the end of {cluster.left()}")
        return code

    def assert_resumes(self):
        job = self.start("--resume")
        self.assertEqual(self.ended(job, TIMEOUT), 0, job.words())
        self.assertEqual(reference.differences_at_end(self.run_dir), [])

    def assert_names_the_host(self, job):
        self.assertRegex(job.words(), r"\bh2\b")


class Launch(Trainings):
    def test_two_hosts_train_what_one_does(self):
        job = self.start()
        wait_for_step(job, self.run_dir, 1)
        ranks = [sorted(rank for _, name, rank in cluster.processes(host) if name == "vqlm") for host in cluster.hosts]
        self.assertEqual(ranks, [[0, 1], [2, 3]])
        self.assertEqual(self.ended(job, TIMEOUT), 0, job.words())
        self.assertEqual(reference.differences_at_end(self.run_dir), [])

    def test_sigterm_saves_on_both_hosts(self):
        job = self.started()
        job.strike(signal.SIGTERM, cluster.child(job.process))
        self.assertEqual(self.ended(job, 60), UNFINISHED, job.words())
        self.assert_resumes()

    def test_a_killed_rank_ends_the_job(self):
        job = self.started()
        job.strike(signal.SIGKILL, cluster.pids("h2", "vqlm", rank=3)[0])
        self.assertNotIn(self.ended(job, 10), (0, UNFINISHED), job.words())
        self.assert_names_the_host(job)
        self.assert_resumes()

    def test_a_vanished_host_ends_the_job(self):
        job = self.started()
        job.heard = job.log.stat().st_size
        cluster.cut("h2")
        try:
            self.assertNotIn(self.ended(job, 60), (0, UNFINISHED), job.words())
        finally:
            cluster.mend("h2")
        self.assert_names_the_host(job)
        self.assert_resumes()

    @unittest.skipUnless(HAS_HEARTBEAT, "this vqlm has no parallel.heartbeat_seconds")
    def test_a_stopped_rank_ends_the_job(self):
        job = self.started(parallel__heartbeat_seconds=6)
        job.strike(signal.SIGSTOP, cluster.pids("h2", "vqlm", rank=3)[0])
        self.assertNotIn(self.ended(job, 60), (0, UNFINISHED), job.words())
        self.assertRegex(job.words(), r"watchdog: rank 3 on h2: no sign of life")
        self.assert_resumes()

    def test_the_caller_s_environment_reaches_both_hosts(self):
        words = 'echo "$(hostname) $NCCL_DEBUG $LD_LIBRARY_PATH $COLOUR"'
        environment = {**ENVIRONMENT, "NCCL_DEBUG": "INFO", "LD_LIBRARY_PATH": "/opt/lib", "COLOUR": "red"}
        told = cluster.run("h1", *launch("--env", "COLOUR", "bash", "-c", words), environment=environment)
        self.assertEqual(sorted(told.stdout.splitlines()), ["h1 INFO /opt/lib red"] * 2 + ["h2 INFO /opt/lib red"] * 2, told.stderr)

    def test_interfaces_that_lead_nowhere_are_left_alone(self):
        for kind in ("docker0", "bmc0"):
            cluster.second_interface(kind)
            self.addCleanup(cluster.remove_interface, kind)
        job = self.start(options=("--interface", "eth0"))
        self.assertEqual(self.ended(job, TIMEOUT), 0, job.words())
        self.assertEqual(reference.differences_at_end(self.run_dir), [])


@takes_minutes
class Network(Trainings):
    """A training goes on over a bad network, and its numbers are those of a good one."""

    def train_over(self, begin, end, steps=10, until=lambda job: True):
        """begin() makes the network bad for so many steps, and until the condition holds; returns the job's words."""
        job = self.started()
        job.heard = job.log.stat().st_size
        begin()
        try:
            step = max(step for step, _ in history(self.run_dir))
            wait_for_step(job, self.run_dir, step + steps)
            wait_until(lambda: until(job), f"the condition, in {job.words()}", 120)
            self.assertIsNone(job.process.poll(), job.words())
        finally:
            end()
        self.assertEqual(self.ended(job, TIMEOUT), 0, job.words())
        self.assertEqual(reference.differences_at_end(self.run_dir), [])
        return job.words()

    def train_slowly(self, counter, **link):
        before = cluster.tcp_count("h1", counter)
        words = self.train_over(lambda: cluster.slow("h2", **link), lambda: cluster.quicken("h2"))
        self.assertGreater(cluster.tcp_count("h1", counter), before + 3)
        return words

    @unittest.skipUnless(can_slow(), "there is neither netem nor /dev/net/tun")
    def test_a_link_with_200_ms_and_5_percent_loss_is_told_by_its_host(self):
        warning = re.compile(r"watchdog: rank [23] on h2: its link to rank 0 is slow: (\d+) ms there and back")
        words = self.train_over(lambda: cluster.slow("h2", 200, loss=5), lambda: cluster.quicken("h2"), steps=2,
                                until=lambda job: warning.search(job.words()))
        self.assertGreaterEqual(int(warning.search(words)[1]), 400)
        self.assertNotRegex(words, r"watchdog: rank \d on h1")

    @unittest.skipUnless(can_slow(), "there is neither netem nor /dev/net/tun")
    def test_doubled_packets(self):
        self.train_slowly("TCPDSACKOldSent", duplicate=20)

    @unittest.skipUnless(can_slow(), "there is neither netem nor /dev/net/tun")
    def test_packets_that_come_ahead_of_others(self):
        self.train_slowly("TCPOFOQueue", milliseconds=10, reorder=25)

    @unittest.skipUnless(can_limit(), "the kernel has no tbf")
    def test_a_slow_cable(self):
        def waited(_):
            """Whether packets had to."""
            return int(re.search(r"overlimits (\d+)", cluster.shell("h2", "tc -s qdisc show dev eth0"))[1]) > 20

        self.train_over(lambda: cluster.limit("h2", 2), lambda: cluster.limit("h2", None), until=waited)


@takes_minutes
class OrdinaryUser(Trainings):
    """Who need not tell Open MPI that root may run it, and has keys of his own."""

    def test_an_ordinary_user_trains_saves_and_goes_on(self):
        told = cluster.run("h1", PROGRAM, "--version", user=USER)
        if told.returncode != 0:
            self.skipTest(f"{USER} cannot run {PROGRAM}: {told.stderr.strip()}")
        (cluster.folder / USER).mkdir()
        os.chown(cluster.folder / USER, USER_ID, USER_ID)
        self.run_dir = cluster.folder / USER / "run"
        job = Job(f"{USER}/run", user=USER)
        self.jobs.append(job)
        wait_for_step(job, self.run_dir, STRIKE)
        ranks = [pid for host in cluster.hosts for pid in cluster.pids(host, "vqlm")]
        self.assertEqual([os.stat(f"/proc/{pid}").st_uid for pid in ranks], [USER_ID] * 4)
        self.assertFalse([pid for pid in ranks if b"AS_ROOT" in pathlib.Path(f"/proc/{pid}/environ").read_bytes()])
        job.strike(signal.SIGTERM, cluster.child(job.process))
        self.assertEqual(self.ended(job, 60), UNFINISHED, job.words())
        job = Job(f"{USER}/run", "--resume", user=USER)
        self.jobs.append(job)
        self.assertEqual(self.ended(job, TIMEOUT), 0, job.words())
        self.assertEqual(reference.differences_at_end(self.run_dir), [])


if __name__ == "__main__":
    if reason := why_not("mpirun"):
        skip_all(reason)
    unittest.main()
