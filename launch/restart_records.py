"""What launch/restarts.py reads in a run's folder, and what it writes there: restarts.jsonl."""

import fcntl
import json
import os
import struct


def last_step(folder):
    """Of metrics.jsonl; 0 where it tells of none."""
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline was cut by a kill
    except OSError:
        return 0
    return next((entry["step"] for entry in map(entry_of, reversed(lines)) if "loss" in entry), 0)


def entry_of(line):
    try:
        entry = json.loads(line)
        return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else {}
    except ValueError:
        return {}


def seconds_of_steps(folder, after):
    """Of the steps in metrics.jsonl behind `after`, each of which is there once: those that a resume did again were cut."""
    try:
        with open(folder / "metrics.jsonl", encoding="utf-8", errors="replace") as file:
            steps = [entry for entry in map(entry_of, file) if "loss" in entry and entry["step"] > after]
    except OSError:
        return 0.0
    return sum(entry.get("seconds") or 0.0 for entry in steps)


def newest_checkpoint(folder):
    """The step of the newest complete one; 0 without one."""
    names = (path.parent.name[5:] for path in folder.glob("checkpoints/step-*/manifest.json"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def stamp(path):
    """Changes whenever a file is written anew; None without one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def size_of(path):
    try:
        return path.stat().st_size
    except OSError:
        return 0


def lock_holder(folder):
    """The first line of run.lock where a job holds it, else "". Asked, not taken, which would be in a job's way."""
    try:
        with open(folder / "run.lock", "rb") as file:
            asked = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
            if struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0] == fcntl.F_UNLCK:
                return ""
            return file.readline().decode(errors="replace").strip() or "a job that says nothing of itself"
    except OSError:
        return ""  # no lock, or a file system without locks


def add_line(folder, entry):
    """To restarts.jsonl, on the disk before this returns. A run that never got a folder has no such file."""
    if not folder.is_dir():
        return
    with open(folder / "restarts.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def table(attempts):
    """The attempts as lines of text."""
    rows = [("attempt", "from step", "to step", "seconds", "exit code", "hosts", "reason")]
    for number, one in enumerate(attempts, 1):
        hosts = " ".join(one.hosts) or "-"
        rows.append((str(number), str(one.from_step), str(one.to_step), f"{one.seconds:.0f}", str(one.code), hosts,
                     one.reason[:100]))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return ["  " + "  ".join([*(word.ljust(width) for word, width in zip(row, widths)), row[6]]) for row in rows]
