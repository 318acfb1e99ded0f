"""Whether a process has really ended, and waiting for that and other things."""

import time


def has_live_thread(process):
    """Whether a thread of the process, a folder in /proc, has yet to end: a process whose first thread is a zombie, and which has
    no environment any more, still has its files and their locks until its last thread ends."""
    try:
        for stat in process.glob("task/[0-9]*/stat"):
            if stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] not in "ZX":
                return True
    except OSError:
        return process.exists() and has_live_thread(process)  # a thread ended meanwhile
    return False


def wait_until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return value
