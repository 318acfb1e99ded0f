"""What runs.sh promises of every run: no stage beyond its budget, a failure ends nothing, and after every stage a table and
one whole archive, so that a run which is killed keeps all that was finished."""

import os
import pathlib
import signal
import subprocess
import tarfile
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PROBE = """#!/usr/bin/env bash
set -uo pipefail
here=%s run=probe whole_limit=%d usage='probe'
. "$here/runs.sh"
begin_run "$@"
good() { echo hello; echo '{"a": 1}' >"$work/good.json"; echo fine >"$work/figures"; }
slow() { limited sleep 60 || true; limited sleep 60; }
drowsy() { sleep 2; }
bad() { echo 'this went wrong'; false; echo 'and this is not reached'; }
cannot() { echo 'no card here'; return $skip; }
missing() { ours no_such_program; }
long() { head -c 3000000 /dev/zero | tr '\\0' x; }
stage good 3 good 'works'
stage slow 4 slow 'never ends'
[ -z "$only" ] || stage drowsy 3 drowsy 'takes two seconds'
stage bad 3 bad 'fails'
stage cannot 3 cannot 'skips'
stage missing 3 missing 'is not there'
stage long 5 long 'says much'
end_run
"""


class RunsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)

    def start(self, *options, limit=100):
        script = self.path / "probe.sh"
        script.write_text(PROBE % (HERE, limit), encoding="utf-8")
        environment = {**os.environ, "OUT": str(self.path / "out"), "WORK": str(self.path / "work")}
        return subprocess.Popen(["bash", script, "--simt", *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, start_new_session=True)

    def archive(self):
        """Name and text of each file of the one archive in OUT."""
        self.assertEqual([entry.name for entry in (self.path / "out").iterdir()], ["probe.tar.gz"])
        with tarfile.open(self.path / "out" / "probe.tar.gz") as archive:
            return {member.name.removeprefix("./"): archive.extractfile(member).read().decode() for member in archive.getmembers()}

    def test_every_stage_ends_in_the_table_and_the_archive(self):
        begin = time.monotonic()
        run = self.start()
        words, _ = run.communicate(timeout=60)
        self.assertEqual(run.returncode, 1)
        self.assertLess(time.monotonic() - begin, 4 + 12)  # slow within its budget
        self.assertEqual(words.count("stage          status"), 6)
        files = self.archive()
        table = {line.split("\t")[0]: line.split("\t")[1:] for line in files["table.tsv"].splitlines()}
        self.assertEqual({name: row[0] for name, row in table.items()}, {"good": "passed", "slow": "timed out", "bad": "failed (1)",
                         "cannot": "skipped", "missing": "missing", "long": "passed"})
        self.assertLessEqual(int(table["slow"][1]), 4)
        self.assertEqual(table["good"][2], "fine")
        self.assertEqual(table["bad"][2], "this went wrong")
        self.assertEqual(table["cannot"][2], "no card here")
        self.assertIn("no_such_program", table["missing"][2])
        self.assertIn("failed: slow, bad, missing", files["table.txt"])
        self.assertEqual(files["good.log"], "hello\n")
        self.assertIn("... (cut)", files["long.log"])
        self.assertLess(len(files["long.log"]), 1100000)

    def test_a_killed_run_leaves_what_was_finished(self):
        run = self.start()
        for line in run.stdout:
            if line.startswith("good "):
                break
        os.killpg(run.pid, signal.SIGKILL)  # while slow sleeps
        run.communicate()
        files = self.archive()
        self.assertIn("1 stages in", files["table.txt"])
        self.assertEqual(files["good.json"], '{"a": 1}\n')

    def test_the_whole_has_a_limit_too(self):
        run = self.start("--only", "drowsy,bad", limit=1)
        run.communicate(timeout=60)
        self.assertIn("bad\tnot run", self.archive()["table.tsv"])

    def test_budgets_are_listed_and_their_sum_is_held_against_the_limit(self):
        run = self.start("--dry-run")
        words, _ = run.communicate(timeout=60)
        self.assertEqual(run.returncode, 0)
        self.assertIn("in all           28 s  of at most 100", words)  # 21 s of stages, a second after each and one more
        self.assertFalse((self.path / "out").exists())
        run = self.start("--dry-run", limit=27)
        run.communicate(timeout=60)
        self.assertEqual(run.returncode, 1)


if __name__ == "__main__":
    unittest.main()
