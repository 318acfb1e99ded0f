#!/usr/bin/env python3
"""Continues a training that fails, until it has all its steps: what launch/mpirun.sh --restarts N starts.

    launch/mpirun.sh --restarts 5 -n 4 build/vqlm train --config CONFIG --set run.dir=RUN
    launch/mpirun.sh --restarts 5 --spare-hosts spares.txt --hosts hosts.txt --ranks-per-node 8 build/vqlm train ...

Exit codes 0 (finished), 2 (bad usage), 75 (stopped and saved), 130 and 143 (Ctrl-C, SIGTERM) end it with the same code;
after any other it starts the ranks again, at most N times:
  - It waits until no job holds RUN/run.lock: ranks that lost their mpirun may take a moment to end.
  - A host that the failure names (a watchdog, a killed rank, a lost daemon) is left out from then on. Every other one is
    asked, by `ssh HOST true` and `vqlm doctor`, and left out while it does not answer or fails.
  - Places that are free go to the spares, in order. Without spares fewer ranks go on: parallel.data becomes the largest
    number for which the hosts have room and that divides train.global_batch / train.micro_batch. The global batch stays.
  - The run goes on from its newest checkpoint (--resume). What has no checkpoint yet begins again (--resume=auto).
It gives up with a table of the attempts and exit code 1 when N is used up, when no grid fits on the hosts that are left, or
when the same step fails twice though no host was lost: that is the batch, the configuration or the program, and not a host.
Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 reach the ranks as ever and end it. RUN/restarts.jsonl has a line for each restart:
at, from_step, to_step, exit_code, reason, hosts of the attempt that failed, seconds_down until the first step after it, and
steps_repeated.
"""

import argparse
import datetime
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time

from restart_attempt import Attempt
from restart_command import Command, Refused
from restart_hosts import Hosts
from restart_records import add_line, lock_holder, newest_checkpoint, seconds_of_steps, stamp, table

ENDS = (0, 2, 75, 130, 143)
LOCK_PAUSES = (5, 10, 20, 40, 60, 60, 60)  # seconds; a lock that a dead NFS client held goes after its lease, often 90


def say(text):
    print(f"restarts: {text}", file=sys.stderr, flush=True)


class Supervisor:
    def __init__(self, options):
        self.options = options
        self.command = Command(options.command)
        self.folder = self.command.run
        self.hosts = Hosts(options.hosts, options.spare_hosts, self.command.program) if options.hosts else None
        self.most = self.ranks = options.n or len(self.hosts.used) * options.ranks_per_node
        self.before = stamp(self.folder / "config.toml")
        self.attempts = []
        self.attempt = None
        self.down = None  # the line of restarts.jsonl that waits for its restart's first step
        self.steps_repeated, self.seconds_down = 0, 0.0
        self.asked = threading.Event()  # a signal came
        self.signal = None
        self.began = time.monotonic()

    def on_signal(self, number, _):
        self.signal = self.signal or number
        self.asked.set()
        if self.attempt:
            self.attempt.send(number)

    def begun(self):
        """Whether an attempt reached the run's records: what is in the folder then is this run."""
        return stamp(self.folder / "config.toml") not in (None, self.before)

    def launch(self, host_file):
        """The words of the next attempt's mpirun.sh."""
        options = self.options
        words = [str(pathlib.Path(__file__).resolve().parent / "mpirun.sh"), *options.launch_word]
        if options.rank_logs:
            words += ["--rank-logs", f"{options.rank_logs}/attempt-{len(self.attempts) + 1}"]
        if self.hosts:
            words += ["--hosts", host_file, "--ranks-per-node", str(options.ranks_per_node)]
        if not self.hosts or self.ranks != len(self.hosts.used) * options.ranks_per_node:
            words += ["-n", str(self.ranks)]
        if not self.attempts:
            return words + options.command
        return words + self.command.again(self.begun(), newest_checkpoint(self.folder) > 0, self.ranks != self.most)

    def start(self):
        """One attempt, to its end."""
        environment = dict(os.environ)
        if sys.stderr.isatty():
            environment["VQLM_TERMINAL"] = "1"  # the ranks' words pass through here and still end at one
        with tempfile.NamedTemporaryFile("w", prefix="vqlm-hosts-", suffix=".txt") as host_file:
            if self.hosts:
                host_file.writelines(f"{self.hosts.lines[name]}\n" for name in self.hosts.used)
                host_file.flush()
            hosts = list(self.hosts.used) if self.hosts else []
            self.attempt = Attempt(self.launch(host_file.name), self.folder, hosts, environment)
            if self.asked.is_set():
                self.attempt.send(self.signal)  # it came before there was anything to send it to
            self.attempt.wait(self.note_restart)
        self.attempts.append(self.attempt)
        self.note_restart(self.attempt)
        return self.attempt.code

    def note_restart(self, attempt):
        """Writes the line of the failure before, when this attempt does its first step, or ends without one."""
        if self.down is None:
            return
        if attempt.first_progress:
            repeated, until = max(0, self.down["to_step"] - attempt.from_step), attempt.first_progress
        else:
            repeated, until = 0, time.monotonic()
            attempt.progress = until  # from which the next failure counts
        down = until - self.failed_at
        self.steps_repeated += repeated
        self.seconds_down += down
        line, self.down = {**self.down, "seconds_down": round(down, 2), "steps_repeated": repeated}, None
        add_line(self.folder, line)

    def run(self):
        """The exit code."""
        code = self.start()
        while code not in ENDS and not self.asked.is_set():
            problem = self.reason_to_give_up()
            if problem or self.asked.is_set():
                break
            code = self.start()
        else:
            self.tell_end()
            return code
        if self.asked.is_set():
            self.tell_end()
            return 130 if self.signal == signal.SIGINT else 143
        say(f"gives up: {problem}")
        for line in table(self.attempts):
            print(line, file=sys.stderr)
        self.tell_end()
        return 1

    def reason_to_give_up(self):
        """After a failure: prepares the next attempt, or says why there is none."""
        failed = self.attempt
        self.attempt = None
        # What was lost counts from the last sign of the run, which may lie long before mpirun's end.
        self.failed_at = failed.progress
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.down = {"at": now, "from_step": failed.from_step, "to_step": failed.to_step, "exit_code": failed.code,
                     "reason": failed.reason, "hosts": failed.hosts}
        failed.excused = failed.is_locked_out()
        say(f"attempt {len(self.attempts)} failed after step {failed.to_step} with exit code {failed.code}: {failed.reason}")
        if len(self.attempts) > self.options.restarts:
            return f"--restarts {self.options.restarts} are used up"
        self.wait_for_lock()
        if self.asked.is_set():
            return ""
        if self.hosts:
            try:
                self.place(failed)
            except Refused as error:
                return str(error)
        if problem := self.same_step(failed):
            return problem
        where = f" on {' '.join(self.hosts.used)}" if self.hosts else ""
        step = newest_checkpoint(self.folder) if self.begun() else 0
        say(f"attempt {len(self.attempts) + 1}: {self.ranks} ranks{where}, after step {step}")
        return ""

    def place(self, failed):
        """Chooses hosts and ranks for the next attempt."""
        named = [host for host in self.hosts.named(failed.text()) if host in failed.hosts]
        tensor, micro_batches = self.command.grid()
        if len(named) == 1 and self.hosts.leave_out(named[0], failed.reason, self.options.ranks_per_node, tensor):
            say(f"{named[0]} is left out from now on: {failed.reason}")
        problems = self.hosts.check()
        for host, problem in problems.items():
            if problem:
                say(f"{host} is left out: {problem}")
        failed.excused = failed.excused or any(problems.get(host) for host in failed.hosts)
        well = [host for host, problem in problems.items() if not problem]
        self.ranks = self.hosts.choose(well, self.options.ranks_per_node, self.most, tensor, micro_batches)
        if self.ranks < self.most:
            say(f"{self.ranks} of {self.most} ranks go on: parallel.data = {self.ranks // tensor}")
        if spares := self.hosts.spares(well):
            say(f"spare: {' '.join(spares)}")

    def same_step(self, failed):
        """In words, where this step has failed before and no host was to blame."""
        if failed.excused:
            return ""
        before = [one for one in self.attempts[:-1] if one.to_step == failed.to_step and not one.excused]
        if not before:
            return ""
        what = f"step {failed.to_step + 1} failed twice" if failed.to_step else "the training failed twice before a step"
        if not self.hosts:
            return f"{what}: the batch, the configuration or the program"
        if set(before[-1].hosts) != set(failed.hosts):
            return f"{what}, on different hosts: the batch, the configuration or the program, not a host"
        return f"{what}, on the same hosts"

    def wait_for_lock(self):
        for pause in LOCK_PAUSES:
            holder = lock_holder(self.folder)
            if not holder or self.asked.is_set():
                return
            say(f"{self.folder}/run.lock is held ({holder}); waiting {pause} s for its end")
            self.asked.wait(pause)

    def tell_end(self):
        wall = time.monotonic() - self.began
        counted = seconds_of_steps(self.folder, self.attempts[0].from_step) if self.begun() else 0.0
        say(f"{len(self.attempts)} attempts, {self.steps_repeated} steps repeated, {self.seconds_down:.1f} s down, "
            f"goodput {100 * counted / wall:.1f} % ({counted:.1f} s of steps that count in {wall:.1f} s)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, required=True)
    parser.add_argument("-n", type=int)
    parser.add_argument("--hosts")
    parser.add_argument("--ranks-per-node", type=int)
    parser.add_argument("--spare-hosts")
    parser.add_argument("--rank-logs")
    parser.add_argument("--launch-word", action="append", default=[], help="a word for mpirun.sh, before the command")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    try:
        supervisor = Supervisor(options)
    except (Refused, ValueError) as error:
        print(f"restarts: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, supervisor.on_signal)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
