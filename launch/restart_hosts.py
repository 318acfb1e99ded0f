"""The hosts of launch/restarts.py: which of them can be used, and how many ranks a run can have on those."""

import concurrent.futures
import os
import re
import shlex
import socket
import subprocess

from restart_command import Refused

ANSWER_SECONDS = 15
DOCTOR_SECONDS = 60
# How the program and the MPIs name a host that is at fault; of watchdogs and copies that differ there may be several.
NAMES = [re.compile(pattern) for pattern in (
    # vqlm; its warnings name ranks that may be well again
    r"error: watchdog: (?:rank \d+ on|host) ([^\s:]+):",
    r"error: watchdog: (?:.*?: )?rank \d+ on (\S+) is behind the others:",
    r"copies of the parameters differ:.*?rank \d+ \([^)]*, ([^)\s]+)\)",
    r"on node (\S+) exited on signal",                                # Open MPI
    r"Remote daemon:.* on node (\S+)",
    r"RUNNING AT (\S+)",                                              # MPICH
    r"ssh: connect to host (\S+) port",
    r"ssh: Could not resolve hostname ([^\s:]+)",
)]


def first_word(line):
    return line.split("#", 1)[0].split()[0]


class Hosts:
    """In the order of their files: the hosts, then the spares. `lines` keeps what stands behind a name, such as slots=8."""

    def __init__(self, path, spares, program):
        self.lines = {}
        for name in filter(None, (path, spares)):
            with open(name, encoding="utf-8") as file:
                for line in file:
                    if line.split("#", 1)[0].strip():
                        self.lines.setdefault(first_word(line), line.strip())
        with open(path, encoding="utf-8") as file:
            self.used = [first_word(line) for line in file if line.split("#", 1)[0].strip()]
        self.left_out = {}  # by name, why: hosts that a failure named
        self.program = program

    def named(self, words):
        """The hosts that the failure's words name, each once."""
        short = {name.split(".")[0]: name for name in self.lines}
        found = []
        for pattern in NAMES:
            for name in pattern.findall(words):
                host = name if name in self.lines else short.get(name.split(".")[0])
                if host and host not in found:
                    found.append(host)
        return found

    def leave_out(self, host, reason, per_node, tensor):
        """From now on; not where the others cannot hold one tensor group. Returns whether."""
        others = len(self.lines) - len(self.left_out) - 1
        if others * per_node < tensor:
            return False
        self.left_out[host] = reason
        return True

    def check(self):
        """Asks all that are not left out for good, at once: {name: what is wrong, "" where nothing is}."""
        asked = [name for name in self.lines if name not in self.left_out]
        with concurrent.futures.ThreadPoolExecutor(max(1, min(64, len(asked)))) as pool:
            return dict(zip(asked, pool.map(self.problem_of, asked)))

    def problem_of(self, host):
        is_here = host in ("localhost", "127.0.0.1") or host.split(".")[0] == socket.gethostname().split(".")[0]
        reach = ["sh", "-c"] if is_here else ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host]
        problem = outcome([*reach, "true"], ANSWER_SECONDS)
        if problem:
            return f"does not answer: {problem}"
        # A program outside of the system's folders may need the libraries that the caller's environment names.
        kept = [f"{name}={value}" for name, value in os.environ.items()
                if name == "LD_LIBRARY_PATH" or name.startswith("CUDA_")]
        doctor = ["env", *kept, *self.program, "doctor"]
        problem = outcome([*reach, f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(doctor)}"], DOCTOR_SECONDS)
        return f"vqlm doctor: {problem}" if problem else ""

    def choose(self, well, per_node, most, tensor, micro_batches):
        """Of the hosts that are well: (hosts to use, ranks), with the largest data axis that keeps the global batch. Hosts of
        the last attempt first, so that a spare stays one as long as nobody is missed. Refused where no grid fits."""
        order = [host for host in self.used if host in well] + self.spares(well)
        places = min(len(order) * per_node, most)
        data = min(places // tensor, micro_batches)
        while data > 1 and micro_batches % data:
            data -= 1
        if data < 1:
            raise Refused(f"{len(order)} hosts are left with room for {places} ranks, and parallel.tensor = {tensor} needs as "
                          "many; mend a host, or name others with --spare-hosts")
        self.used = order[:-(-data * tensor // per_node)]
        return data * tensor

    def spares(self, well):
        return [host for host in self.lines if host in well and host not in self.used]


def outcome(command, seconds):
    """What is wrong with what the command did, as its last line tells; "" after exit code 0."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"no end after {seconds} s"
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode == 0:
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAIL", "vqlm: error"))]
    return (failed or lines or [f"exit code {done.returncode}"])[-1]
