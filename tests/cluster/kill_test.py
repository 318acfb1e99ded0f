"""A run over two hosts that is struck at any moment and goes on by `launch/mpirun.sh --restarts` loses nothing, and ends as the
run that nothing happened to, bit by bit.

    kill_test.py [--rounds 2] [--seed 1] [--first 0] [--jobs 1]

A round starts a tiny model on 2 x 2 ranks, two on each of two hosts, with two spare hosts. Faults take turns: kill -9 of a rank,
of rank 0, of mpirun, of a host's daemon or its ssh session; SIGSTOP for ever of a rank; a host that is cut off; kill -9 of all
that supervises. The last is resumed by command, and so is a run that --restarts has given up (one step that failed twice). In
some rounds a second fault follows. Moments are those of faults.kill. After each round: no step lost that a checkpoint had, every
number that was ever in metrics.jsonl and the last checkpoint's tensors those of an uninterrupted run on one host, a line of
restarts.jsonl for each restart, and no process left on any host. VQLM_CLUSTER_LONG=1 plays 25 rounds, on two
clusters side by side; --rounds 100 as many."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import random
import re
import shutil
import signal
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent / "faults"))
from hosts import Cluster, kill, skip_all, why_not
from job import ENVIRONMENT, PROGRAM
from moments import moment, newest_step, partial_state
from tiny_runs import HEADS, Reference, history, prepare, train_arguments

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch/mpirun.sh"
GRID = (2, 2)
HOSTS = 4  # two that train, two spares: a fault takes its host out of the run
HEADS_PLAYED = ("vq", "dense")
TIMEOUT = 600  # of a job: half a minute, a minute where a host is cut off or a rank stopped, on a machine that is not starved
HEARTBEAT = 5  # seconds
# Daemons notice a host that vanished after 3 + 3 x 1 s instead of 10 + 3 x 5.
QUICK = {**ENVIRONMENT, "OMPI_MCA_oob_tcp_keepalive_time": "3", "OMPI_MCA_oob_tcp_keepalive_intvl": "1",
         "VQLM_HEARTBEAT_SECONDS": str(HEARTBEAT), "VQLM_START_SECONDS": "30"}  # of a rank that is stopped before its first beat
FAULTS = ["daemon", "rank 0", "mpirun", "stop", "rank", "supervisor", "cut", "session", "stop 0"]
SUPERVISOR = "supervisor"  # nothing restarts that by itself


class Fault:
    """One of FAULTS, on a cluster."""

    def __init__(self, kind, cluster, numbers):
        self.kind, self.cluster, self.numbers = kind, cluster, numbers
        self.cut_host = None

    def strike(self):
        """Words for what was struck; "" where its victim does not live yet."""
        how = signal.SIGSTOP if self.kind.startswith("stop") else signal.SIGKILL
        if self.kind in ("rank", "rank 0", "stop", "stop 0"):
            ranks = [(rank, host, pid) for host in self.cluster.hosts for pid, name, rank in self.cluster.processes(host)
                     if name == "vqlm" and rank is not None and (rank == 0) == self.kind.endswith(" 0")]
            return self.hit(how, f"rank {ranks[0][0]}", [ranks[0][1:]]) if ranks and not self.numbers.shuffle(ranks) else ""
        if self.kind in ("mpirun", SUPERVISOR):
            names = ("mpirun",) if self.kind == "mpirun" else ("python3", "mpirun.sh", "mpirun")
            found = [("h1", pid) for name in names for pid in self.cluster.pids("h1", name)]
            return self.hit(how, "mpirun" if self.kind == "mpirun" else "all that supervises", found)
        daemons = [(host, pid) for host in self.cluster.hosts for pid in self.cluster.pids(host, "orted")]
        if not daemons:
            return ""
        host, pid = self.numbers.choice(daemons)
        if self.kind == "cut":
            self.cluster.cut(host)
            self.cut_host = host
            return f"{host} cut off"
        if self.kind == "daemon":
            return self.hit(how, "daemon", [(host, pid)])
        session = session_of(pid)
        return self.hit(how, "ssh session", [(host, session)]) if session else ""

    def hit(self, how, name, victims):
        for _, pid in victims:
            kill(pid, how)
        return f"{name} on {victims[0][0]} {'stopped' if how == signal.SIGSTOP else 'killed'}" if victims else ""


def session_of(pid):
    """The sshd that a process on a host came by; None where it has gone."""
    while pid > 1:
        try:
            name, _, fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")
        except OSError:
            return None
        if name.partition("(")[2].startswith("sshd"):
            return pid
        pid = int(fields.split()[1])
    return None


class Job:
    """A start of the launcher on the first host; starts of one run share a log."""

    def __init__(self, cluster, log, command):
        self.log = log
        self.begin = log.stat().st_size if log.exists() else 0
        self.started = time.monotonic()
        self.process = cluster.start("h1", *command, log=log, environment=QUICK)

    def words(self):
        return self.log.read_bytes()[self.begin:].decode("utf-8", "replace")

    def failed_attempts(self):
        return len(re.findall(r"^restarts: attempt \d+ failed", self.words(), re.MULTILINE))


class Round:
    def __init__(self, number, seed, cluster, references):
        self.numbers = random.Random(f"{seed} {number}")
        self.cluster = cluster
        self.head = HEADS_PLAYED[number // len(FAULTS) % len(HEADS_PLAYED)]
        if self.head not in references:
            references[self.head] = Reference(cluster.folder, self.head, GRID)
        self.reference = references[self.head]
        self.run = cluster.folder / f"round-{number}"
        self.log = self.run.with_suffix(".log")
        self.kinds = [FAULTS[number % len(FAULTS)]]
        if self.numbers.random() < 0.3:
            self.kinds.append(self.numbers.choice(FAULTS))
        self.told = [f"round {number:3} {self.head:5}:"]
        self.begun = time.monotonic()
        self.failures = []
        self.faults = []
        self.saved = []  # of each fault: (bytes of the log, the newest checkpoint's step) at its moment
        self.in_saves = self.restarts = self.by_command = 0

    def start(self):
        cut = [fault.cut_host for fault in self.faults]
        hosts = [host for host in self.cluster.hosts if host not in cut]
        for name, listed in (("hosts", hosts[:2]), ("spares", hosts[2:])):
            (self.cluster.folder / f"{name}.txt").write_text("".join(f"{host}\n" for host in listed))
        command = [LAUNCH, "--restarts", "4", "--hosts", self.cluster.folder / "hosts.txt", "--spare-hosts",
                   self.cluster.folder / "spares.txt", "--ranks-per-node", "2", PROGRAM,
                   *train_arguments(self.cluster.folder, self.run.name, self.head, GRID, parallel__heartbeat_seconds=HEARTBEAT)]
        return Job(self.cluster, self.log, [*command, *(["--resume=auto"] if self.faults else [])])

    def goes_on(self, job):
        """Whether the job runs, and nothing is wrong yet."""
        if job.process.poll() is None and time.monotonic() - job.started > TIMEOUT:
            self.failures.append(f"goes on after {TIMEOUT} s")
        return job.process.poll() is None and not self.failures

    def watch(self, job, until=lambda: False):
        """Compares what metrics.jsonl tells until the job ends, or the condition holds."""
        while self.goes_on(job) and not until():
            self.failures += self.reference.differences(history(self.run))
            time.sleep(0.1)

    def strike(self, job, kind):
        """At a moment of its own; whether the job was still there."""
        fault = Fault(kind, self.cluster, self.numbers)
        # Over ssh it takes somewhat longer than on one host.
        words, condition = moment(self.numbers, 1.3 * self.reference.seconds, HEADS[self.head]["checkpoint.every"], self.run)
        whom = ""
        while self.goes_on(job) and not whom:
            if condition(job):
                saved, failed = (self.log.stat().st_size, newest_step(self.run)), job.failed_attempts()
                whom = fault.strike()
            time.sleep(0.0005)
        if not whom:
            self.told.append(f"ended before {kind};")
            return False
        left = partial_state(self.run)
        self.faults.append(fault)
        self.saved.append(saved)
        self.in_saves += bool(left)
        self.told.append(f"{whom} {words}{left};")
        self.watch(job, until=lambda: job.failed_attempts() > failed)
        return True

    def wait(self, job):
        """Its exit code, when nothing of it is left on any host: one that is cut off ends its ranks by itself. Its daemon there
        may stay: where it had words of its ranks to send, TCP tries for a quarter of an hour."""
        self.watch(job)
        begin = time.monotonic()
        cut = {fault.cut_host for fault in self.faults}
        while (left := [one for one in self.cluster.left() if (one[0] not in cut or one[2] != "orted")]) and not self.failures:
            if time.monotonic() - begin > 45:
                self.failures.append(f"{left} outlive the job")
            time.sleep(0.05)
        self.failures += self.reference.differences(history(self.run))
        return job.process.poll()

    def finish(self):
        """Plays all faults, until the run has all its steps."""
        job = self.start()
        kinds = list(self.kinds)
        while not self.failures:
            if kinds and self.strike(job, kinds.pop(0)) and self.faults[-1].kind != SUPERVISOR and kinds:
                continue
            code = self.wait(job)
            if code == 0 or self.failures:
                return
            gave_up = re.search(r"^restarts: gives up: (.*failed twice.*)", job.words(), re.MULTILINE)
            if not gave_up and (not self.faults or self.faults[-1].kind != SUPERVISOR):
                self.failures.append(f"ends with exit code {code}")
                return
            self.by_command += 1
            self.told.append("given up, resumed by command;" if gave_up else "resumed by command;")
            job = self.start()

    def check_restarts(self):
        """Each restart has its line, and went on from the newest checkpoint or a newer one."""
        words = self.log.read_bytes()
        begun = len(re.findall(rb"^restarts: attempt \d+: \d+ ranks", words, re.MULTILINE))
        lines = self.run / "restarts.jsonl"
        self.restarts = len([json.loads(line) for line in lines.read_text().splitlines()]) if lines.exists() else 0
        killed = sum(fault.kind == SUPERVISOR for fault in self.faults)  # before it wrote the line, perhaps
        if not begun - killed <= self.restarts <= begun:
            self.failures.append(f"{begun} restarts, and {self.restarts} lines of restarts.jsonl")
        for offset, step in self.saved:
            # Where the next start was struck, too, before it said this, the one after it must know of the checkpoint.
            continued = re.search(rb"continuing after step (\d+)|has (\d+) of \d+ steps already", words[offset:])
            if step and int(continued[1] or continued[2] if continued else 0) < step:
                self.failures.append(f"the checkpoint of step {step} was not used")
        steps = re.findall(rb"continuing after step (\d+)", words)
        self.told.append(f"went on after step {b' and '.join(steps).decode()}," if steps else "")

    def play(self):
        try:
            self.finish()
            self.check_restarts()
            if not self.failures:
                self.failures += self.reference.differences_at_end(self.run)
        except (AssertionError, OSError) as error:
            self.failures.append(str(error))
        self.told.append("; ".join(self.failures[:5]) if self.failures else "bit-identical")
        self.told.append(f"({time.monotonic() - self.begun:.0f} s)")
        for _, pid, _ in self.cluster.left(("vqlm", "mpirun", "orted", "ssh", "python3", "mpirun.sh")):
            kill(pid)
        for fault in self.faults:
            if fault.cut_host:
                self.cluster.mend(fault.cut_host)
        return self


def play_rounds(options, numbers, tell):
    """One cluster plays rounds until none is left."""
    with Cluster(hosts=HOSTS) as cluster:
        prepare(cluster.folder)
        references = {}
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                return
            tell(Round(number, options.seed, cluster, references).play())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    many = bool(os.environ.get("VQLM_CLUSTER_LONG"))
    parser.add_argument("--rounds", type=int, default=25 if many else 2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to play one again")
    parser.add_argument("--jobs", type=int, default=2 if many else 1, help="clusters side by side")
    options = parser.parse_args()
    begin = time.monotonic()
    played = []

    def tell(result):
        played.append(result)
        print("FAILED " * bool(result.failures) + " ".join(filter(None, result.told)), flush=True)
        if result.failures:
            print(result.log.read_text(encoding="utf-8", errors="replace")[-6000:], flush=True)
        else:
            shutil.rmtree(result.run)

    numbers = queue.SimpleQueue()
    for number in range(options.first, options.first + options.rounds):
        numbers.put(number)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for worker in [pool.submit(play_rounds, options, numbers, tell) for _ in range(options.jobs)]:
            worker.result()
    faults, failed = sum(len(one.faults) for one in played), sum(bool(one.failures) for one in played)
    print(f"{options.rounds} rounds, {faults} faults ({sum(one.in_saves for one in played)} left a half-written checkpoint), "
          f"{sum(one.restarts for one in played)} restarts, {sum(one.by_command for one in played)} resumes by command, "
          f"{failed} rounds failed, {time.monotonic() - begin:.0f} s")
    return 1 if failed or len(played) < options.rounds else 0


if __name__ == "__main__":
    if reason := why_not("mpirun"):
        skip_all(reason)
    sys.exit(main())
