"""When a test strikes a run of a tiny model, and what the strike leaves."""

import pathlib
import time

from tiny_runs import STEPS

SAVE_SECONDS = 0.03  # a save of the tiny model takes 5 to 30 ms


def newest_step(run):
    """Of the complete checkpoints; 0 where there is none."""
    return max((int(path.parent.name[5:]) for path in run.glob("checkpoints/step-????????/manifest.json")), default=0)


def moment(numbers, seconds, every, run):
    """(words, condition): when to kill; condition(job) is asked all the time and is true from that moment on."""
    begin = newest_step(run)
    kind = numbers.choice(["time", "step", "save", "save"]) if begin < STEPS - every else "time"
    if kind == "time":
        after = numbers.uniform(0, 0.9 * seconds)
        return f"{after:.3f} s after the start", lambda job: time.monotonic() - job.started >= after
    if kind == "step":
        step, delay = numbers.randint(begin + 1, STEPS - 1), numbers.uniform(0, 0.02)
        words, sign = f"{1000 * delay:.1f} ms after step {step}", run / "metrics.jsonl"
        text = f'"step":{step},'
        seen = lambda: sign.exists() and text in sign.read_text(encoding="utf-8", errors="replace")
    else:
        step, delay = numbers.randrange(begin + every, STEPS + 1, every), numbers.uniform(0, SAVE_SECONDS)
        words = f"{1000 * delay:.1f} ms into the save of step {step}"
        final = run / f"checkpoints/step-{step:08}"
        partial = pathlib.Path(f"{final}.partial")
        seen = lambda: partial.exists() or final.exists()
    begun = []

    def condition(_):
        if not begun and seen():
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() - begun[0] >= delay

    return words, condition


def partial_state(run):
    """What a kill in a save left, in words."""
    folder = run / "checkpoints"
    partial = sorted(path for path in folder.iterdir() if ".partial" in path.name) if folder.exists() else []
    if not partial:
        return ""
    files = sorted(path.name for path in partial[-1].iterdir())
    return f", which left {partial[-1].name} with {len(files)} files" + (" and manifest" if "manifest.json" in files else "")
