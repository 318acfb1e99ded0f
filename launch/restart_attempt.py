"""One start of launch/mpirun.sh by launch/restarts.py: its words are passed on and remembered, its run is watched."""

import os
import re
import select
import subprocess
import sys
import time

from restart_records import last_step, size_of, stamp

REMEMBERED = 200_000  # bytes of the last words
POLL_SECONDS = 0.25
# What tells most comes first.
REASONS = [re.compile(pattern, re.MULTILINE) for pattern in (
    r"error: (watchdog: .+)", r"vqlm: error: (?!the watchdog ended)(.+)", r"(.*copies of the parameters differ: .+)",
    r"((?:process rank|mpirun noticed that process rank) .*?exited on signal.*)",                    # Open MPI
    r"(lost communication with a remote daemon)[^-]*?Remote daemon:.* (on node \S+)",
    r"(PID \d+ RUNNING AT .+)",                                                                      # MPICH
    r"^(ssh: .+)", r"mpirun\.sh: (.+)")]


class Attempt:
    def __init__(self, command, folder, hosts, environment):
        """Starts it. The group of processes is its own: a Ctrl-C of the terminal then comes here alone and is handed on,
        instead of twice, which would kill the ranks."""
        self.folder, self.hosts = folder, hosts
        self.code, self.to_step, self.reason = None, 0, ""
        self.words = b""
        self.began = self.progress = time.monotonic()
        self.first_progress = None  # when metrics.jsonl first grew
        self.resumed = None  # the step of the checkpoint that it went on with
        self.metrics = folder / "metrics.jsonl"
        self.size, self.before = size_of(self.metrics), stamp(self.metrics)
        self.seen = self.before
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
                                        preexec_fn=os.setpgrp)

    def send(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, on_progress):
        """Until the end. on_progress(attempt) is called once, when the first line of metrics comes."""
        pipe = self.process.stderr.fileno()
        ended = None  # when it did: what still holds its standard error may go on for long
        looked = 0.0
        while True:
            ready, _, _ = select.select([pipe], [], [], POLL_SECONDS)
            part = os.read(pipe, 65536) if ready else b""
            if part:
                self.pass_on(part)
            now = time.monotonic()
            if now - looked >= POLL_SECONDS:
                looked = now
                self.look(on_progress)
            if ended is None and self.process.poll() is not None:
                ended = now
            if (ready and not part) or (ended is not None and now - ended > 2 and not ready):
                break
        self.code = self.process.wait()
        if self.code < 0:
            self.code = 128 - self.code  # mpirun.sh itself was killed
        self.process.stderr.close()
        self.look(on_progress)
        self.seconds = time.monotonic() - self.began
        # Steps that the folder told of before this attempt wrote there are none of its own.
        is_own = stamp(self.metrics) != self.before
        self.to_step = max(self.from_step, last_step(self.folder)) if is_own else self.from_step
        self.reason = self.find_reason()

    def pass_on(self, part):
        self.words = (self.words + part)[-REMEMBERED:]
        if said := re.search(rb"continuing after step (\d+)", self.words):
            self.resumed = int(said[1])
        sys.stderr.buffer.write(part)
        sys.stderr.buffer.flush()

    def look(self, on_progress):
        """Steps, evaluations and saves make the file larger, and a resume cuts it: where both came since the last look, it may
        be no larger and yet tell of more than the checkpoint."""
        size, now = size_of(self.metrics), stamp(self.metrics)
        if size > self.size or (now != self.seen and self.resumed is not None and last_step(self.folder) > self.resumed):
            self.progress = time.monotonic()
            if self.first_progress is None:
                self.first_progress = self.progress
                on_progress(self)
        self.size, self.seen = size, now

    @property
    def from_step(self):
        return self.resumed or 0

    def text(self):
        return self.words.decode(errors="replace")

    def is_locked_out(self):
        return "another job is writing this run" in self.text()

    def find_reason(self):
        words = self.text()
        for pattern in REASONS:
            if found := pattern.findall(words):
                parts = found[-1] if isinstance(found[-1], tuple) else (found[-1],)
                return " ".join(" ".join(parts).split())[:200]
        return f"exit code {self.code}"
