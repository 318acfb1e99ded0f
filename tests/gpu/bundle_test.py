"""The bundle for a bare GPU machine: small enough, and enough. Its programs (the host executor's) run in a root that holds
glibc, a shell and three tools, and none of this machine's other libraries. Exit status 77, "skipped", where this user may not
change the root."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ["VQLM_BUILD_DIR"])
LIMIT_MIB = 60
# /proc, where the executor finds the bounds of a stack, is the one thing of this machine that is seen there.
ENTER = 'mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"'
TINY = ["train.steps=2", "optim.warmup_steps=1", "train.global_batch=2", "train.micro_batch=1", "train.eval_every=1",
        "train.eval_tokens=512", "data.seq_len=64", "model.d_model=64", "model.n_layers=1", "model.n_heads=1", "model.d_ff=64",
        "head.clusters=16", "head.map=random", "parallel.tensor=1", "checkpoint.every=0", "run.device=cuda"]


def bundle(out, *programs, limit=LIMIT_MIB):
    # The quickest compression: what fits so, fits.
    return subprocess.run([HERE / "bundle.sh", out, *(BUILD / program for program in programs)], text=True, capture_output=True,
                          check=False, env={**os.environ, "XZ_OPT": "-0", "LIMIT_MIB": str(limit)})


def make_root(root):
    """glibc, a shell and tools with nothing but glibc's libraries, each where it is here."""
    (root / "bin").mkdir(parents=True)
    for name in ("tmp", "dev", "proc"):
        (root / name).mkdir()
    (root / "dev/null").touch()
    tools = ["sh", "dirname", "cat", "mkdir"]
    for tool in tools:
        shutil.copy(os.path.realpath(shutil.which(tool)), root / "bin" / tool)
    words = subprocess.run(["ldd", *(root / "bin" / tool for tool in tools)], capture_output=True, text=True, check=True).stdout
    libraries = {word for word in words.split() if word.startswith("/") and ".so" in word}
    folder = next(path for path in libraries if "/libc.so" in path).rpartition("/")[0]
    for library in sorted(libraries | {f"{folder}/{name}" for name in
                          ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2")}):
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)


class BundleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.folder.name)
        cls.made = bundle(cls.path / "bundle", "vqlm_simt_alone", "cuda_tests_simt")
        if cls.made.returncode:
            raise AssertionError(cls.made.stderr)
        print(cls.made.stdout, end="")
        make_root(cls.path / "root")
        subprocess.run(["tar", "-xJf", cls.path / "bundle.tar.xz", "-C", cls.path / "root"], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def bare(self, *words, status=0):
        """A command in the bare root, with nothing of this process' environment."""
        words = ["unshare", self.namespaces, "sh", "-c", ENTER, self.path / "root", *words]
        result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300,
                                env={"PATH": "/bin:/usr/bin:/usr/sbin", "OMP_NUM_THREADS": "1", "HOME": "/tmp", **self.shard})
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result.stdout + result.stderr

    shard = {}
    namespaces = "-m"

    def vqlm(self, *words):
        return self.bare("/bundle/run.sh", "/bundle/bin/vqlm_simt", *words)

    def test_fits_on_the_way_to_the_card(self):
        self.assertLessEqual((self.path / "bundle.tar.xz").stat().st_size, LIMIT_MIB << 20)

    def test_the_root_holds_no_library_of_ours(self):
        self.assertIn("error while loading shared libraries", self.bare("/bundle/bin/vqlm_simt", "--version", status=127))

    def test_doctor(self):
        words = self.vqlm("doctor", "--device", "cuda")
        self.assertIn("mpi     not built in: one rank", words)
        self.assertIn("all 4 checks passed", words)

    def test_op_tests(self):
        self.shard = {"GTEST_TOTAL_SHARDS": "80", "GTEST_SHARD_INDEX": "3"}
        self.assertRegex(self.bare("/bundle/run.sh", "/bundle/bin/cuda_tests_simt", "--gtest_brief=1"), r"\[  PASSED  \] [1-9]")

    def test_shards_and_a_training(self):
        self.bare("/bin/sh", "-c", "cat /bundle/docs/*.md > /tmp/text.txt")
        self.vqlm("prepare", "--input", "/tmp/text.txt", "--train-tokenizer", "512", "--heldout", "0.1", "--out", "/tmp/shards")
        self.vqlm("train", "--config", "/bundle/configs/gpt2-small-vq.toml", "--set", "data.train=/tmp/shards/train-*.h5", "--set",
                  "data.heldout=/tmp/shards/heldout-*.h5", "--set", "run.dir=/tmp/run", *(word for key in TINY for word in ("--set", key)))
        metrics = (self.path / "root/tmp/run/metrics.jsonl").read_text(encoding="utf-8")
        self.assertEqual(metrics.count('"loss"'), 2)
        self.assertIn("heldout_loss", metrics)

    def test_the_runs_find_the_bundle_that_they_lie_in(self):
        out = self.path / "results"
        run = subprocess.run([self.path / "root/bundle/tests/gpu/first_run.sh", "--simt", "--quick", "--only", "doctor,op_tests",
                              "--python", sys.executable], capture_output=True, text=True, check=False,
                             env={**os.environ, "OUT": str(out), "WORK": str(self.path / "work")})
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        libraries = (self.path / "work/first_run/libraries.txt").read_text(encoding="utf-8")
        self.assertIn(f"{self.path}/root/bundle/lib/libdnnl", libraries)

    def test_a_program_with_mpi_is_refused(self):
        result = bundle(self.path / "refused", "vqlm_simt")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"vqlm_simt links libmpi.*; take vqlm_alone")

    def test_a_bundle_that_is_too_large_is_refused(self):
        result = bundle(self.path / "large", "cuda_tests_simt", limit=1)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"too large for the way to the card[\s\S]*lib/libdnnl")
        self.assertFalse((self.path / "large.tar.xz").exists())


if __name__ == "__main__":
    allowed = [options for options in ("-m", "-rm") if not subprocess.run(
        ["unshare", options, "mount", "--rbind", "/proc", "/proc"], capture_output=True, check=False).returncode]
    if not allowed:
        print("skipped: this user may not change the root (unshare -rm)")
        sys.exit(77)
    BundleTest.namespaces = allowed[0]
    unittest.main()
