"""One start of the program that a test may kill: alone or under mpirun, with all of its processes known by a mark."""

import os
import pathlib
import signal
import subprocess
import time
import uuid

from processes import has_live_thread

PROGRAM = os.environ["VQLM_PROGRAM"]
MARK = "VQLM_FAULT_MARK"
# As root mpirun wants to be told twice; ranks that share cores must give them up while they wait.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "OMPI_MCA_mpi_yield_when_idle": "1",
               "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it had ended


class Job:
    """`vqlm ARGUMENTS` on `ranks` ranks (one: without mpirun), started at once; its words go to the file `log`."""

    def __init__(self, arguments, ranks, log, environment=None, prefix=()):
        self.ranks = ranks
        self.log = pathlib.Path(log)
        self.mark = uuid.uuid4().hex
        command = [*prefix, PROGRAM, *map(str, arguments)]
        if ranks > 1:
            command = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", *command]
        with open(self.log, "wb") as words:
            self.started = time.monotonic()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True,
                                            env={**os.environ, **ENVIRONMENT, **(environment or {}), MARK: self.mark})

    def rank_pids(self):
        """Processes of the ranks that have begun: mpirun's children (of any of its threads), or the program itself."""
        if self.ranks == 1:
            return [self.process.pid]
        pids = []
        for children in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            try:
                pids += map(int, children.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                pass  # the thread has ended
        return sorted(pids)

    def processes(self):
        """All processes on this machine that carry the job's mark in their environment."""
        mark = f"{MARK}={self.mark}".encode()
        found = []
        for environment in pathlib.Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environment.read_bytes():  # a zombie's is empty
                    found.append(int(environment.parent.name))
            except OSError:
                pass  # it has ended
        return found

    def wait(self, timeout):
        """The exit code, or None after `timeout` seconds; then the whole job is killed."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
            self.kill_all()
        return code

    def kill_all(self):
        for pid in [self.process.pid, *self.processes()]:
            kill(pid)
        self.process.wait()

    def session(self):
        """Processes of the job's session that have yet to end, also those that the kernel is ending and that have no environment
        any more (has_live_thread)."""
        found = []
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                session = int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[3])
            except OSError:
                continue  # it has ended
            if session == self.process.pid and has_live_thread(stat.parent):
                found.append(int(stat.parent.name))
        return found

    def orphans(self, timeout=30):
        """Processes of the job that still live so many seconds after it ended; they are killed then."""
        end = time.monotonic() + timeout
        while left := sorted({*self.processes(), *self.session()}):
            if time.monotonic() > end:
                for pid in left:
                    kill(pid)
                return left
            time.sleep(0.002)
        return []

    def words(self):
        return self.log.read_text(encoding="utf-8", errors="replace")
