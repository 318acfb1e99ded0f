"""Times of training steps over a limited link between two hosts, beside what vqlm plan predicts: a table in Markdown.

    VQLM_PROGRAM=build/vqlm python3 tests/cluster/step_times.py [--rates 1000,100] [--vocab 16000,50257] [--repeats 3] [--steps 4]
        [--set parallel.overlap=false]

The hosts are those of hosts.py, on one machine, whose cores they share: compute times are this machine's; tbf limits the cable
of the second host to the rate, each way. Two ranks, one a host, data-parallel; d = 192, 2 layers, 2 x 1,024 tokens a step of
made-up ids (log-uniform, as words roughly are). Each repeat plays all heads at all rates, one after the other; times are medians
over the steps of all repeats, without each run's first step. What the link adds is the time of a step less that without a limit;
beside it stand the plan's times of communication, at the cable's rate and with what bench collectives measured over it. Sent
bytes are the plan's, and eth0's counters, which have headers in them, too.

Not a test: use a quiet machine. Needs root, as hosts.py says."""

import argparse
import array
import json
import os
import pathlib
import random
import statistics
import struct
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent / "faults"))
from hosts import Cluster, skip_all, why_not
from job import ENVIRONMENT, PROGRAM
from links import can_limit

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch/mpirun.sh"
TOKENS = 200_000
SETTINGS = {"model.d_model": 192, "model.n_layers": 2, "model.n_heads": 6, "model.d_ff": 512, "data.seq_len": 256,
            "train.global_batch": 8, "train.micro_batch": 4, "train.eval_every": 0, "train.check_replicas_every": 0, "optim.lr": 1e-3,
            "optim.warmup_steps": 0, "checkpoint.every": 1_000_000, "run.device": "cpu", "run.threads": 1, "parallel.data": 2,
            "parallel.tensor": 1}
VQ = {"head.kind": "vq", "head.clusters": 128, "head.map": "frequency"}
ROWS = {"optim.embedding_update": "rows", "optim.embedding_decay_ratio": 0}
HEADS = {"dense": {"head.kind": "dense"},
         "dense, embedding by rows": {"head.kind": "dense", **ROWS},
         "dense, tied": {"head.kind": "dense", "model.tie_embeddings": "true"},
         "VQ, members by the embedding": {**VQ, "head.members": "embedding"},
         "VQ, product codes": {**VQ, "head.members": "codes"},
         "VQ, product codes, embedding by rows": {**VQ, "head.members": "codes", **ROWS}}
UNLIMITED = None


def write_ids(path, vocab):
    """A NumPy array of uint16, which a frequent id has as often as its rank is low."""
    numbers = random.Random(1)
    ids = array.array("H", (min(vocab, int(vocab ** numbers.random())) - 1 for _ in range(TOKENS)))
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({TOKENS},), }}"
    header += " " * (63 - (len(header) + 10) % 64) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + ids.tobytes())


def words(settings):
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


class Measurement:
    def __init__(self, cluster, options):
        self.cluster, self.options = cluster, options
        self.hosts = cluster.folder / "hosts.txt"
        self.hosts.write_text("h1\nh2\n")
        self.seconds = {}  # (vocab, head, rate): of steps
        self.counted = {}  # the same: bytes a step that a host's eth0 sent
        for vocab in options.vocab:
            write_ids(cluster.folder / f"{vocab}.npy", vocab)
            self.call(PROGRAM, "prepare", "--from-tokens", f"{vocab}.npy", "--vocab-size", vocab, "--heldout", 0, "--out",
                      f"shards-{vocab}")

    def call(self, *command):
        done = self.cluster.run("h1", *command, environment=ENVIRONMENT, timeout=600)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")

    def on_both(self, *command):
        return [LAUNCH, "--interface", "eth0", "--hosts", self.hosts, "--ranks-per-node", "1", *command]

    def set_rate(self, rate):
        self.cluster.limit("h2", rate)

    def measure_collectives(self, rate):
        """The file that bench collectives writes at this rate."""
        path = self.cluster.folder / f"network-{rate}.json"
        # Up to 4 MiB: from there on a rate is what it is, and at 100 Mbit/s larger ones take minutes.
        self.call(*self.on_both(PROGRAM, "bench", "collectives", "--device", "cpu", "--max-bytes", "8388608", "--json", path))
        return path

    def sent(self):
        """Bytes by a host, so far."""
        read = "cat /sys/class/net/eth0/statistics/tx_bytes"
        return statistics.mean(int(self.cluster.shell(host, read)) for host in self.cluster.hosts)

    def train(self, vocab, head, rate):
        run = self.cluster.folder / f"run-{len(self.seconds)}-{time.monotonic_ns()}"
        settings = {**SETTINGS, **HEADS[head], "data.train": f"shards-{vocab}/train-*.h5", "train.steps": self.options.steps + 1,
                    "run.dir": run}
        log = run.with_suffix(".log")
        process = self.cluster.start("h1", *self.on_both(PROGRAM, "train", *words(settings)), log=log, environment=ENVIRONMENT)
        path, at = run / "metrics.jsonl", {}
        while process.poll() is None:
            told = path.read_text().count('"loss"') if path.exists() else 0
            if told and told not in at:
                at[told] = self.sent()
            time.sleep(0.05)
        if process.returncode != 0:
            raise SystemExit(log.read_text())
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        steps = [entry["seconds"] for entry in entries if "loss" in entry]
        self.seconds.setdefault((vocab, head, rate), []).extend(steps[1:])
        last = max(step for step in at if step <= self.options.steps)
        if last > 1 and 1 in at:
            self.counted.setdefault((vocab, head, rate), []).append((at[last] - at[1]) / (last - 1))

    def plan(self, vocab, head, *network):
        """(bytes that a rank sends in a step, seconds of collectives)."""
        path = self.cluster.folder / "plan.json"
        self.call(PROGRAM, "plan", "--vocab", vocab, "--grid", "2x1", "--dtype", "fp32", *network, "--json", path,
                  *words({**SETTINGS, **HEADS[head]}))
        plan = json.loads(path.read_text())
        return sum(one["sent_bytes"] for one in plan["collectives"]), plan["seconds"]["collectives"]


def table(measurement, networks):
    """A line a vocabulary and head. What the link adds: the step's seconds less those without a limit."""
    rates = list(networks)
    yield ("| V | head | MB a step and rank, plan | eth0 | s a step, no limit |" +
           "".join(f" {rate} Mbit/s | link adds | plan | plan, measured |" for rate in rates))
    yield "|--:|---|--:|--:|--:|" + "--:|--:|--:|--:|" * len(rates)
    for vocab in measurement.options.vocab:
        for head in measurement.options.heads:
            sent, _ = measurement.plan(vocab, head)
            counted = [value for rate in rates for value in measurement.counted.get((vocab, head, rate), [])]
            free = statistics.median(measurement.seconds[vocab, head, UNLIMITED])
            seen = f"{statistics.median(counted) / 1e6:.1f}" if counted else "-"
            cells = [f"{vocab:,}", head, f"{sent / 1e6:.1f}", seen, f"{free:.2f}"]
            for rate in rates:
                seconds = statistics.median(measurement.seconds[vocab, head, rate])
                stated = measurement.plan(vocab, head, "--network-gbs", rate / 8000)[1]
                measured = measurement.plan(vocab, head, "--measured", networks[rate])[1]
                cells += [f"{value:.2f}" for value in (seconds, seconds - free, stated, measured)]
            yield "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(word) for word in text.split(",")]
    parser.add_argument("--rates", type=numbers, default=[1000, 100], help="Mbit/s")
    parser.add_argument("--vocab", type=numbers, default=[16000, 50257])
    parser.add_argument("--heads", type=lambda text: text.split(";"), default=list(HEADS),
                        help="with ; between them: " + ";".join(HEADS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed ones of a run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all runs")
    options = parser.parse_args()
    SETTINGS.update(one.split("=", 1) for one in options.set)
    with Cluster(hosts=2) as cluster:
        measurement = Measurement(cluster, options)
        networks = {}
        for rate in options.rates:
            measurement.set_rate(rate)
            networks[rate] = measurement.measure_collectives(rate)
        measurement.set_rate(UNLIMITED)
        for repeat in range(options.repeats):
            for rate in (UNLIMITED, *options.rates):
                if rate:
                    measurement.set_rate(rate)
                for vocab in options.vocab:
                    for head in options.heads:
                        measurement.train(vocab, head, rate)
                        print(f"repeat {repeat + 1}, {rate or 'no limit'}, V = {vocab}, {head}: "
                              f"{measurement.seconds[vocab, head, rate][-options.steps:]}, load {os.getloadavg()[0]:.1f}",
                              file=sys.stderr, flush=True)
            measurement.set_rate(UNLIMITED)
        print("\n".join(table(measurement, networks)))


if __name__ == "__main__":
    if reason := why_not("mpirun") or (None if can_limit() else "the kernel has no tbf"):
        skip_all(reason)
    main()
