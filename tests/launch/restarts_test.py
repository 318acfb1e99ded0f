"""launch/mpirun.sh --restarts: a training that fails goes on by itself, and one that cannot is given up. On this machine with
the program; over hosts with an ssh and an mpirun that only pretend, and put down what they were asked."""

import fcntl
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

from program import PROGRAM, SOURCE_DIR

sys.path[:0] = [f"{SOURCE_DIR}/tests/faults", f"{SOURCE_DIR}/launch"]
from job import ENVIRONMENT  # noqa: E402
from restart_command import Command, Refused, keys_of  # noqa: E402
from tiny_runs import Reference, history, prepare, train_arguments  # noqa: E402

LAUNCH = f"{SOURCE_DIR}/launch/mpirun.sh"
# Hosts are well unless a file says otherwise: dead/HOST does not answer, sick/HOST fails vqlm doctor.
SSH = """#!/bin/bash
while [ "$1" = -o ]; do shift 2; done
echo "$1: ${*:2}" >>"$PRETENDED/ssh.txt"
if [ -e "$PRETENDED/dead/$1" ]; then echo "ssh: connect to host $1 port 22: No route to host" >&2; exit 255; fi
if [ -e "$PRETENDED/sick/$1" ] && [[ "$*" == *doctor* ]]; then
  echo "vqlm: error: doctor: 1 of 4 checks failed: matmul" >&2
  exit 1
fi
"""
# Attempt K puts down its words and hosts, and then plays the script play-K in the run's folder.
MPIRUN = """#!/bin/bash
if [ "$1" = --version ]; then echo "mpirun (Open MPI) 4.1.4"; exit; fi
number=$(($(ls "$PRETENDED" | grep -c ^words-) + 1))
printf '%s\\n' "$@" >"$PRETENDED/words-$number"
while [ $# -gt 0 ]; do if [ "$1" = --hostfile ]; then cp "$2" "$PRETENDED/hosts-$number"; fi; shift; done
cd "$PRETENDED/run" && . "$PRETENDED/tools" && . "$PRETENDED/play-$number"
"""
# For those scripts: config KEYS..., steps FROM TO, save STEP.
TOOLS = """
config() {
  printf '[parallel]\\ntensor = %s\\ndata = %s\\n[train]\\nglobal_batch = %s\\nmicro_batch = %s\\n' "$@" >config.toml
}
steps() { for step in $(seq "$1" "$2"); do echo "{\\"step\\":$step,\\"loss\\":1.0,\\"seconds\\":0.01}"; done >>metrics.jsonl; }
save() { mkdir -p "checkpoints/step-$(printf %08d "$1")"; touch "checkpoints/step-$(printf %08d "$1")/manifest.json"; }
"""


class Case(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.run_dir = self.folder / "run"

    def restarts(self):
        path = self.run_dir / "restarts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def launch(self, *words, timeout=120, **environment):
        return subprocess.run([LAUNCH, *map(str, words)], env={**os.environ, **ENVIRONMENT, **environment},
                              capture_output=True, text=True, timeout=timeout, check=False)

    def executable(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path


class OnThisMachine(Case):
    def killed_at(self, *steps):
        """The program, whose rank 1 dies in attempt K soon after the K-th of these steps."""
        return self.executable("vqlm", f"""#!/bin/bash
steps=({' '.join(map(str, steps))})
if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then
  number=$(ls {self.folder} | grep -c ^attempt-)
  touch {self.folder}/attempt-$number
  if [ -n "${{steps[number]:-}}" ]; then
    sign="\\"step\\":${{steps[number]}},"
    (until grep -q "$sign" {self.run_dir}/metrics.jsonl 2>/dev/null; do sleep 0.001; done; kill -9 $$) &
  fi
fi
exec {PROGRAM} "$@"
""")

    def test_a_killed_rank_costs_some_steps_and_nothing_else(self):
        prepare(self.folder)
        whole = Reference(self.folder, "dense", (2, 1))
        result = self.launch("--restarts", "3", "-n", "2", self.killed_at(23),
                             *train_arguments(self.folder, "run", "dense", (2, 1)))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(whole.differences_at_end(self.run_dir), [])
        (restart,) = self.restarts()
        self.assertEqual((restart["from_step"], restart["exit_code"], restart["hosts"]), (0, 137, []), restart)
        self.assertGreaterEqual(restart["to_step"], 23)
        self.assertIn("signal 9", restart["reason"])
        self.assertGreater(restart["seconds_down"], 0)
        self.assertIn(f"2 attempts, {restart['steps_repeated']} steps repeated", result.stderr)
        self.assertIn(f"continuing after step {restart['to_step'] - restart['steps_repeated']} ", result.stderr)
        # A run that has all its steps is at its end at once.
        again = self.launch("--restarts", "3", "-n", "2", PROGRAM, *train_arguments(self.folder, "run", "dense", (2, 1)),
                            "--resume")
        self.assertEqual((again.returncode, len(self.restarts())), (0, 1), again.stderr)

    def test_the_last_restart_is_followed_by_none(self):
        prepare(self.folder)
        result = self.launch("--restarts", "1", "-n", "2", self.killed_at(10, 30, 50),
                             *train_arguments(self.folder, "run", "dense", (2, 1)))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("--restarts 1 are used up", result.stderr)
        self.assertEqual(len(self.restarts()), 1)
        self.assertLess(max(step for step, _ in history(self.run_dir)), 60)

    def test_damaged_text_is_not_tried_for_ever(self):
        prepare(self.folder)
        (shard,) = (self.folder / "shards").glob("train-*.h5")
        data = bytearray(shard.read_bytes())
        data[-len(data) // 10] ^= 1
        shard.write_bytes(data)
        result = self.launch("--restarts", "5", "-n", "2", PROGRAM, *train_arguments(self.folder, "run", "dense", (2, 1)))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("gives up: the training failed twice before a step", result.stderr)
        rows = [line for line in result.stderr.splitlines() if line.startswith(("  1  ", "  2  ", "  3  "))]
        self.assertEqual(len(rows), 2, result.stderr)
        self.assertIn(shard.name, rows[1])

    def test_a_step_that_fails_twice_is_given_up(self):
        program = self.executable("vqlm", f"""#!/bin/bash
if [ "$OMPI_COMM_WORLD_RANK" != 0 ]; then exec sleep 60; fi
mkdir -p {self.run_dir}; cd {self.run_dir}; {TOOLS}
echo "$@" >>{self.folder}/starts
from=0
if [ -e checkpoints ]; then from=20; echo "continuing after step 20 (1 tokens)" >&2; fi
config 1 2 4 1; grep -E '"step":1?[0-9],|"step":20,' metrics.jsonl >cut 2>/dev/null; mv cut metrics.jsonl
steps $((from + 1)) 23; save 20; kill -9 $$
""")
        result = self.launch("--restarts", "5", "-n", "2", program, "train", "--set", f"run.dir={self.run_dir}", "--force")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("gives up: step 24 failed twice", result.stderr)
        starts = (self.folder / "starts").read_text().splitlines()
        self.assertEqual(starts, [f"train --set run.dir={self.run_dir} --force",
                                  f"train --set run.dir={self.run_dir} --resume"])
        (restart,) = self.restarts()
        self.assertEqual((restart["to_step"], restart["steps_repeated"]), (23, 3))
        rows = [line.split()[:5] for line in result.stderr.splitlines() if line.startswith(("  1  ", "  2  "))]
        self.assertEqual([(row[1], row[2], row[4]) for row in rows], [("0", "23", "137"), ("20", "23", "137")])

    def test_ends_that_are_no_failures(self):
        for code in (0, 2, 75, 143):
            result = self.launch("--restarts", "5", "-n", "1", "bash", "-c", f"echo start; exit {code}", "train", "--set",
                                 f"run.dir={self.run_dir}")
            self.assertEqual((result.returncode, result.stdout), (code, "start\n"), result.stderr)

    def test_signals_reach_the_ranks_and_end_it(self):
        waits = 'trap "exit 75" USR1; echo ready; for i in $(seq 300); do sleep 0.1; done'
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            with subprocess.Popen([LAUNCH, "--restarts", "5", "-n", "2", "bash", "-c", waits, "train"],
                                  stdout=subprocess.PIPE, text=True,
                                  stderr=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT}) as process:
                self.assertEqual([process.stdout.readline() for _ in range(2)], ["ready\n"] * 2)
                process.send_signal(number)
                self.assertEqual(process.wait(timeout=30), 75)
                self.assertEqual(process.stdout.read(), "", "it started again")

    def test_it_waits_for_the_lock_of_ranks_that_are_ending(self):
        self.run_dir.mkdir()
        command = [LAUNCH, "--restarts", "1", "-n", "1", "bash", "-c", f"echo >>{self.folder}/starts; exit 1", "train", "--set",
                   f"run.dir={self.run_dir}"]
        with open(self.run_dir / "run.lock", "w") as lock:
            lock.write("host h9, process 77\n")
            lock.flush()
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))
            with subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.PIPE, text=True) as process:
                words = ""
                while "run.lock is held" not in words:
                    line = process.stderr.readline()
                    self.assertTrue(line, f"it waited for no lock: {words}")
                    words += line
                self.assertIn("(host h9, process 77); waiting 5 s", words)
                self.assertEqual((self.folder / "starts").read_text(), "\n", "it started beside the lock's holder")
                fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_UNLCK, 0, 0, 0, 0))
                process.stderr.read()
                self.assertEqual(process.wait(timeout=60), 1)
        self.assertEqual((self.folder / "starts").read_text(), "\n\n")


class OverHosts(Case):
    def setUp(self):
        super().setUp()
        for name in ("run", "dead", "sick", "bin"):
            (self.folder / name).mkdir()
        self.executable("bin/ssh", SSH)
        self.executable("bin/mpirun", MPIRUN)
        (self.folder / "tools").write_text(TOOLS)

    def play(self, hosts, spares, *scripts, words=(), restarts=5, per_node=2, **environment):
        """One supervised run of pretended attempts, each of which plays its script."""
        (self.folder / "hosts.txt").write_text("".join(f"{host}\n" for host in hosts))
        (self.folder / "spares.txt").write_text("".join(f"{host}\n" for host in spares))
        for number, script in enumerate(scripts, 1):
            (self.folder / f"play-{number}").write_text(script + "\n")
        return self.launch("--restarts", restarts, "--hosts", self.folder / "hosts.txt",
                           "--spare-hosts", self.folder / "spares.txt", "--ranks-per-node", per_node, "--oversubscribe", "vqlm", "train", "--set",
                           f"run.dir={self.run_dir}", *words,
                           PRETENDED=str(self.folder), PATH=f"{self.folder}/bin:{os.environ['PATH']}",
                           VQLM_MPIRUN="mpirun", **environment)

    def hosts_of(self, attempt):
        return (self.folder / f"hosts-{attempt}").read_text().split("\n")[:-1]

    def words_of(self, attempt):
        return (self.folder / f"words-{attempt}").read_text().split("\n")[:-1]

    def ranks_of(self, attempt):
        words = self.words_of(attempt)
        return int(words[words.index("-n") + 1])

    def attempts(self):
        return len(list(self.folder.glob("words-*")))

    def test_a_spare_takes_the_place_of_a_host_that_does_not_answer(self):
        dies = f"config 1 4 8 1; steps 1 12; save 10; touch {self.folder}/dead/h2; exit 205"
        result = self.play(["h1", "h2 slots=2  # the second"], ["s1", "s2 slots=2"], dies, "steps 13 20; exit 0")
        self.assertEqual((result.returncode, self.attempts()), (0, 2), result.stderr)
        self.assertEqual((self.hosts_of(1), self.hosts_of(2)), (["h1", "h2 slots=2  # the second"], ["h1", "s1"]))
        self.assertEqual((self.ranks_of(1), self.ranks_of(2)), (4, 4))
        self.assertEqual(self.words_of(1)[-3:], ["train", "--set", f"run.dir={self.run_dir}"])
        self.assertEqual(self.words_of(2)[-3:], ["--set", f"run.dir={self.run_dir}", "--resume"])
        self.assertIn("h2 is left out: does not answer: ssh: connect to host h2 port 22: No route to host", result.stderr)
        self.assertIn("spare: s2", result.stderr)
        (restart,) = self.restarts()
        self.assertEqual((restart["hosts"], restart["exit_code"], restart["to_step"]), (["h1", "h2"], 205, 12))
        asked = (self.folder / "ssh.txt").read_text()
        self.assertIn(f"h1: cd {os.getcwd()} && exec env", asked)
        self.assertIn("vqlm doctor", asked)

    def test_an_mpirun_that_waits_for_a_vanished_host_is_ended(self):
        waits = ("config 1 4 8 1; steps 1 12; save 10; echo 'error: watchdog: host h2: no sign of life' >&2; "
                 "echo 'vqlm: error: the watchdog ended the job' >&2; trap '' TERM; echo $$ >$PRETENDED/pid; sleep 600")
        result = self.play(["h1", "h2"], ["s1"], waits, "exit 0", VQLM_MPIRUN_END_SECONDS="1")
        self.assertEqual((result.returncode, self.hosts_of(2)), (0, ["h1", "s1"]), result.stderr)
        self.assertIn("mpirun goes on 1 s after the watchdog ended the job: ending it", result.stderr)
        (restart,) = self.restarts()
        self.assertEqual((restart["exit_code"], restart["reason"]), (69, "watchdog: host h2: no sign of life"))
        self.assertFalse(pathlib.Path("/proc", (self.folder / "pid").read_text().strip()).exists(), "its mpirun goes on")

    def test_a_host_that_fails_vqlm_doctor_is_left_out(self):
        fails = f"config 1 4 8 1; steps 1 12; save 10; touch {self.folder}/sick/h1 {self.folder}/dead/s1; exit 1"
        result = self.play(["h1", "h2"], ["s1", "s2"], fails, "exit 0")
        self.assertEqual((result.returncode, self.hosts_of(2)), (0, ["h2", "s2"]), result.stderr)
        self.assertIn("h1 is left out: vqlm doctor: vqlm: error: doctor: 1 of 4 checks failed: matmul", result.stderr)

    def test_without_spares_the_data_axis_shrinks_and_the_batch_stays(self):
        # hosts, tensor, global_batch, micro_batch -> ranks, hosts of the second attempt
        cases = [(3, 1, 12, 2, 3, 2),  # six micro-batches: data 6 -> 3, not 4
                 (3, 1, 8, 1, 4, 2),   # eight: data 4 of the 6 places, and of 4
                 (4, 2, 12, 3, 4, 2),  # four: data 4 -> 2; a host is over
                 (5, 4, 8, 4, 8, 4)]   # tensor groups over two hosts
        for hosts, tensor, global_batch, micro_batch, ranks, used in cases:
            with self.subTest(hosts=hosts, tensor=tensor):
                for path in [*self.folder.glob("words-*"), *self.folder.glob("hosts-*")]:
                    path.unlink()
                for path in self.run_dir.glob("*.*"):
                    path.unlink()
                keys = f"{tensor} 0 {global_batch} {micro_batch}"
                dies = f"config {keys}; steps 1 12; save 10; touch {self.folder}/dead/h1; exit 205"
                result = self.play([f"h{host}" for host in range(1, hosts + 1)], [], dies, "exit 0",
                                   words=["--set", "parallel.data=4"])
                self.assertEqual((result.returncode, self.ranks_of(2), len(self.hosts_of(2))), (0, ranks, used), result.stderr)
                self.assertNotIn("h1", self.hosts_of(2))
                self.assertEqual(self.words_of(2)[-3:], ["--resume", "--set", "parallel.data=0"])
                self.assertIn(f"parallel.data = {ranks // tensor}", result.stderr)
                self.assertEqual(f"spare: h{hosts}" in result.stderr, used < hosts - 1, result.stderr)

    def test_a_host_that_the_failure_names_is_left_out_though_it_answers(self):
        names = ["[10:00:00] error: watchdog: rank 3 on h2: no sign of life for 45 s",
                 "mpirun noticed that process rank 3 with PID 0 on node h2 exited on signal 9 (Killed).",
                 "  HNP daemon   : [[1,0],0] on node h1\\n  Remote daemon: [[1,0],1] on node h2"]
        for words in names:
            with self.subTest(words):
                for path in [*self.folder.glob("words-*"), *self.folder.glob("hosts-*"), *self.run_dir.glob("*.*")]:
                    path.unlink()
                fails = f"config 1 4 8 1; steps 1 12; save 10; printf '{words}\\n' >&2; exit 1"
                result = self.play(["h1", "h2.cluster"], ["s1"], fails, "exit 0")
                self.assertEqual((result.returncode, self.hosts_of(2)), (0, ["h1", "s1"]), result.stderr)
                self.assertIn("h2.cluster is left out from now on", result.stderr)

    def test_a_step_that_fails_on_different_hosts_is_no_host_s_fault(self):
        fails = "config 1 4 8 1; {}; save 10; echo '[10:00:00] error: watchdog: rank 1 on {}: no sign of life for 45 s' >&2; exit 1"
        cut = ("sed -i '/\"step\":1[12],/d' metrics.jsonl; echo 'continuing after step 10 (1 tokens)' >&2; sleep 0.6; "
               "steps 11 12")
        result = self.play(["h1", "h2"], ["s1", "s2"], fails.format("steps 1 12", "h2"), fails.format(cut, "h1"))
        self.assertEqual((result.returncode, self.attempts()), (1, 2), result.stderr)
        self.assertIn("gives up: step 13 failed twice, on different hosts", result.stderr)
        rows = [line.split() for line in result.stderr.splitlines() if line.startswith(("  1  ", "  2  "))]
        self.assertEqual([row[1:3] + row[5:7] for row in rows], [["0", "12", "h1", "h2"], ["10", "12", "h1", "s1"]])

    def test_hosts_that_are_lost_at_the_same_step_are_no_reason_to_give_up(self):
        dies = "config 1 4 8 1; steps 1 12; save 10; touch {}/dead/h{}; exit 205"
        result = self.play(["h1", "h2", "h3"], ["s1"], dies.format(self.folder, 1), dies.format(self.folder, 2), "exit 0")
        self.assertEqual((result.returncode, self.hosts_of(3)), (0, ["h3", "s1"]), result.stderr)

    def test_it_gives_up_where_no_grid_fits(self):
        dies = f"config 4 1 8 1; steps 1 12; save 10; touch {self.folder}/dead/h2; exit 205"
        result = self.play(["h1", "h2"], [], dies)
        self.assertEqual((result.returncode, self.attempts()), (1, 1), result.stderr)
        self.assertIn("1 hosts are left with room for 2 ranks, and parallel.tensor = 4", result.stderr)


class Words(Case):
    """What the command becomes after a failure."""

    def again(self, *words, begun=True, saved=True, other_ranks=False):
        return Command(["vqlm", "train", *words]).again(begun, saved, other_ranks)[2:]

    def test_nothing_is_lost(self):
        run = ["--set", "run.dir=r"]
        self.assertEqual(self.again(*run), [*run, "--resume"])
        self.assertEqual(self.again(*run, saved=False), [*run, "--resume=auto"])
        self.assertEqual(self.again(*run, "--resume=auto"), [*run, "--resume"])
        self.assertEqual(self.again(*run, "--force"), [*run, "--resume"])
        # The folder still holds the run that --force was to replace.
        self.assertEqual(self.again(*run, "--force", begun=False), [*run, "--force"])
        self.assertEqual(self.again(*run, "--init", "m", "--config", "c.toml"), [*run, *run, "--resume"])
        self.assertEqual(self.again(*run, "--init=m", saved=False), [*run, "--init=m", "--force"])
        self.assertEqual(self.again(*run, "--resume-from", "c"), [*run, "--resume-from", "c", "--resume=auto"])

    def test_a_fixed_data_axis_gives_way(self):
        config = self.folder / "c.toml"
        config.write_text("[[data.mix]]\nname = 'a'\n[parallel]\ndata = 4  # ranks\n[run]\ndir = \"runs/a # b\"\n")
        self.assertEqual(keys_of(config), {"data.mix.name": "a", "parallel.data": "4", "run.dir": "runs/a # b"})
        words = ["--config", str(config)]
        self.assertEqual(self.again(*words, other_ranks=True), [*words, "--resume", "--set", "parallel.data=0"])
        self.assertEqual(self.again(*words), [*words, "--resume"])
        self.assertEqual(self.again("--set=parallel.data=2", other_ranks=True)[-1], "parallel.data=0")
        self.assertEqual(self.again("--set", "parallel.data=0", other_ranks=True), ["--set", "parallel.data=0", "--resume"])
        self.assertEqual(str(Command(["vqlm", "train", *words]).run), "runs/a # b")

    def test_only_a_training_is_continued(self):
        with self.assertRaisesRegex(Refused, "vqlm eval"):
            Command(["vqlm", "eval", "--checkpoint", "r"])
        refused = self.launch("--restarts", "2", "-n", "1", "vqlm", "eval")
        self.assertEqual((refused.returncode, len(refused.stderr.splitlines())), (2, 1), refused.stderr)


if __name__ == "__main__":
    unittest.main()
