"""A run that is killed at any moment and resumed is, bit by bit, the run that was never killed.

    kill_test.py [--rounds 25] [--seed 1] [--jobs 2]

A round starts a tiny model on 1 to 4 ranks, kills -9 one random rank, mpirun, or all of them at once, resumes, perhaps kills
again, and compares with an uninterrupted run: every loss, gradient norm and learning rate that was ever written to
metrics.jsonl (also those of steps that the resume did again), the evaluations, and the last checkpoint's files. The moment is
uniform over the run's time, or a random time after a random step, or inside a save that a watcher sees begin. Heads alternate,
grids too; some rounds resume on another grid, and then agree to 1e-5. Nothing of a job may live on."""

import argparse
import concurrent.futures
import pathlib
import random
import re
import shutil
import sys
import tempfile
import threading
import time

from job import Job, kill
from moments import moment, newest_step, partial_state
from tiny_runs import GRIDS, HEADS, Reference, STEPS, history, prepare, train_arguments

TIMEOUT = 120  # a run takes one or two seconds
POLL = 0.0003
VICTIMS = ["rank", "rank", "rank", "job", "job", "mpirun"]


class References:
    """Uninterrupted runs, each made when it is first asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.made = {}
        self.locks = {(head, grid): threading.Lock() for head in HEADS for grid in GRIDS}

    def get(self, head, grid):
        with self.locks[head, grid]:
            if (head, grid) not in self.made:
                self.made[head, grid] = Reference(self.folder, head, grid)
            return self.made[head, grid]


def strike(job, victim, numbers):
    """Kills; returns words for whom."""
    ranks = job.rank_pids()
    if victim == "rank" and ranks:
        chosen = numbers.randrange(len(ranks))
        kill(ranks[chosen])
        return f"rank {chosen} of {job.ranks}"
    everyone = [job.process.pid] if victim == "mpirun" and job.ranks > 1 else [job.process.pid, *ranks]
    numbers.shuffle(everyone)
    for pid in everyone:
        kill(pid)
    return "mpirun" if victim == "mpirun" and job.ranks > 1 else "the job"


class Round:
    def __init__(self, number, seed, folder, references):
        self.numbers = random.Random(f"{seed} {number}")
        self.head = list(HEADS)[number % len(HEADS)]
        self.grid = GRIDS[number // len(HEADS) % len(GRIDS)]
        self.folder = folder
        self.run = folder / f"round-{number}"
        self.reference = references.get(self.head, self.grid)
        self.told = [f"round {number:3} {self.head:5} {self.grid[0]}x{self.grid[1]}:"]
        self.failures = []
        self.exact_until = STEPS  # steps that one grid has computed
        self.kills = self.kills_in_saves = 0

    def start(self, attempt):
        arguments = train_arguments(self.folder, self.run.name, self.head, self.grid)
        job = Job([*arguments, *(["--resume=auto"] if attempt else [])], self.grid[0] * self.grid[1],
                  f"{self.run}-{attempt}.log")
        return job

    def finish(self, job, killed):
        """Waits for the end; a killed job must end too, and nothing of it may stay."""
        code = job.wait(TIMEOUT)
        if code is None:
            self.failures.append(f"hangs {'after the kill' if killed else ''}")
        elif code != 0 and not killed:
            self.failures.append(f"ends with exit code {code}")
        if orphans := job.orphans():
            self.failures.append(f"processes {orphans} outlive the job")
        self.failures += self.reference.differences(history(self.run), self.exact_until)
        resumed = re.search(r"continuing after step (\d+)", job.words())
        return int(resumed[1]) if resumed else 0

    def run_until_killed(self, attempt):
        """True where the kill came before the run's own end."""
        every = HEADS[self.head]["checkpoint.every"]
        words, condition = moment(self.numbers, self.reference.seconds, every, self.run)
        victim = self.numbers.choice(VICTIMS)
        job = self.start(attempt)
        while job.process.poll() is None and not condition(job):
            if time.monotonic() - job.started > TIMEOUT:
                break
            time.sleep(POLL)
        alive = job.process.poll() is None
        whom = strike(job, victim, self.numbers) if alive else ""
        begin = self.finish(job, killed=alive)
        if not alive:
            self.told.append("ended before the kill,")
            return False
        left = partial_state(self.run)
        done = [step for step, kind in history(self.run) if kind == "step"]
        self.kills += 1
        self.kills_in_saves += bool(left)
        self.told.append(f"{'from step ' + str(begin) + ' on: ' if attempt else ''}{whom} killed {words}"
                         f" ({max(done, default=0)} steps done{left});")
        return True

    def change_grid(self):
        self.grid = self.numbers.choice([grid for grid in GRIDS if grid != self.grid])
        self.exact_until = newest_step(self.run)
        self.told.append(f"goes on as {self.grid[0]}x{self.grid[1]};")

    def play(self):
        kills = self.numbers.choice([1, 1, 1, 2, 3])
        attempt = 0
        while attempt < kills and not self.failures and (killed := self.run_until_killed(attempt)):
            attempt += 1
            if self.exact_until == STEPS and self.numbers.random() < 0.15:
                self.change_grid()
        if killed and not self.failures:
            begin = self.finish(self.start(attempt), killed=False)
            self.told.append(f"ends from step {begin} on,")
        if not self.failures:
            self.failures += self.reference.differences_at_end(self.run, self.exact_until)
        verdict = "bit-identical" if self.exact_until == STEPS else "within 1e-5"
        self.told.append("; ".join(self.failures[:5]) if self.failures else verdict)
        if not self.failures:
            shutil.rmtree(self.run)
        return self


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to play one again")
    parser.add_argument("--jobs", type=int, default=2, help="rounds side by side")
    parser.add_argument("--folder", help="on a shared file system, for instance; default: a temporary one")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as name, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        folder = pathlib.Path(name)
        prepare(folder)
        references = References(folder)
        rounds = [pool.submit(lambda n=n: Round(n, options.seed, folder, references).play())
                  for n in range(options.first, options.first + options.rounds)]
        failed = kills = in_saves = 0
        for played in concurrent.futures.as_completed(rounds):
            result = played.result()
            failed += bool(result.failures)
            kills += result.kills
            in_saves += result.kills_in_saves
            print("FAILED " * bool(result.failures) + " ".join(result.told), flush=True)
            if result.failures:
                for log in sorted(folder.glob(f"{result.run.name}-*.log")):
                    print(f"--- {log.name}\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}", flush=True)
    print(f"{options.rounds} rounds, {kills} kills ({in_saves} left a half-written checkpoint), {failed} rounds failed, "
          f"{time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
