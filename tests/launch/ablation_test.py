"""launch/ablation.sh: a tiny study of a few heads: run, stopped, killed, continued, refused; and what its tables say."""

import json
import math
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

from end_to_end_test import write_text
from program import PROGRAM, SOURCE_DIR, run

sys.path.insert(0, str(pathlib.Path(SOURCE_DIR, "launch", "ablation")))
import ablation_bodies  # noqa: E402
import ablation_lines  # noqa: E402
import ablation_rows  # noqa: E402
import ablation_study  # noqa: E402
import ablation_tables  # noqa: E402

BASE = """
[model]
d_model = 32
n_layers = 1
n_heads = 2
d_ff = 64
[head]
members = "codes"
input_codes = false
groups = 4
map = "corpus"
[data]
seq_len = 32
[train]
steps = 200
global_batch = 8
micro_batch = 8
[optim]
warmup_steps = 2
[checkpoint]
every = 10
keep = 1
[run]
threads = 1
"""
GRID = """
dense       baseline head.kind=dense  # the one to compare with
vq          size=10%
all         size=10% data.counted_text=all
from-dense  size=10% head.map=from:dense
refit       size=10% head.map=refit:vq
refused     size=10% head.learning=rote
broken      size=10% head.map={broken}
wider       size=10% body=wider
deeper      size=10% body=deeper
"""


class Study(unittest.TestCase):
    """In order: later ones compare with, and go on from, the study that the first one makes."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        write_text(cls.folder / "c4-train.00000-of-00001.json.gz", 150, seed=1)
        prepared = run("prepare", "--input", cls.folder / "c4-train.*.json.gz", "--train-tokenizer", "320", "--heldout", "0.1",
                       "--out", cls.folder / "shards")
        assert prepared.returncode == 0, prepared.stderr
        (cls.folder / "broken.h5").write_bytes(b"no map")
        (cls.folder / "base.toml").write_text(BASE)
        (cls.folder / "grid.txt").write_text(GRID.format(broken=cls.folder / "broken.h5"))

    def command(self, out, *more, heads="all"):
        return [str(pathlib.Path(SOURCE_DIR, "launch", "ablation.sh")), "--shards", str(self.folder / "shards"), "--out", str(self.folder / out),
                "--base", str(self.folder / "base.toml"), "--grid", str(self.folder / "grid.txt"), "--program", PROGRAM, "--device", "cpu",
                "--heads", heads, *more]

    def study(self, out, *more, heads="all"):
        return subprocess.run(self.command(out, *more, heads=heads), capture_output=True, text=True, timeout=300, check=False)

    def evaluation(self, out, row, kind="in"):
        return json.loads((self.folder / out / "rows" / row / f"eval-{kind}.json").read_text())

    def cells(self, out, title):
        """{first cell: the others} of the table in the first section of results.md whose title begins so."""
        sections = (self.folder / out / "results.md").read_text().split("\n## ")
        lines = next(section for section in sections if section.startswith(title)).splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        return {row[0]: row[1:] for row in rows}

    def interrupt(self, out, beyond, number):
        """Starts a study, and signals it when its first row has a checkpoint beyond that step; SIGKILL goes to all its
        processes. Returns the checkpoint's step and the exit code."""
        process = subprocess.Popen(self.command(out, heads="dense,vq"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        checkpoints = self.folder / out / "rows" / "dense-s0" / "run" / "checkpoints"
        deadline = time.monotonic() + 200
        step = 0
        while step <= beyond and time.monotonic() < deadline:
            time.sleep(0.005)
            step = max([int(path.parent.name.removeprefix("step-")) for path in checkpoints.glob("step-*[0-9]/manifest.json")], default=0)
        (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        return step, process.wait(200)

    def test_1_one_command_gives_the_tables(self):
        ood = str(self.folder / "shards" / "heldout-*.h5")
        result = self.study("whole", "--ood", ood, "--jobs", "2")
        self.assertEqual(result.returncode, 1, result.stderr)  # one row fails
        failed = [line for line in result.stderr.splitlines() if "-s0: " in line]
        self.assertEqual(len(failed), 2, result.stderr)
        self.assertRegex(failed[0], "refused-s0: refused: .*head.learning.*rote")
        self.assertRegex(failed[1], "broken-s0: failed: .*broken.h5")
        dense, vq = (self.evaluation("whole", f"{name}-s0") for name in ("dense", "vq"))

        cost = self.cells("whole", "Cost")
        self.assertEqual(cost["dense"][:5], ["10,240", "100.00", "320", "0", "10,240"])
        self.assertIn("while up to 2 trainings", (self.folder / "whole" / "results.md").read_text())
        self.assertEqual(cost["vq"][:4], ["1,024", "10.00", "336", "2,560"])  # K = Q = 16 of V = 320, d = 32
        self.assertEqual(cost["dense"][5], "31,136")  # 2 V d + V + 4 d^2 + 3 d d_ff + 3 d, with d_ff = 64
        for row in ("dense", "vq", "wider", "deeper"):
            base = ablation_rows.read_base(self.folder / "whole" / "rows" / f"{row}-s0" / "run" / "config.toml", [])
            model = self.evaluation("whole", f"{row}-s0")["model"]["parameters"]
            self.assertEqual(model, ablation_bodies.Counter(PROGRAM, 320, {})(base))
            self.assertEqual(cost[row][5], f"{model:,}")
        quality = self.cells("whole", "Perplexity")
        self.assertEqual(quality["vq"][:3], ["1", f"{vq['perplexity']:.2f}", f"{100 * (vq['perplexity'] / dense['perplexity'] - 1):+.1f} %"])
        self.assertEqual(quality["from-dense"][4], f"{self.evaluation('whole', 'from-dense-s0', 'ood')['perplexity']:.2f}")
        self.assertIn("refit", quality)
        shown = run("codes", "show", self.folder / "whole" / "rows" / "refit-s0" / "run" / "code_map.h5")
        self.assertRegex(shown.stdout, "re-fit: hidden states of [0-9]+ tokens of .*rows/vq-s0/run/.*step 200")
        maps = self.cells("whole", "Text of the code maps")
        self.assertNotIn("dense", maps)
        self.assertEqual(maps["vq"], [f"{vq['code_map']['counted_tokens']:,}", f"{vq['code_map']['counted_tokens'] / (200 * 8 * 32):.2f}"])
        self.assertEqual(maps["all"][0], f"{self.evaluation('whole', 'all-s0')['code_map']['counted_tokens']:,}")
        bands = self.cells("whole", "Perplexity by rank")
        self.assertEqual(bands["head"], ["1-16", "17-128", "129-320"])
        self.assertTrue(bands["vq"][1].startswith(f"{vq['bands'][1]['perplexity']:.2f} ("))
        self.assertEqual(bands["vq"][2], "-")  # byte pieces, which the text does not have
        self.assertAlmostEqual(sum(band["share"] for band in vq["bands"]), 1)
        parts = self.cells("whole", "Where the loss lies")
        self.assertNotIn("dense", parts)
        self.assertEqual(parts["vq"][:3], [f"{vq['parts'][key]:.4f}" for key in ("cluster_nll", "member_nll")] + [f"{vq['nll']:.4f}"])
        course = self.cells("whole", "While training")
        self.assertEqual(course["head"], ["0.01 M tokens", "0.03 M tokens", "0.04 M tokens", "0.05 M tokens"])
        self.assertEqual(course["dense"][3], f"{dense['perplexity']:.2f}")

        if shutil.which("gnuplot"):
            for plot, title in (("perplexity-parameters.svg", "from-dense"), ("gap-tokens.svg", "tokens trained on")):
                self.assertIn(title, (self.folder / "whole" / plot).read_text())
                self.assertIn(f"]({plot})", (self.folder / "whole" / "results.md").read_text())

        # Finished rows are left alone.
        before = (self.folder / "whole" / "rows" / "vq-s0" / "run" / "metrics.jsonl").stat().st_mtime_ns
        again = self.study("whole", heads="dense,vq,from-dense")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(again.stdout.count("is done already"), 3)
        self.assertEqual((self.folder / "whole" / "rows" / "vq-s0" / "run" / "metrics.jsonl").stat().st_mtime_ns, before)

    def test_2_a_study_that_was_stopped_and_killed_goes_on_to_the_same_numbers(self):
        stopped, code = self.interrupt("cut", 0, signal.SIGTERM)
        self.assertEqual(code, 1)
        self.assertEqual((self.folder / "cut" / "rows" / "dense-s0" / "status").read_text(), "stopped\n")
        killed, code = self.interrupt("cut", stopped + 30, signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)
        self.assertLess(killed, 200)
        self.assertFalse((self.folder / "cut" / "rows" / "dense-s0" / "eval-in.json").exists())
        result = self.study("cut", heads="dense,vq")
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = (self.folder / "cut" / "rows" / "dense-s0" / "run" / "metrics.jsonl").read_text().splitlines()
        steps = [line["step"] for line in map(json.loads, lines) if "loss" in line]
        self.assertEqual(steps, list(range(1, 201)))
        log = (self.folder / "cut" / "rows" / "dense-s0" / "log.txt").read_text()
        self.assertNotIn("step 10/200", log)  # the last attempt did not begin at the beginning
        for row in ("dense-s0", "vq-s0"):
            self.assertEqual(self.evaluation("cut", row)["nll"], self.evaluation("whole", row)["nll"])

    def test_3_what_may_not_change(self):
        def refused(*words, **options):
            result = self.study("whole", *options.pop("more", ()), **options)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            for word in words:
                self.assertIn(word, result.stderr)

        base, grid = self.folder / "base.toml", self.folder / "grid.txt"
        refused("set optim.lr=1e-4", "another --out", more=["--set", "optim.lr=1e-4"])
        refused("--ood", "were evaluated on", more=["--ood", str(self.folder / "shards" / "train-*.h5")])
        base.write_text(BASE + "\n")
        self.addCleanup(base.write_text, BASE)
        refused("base.toml", "put it back")
        base.write_text(BASE)
        text = grid.read_text()
        self.addCleanup(grid.write_text, text)
        grid.write_text(text.replace("vq          size=10%", "vq          size=20%"))
        result = self.study("whole", heads="dense,vq")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "vq-s0: failed: was trained with other overrides .*clusters=16.*remove")
        self.assertNotIn("| vq |", (self.folder / "whole" / "results.md").read_text())
        grid.write_text(text)
        listed = self.study("whole", "--dry-run", "--seeds", "0,1")
        self.assertRegex(listed.stdout, "(?m)^dense-s0 +done +head.kind=dense$")
        self.assertRegex(listed.stdout, "(?m)^vq-s0 +failed +head.clusters=16 head.codes=16 *$")
        self.assertRegex(listed.stdout, "(?m)^vq-s1 +to do ")
        self.assertFalse((self.folder / "whole" / "rows" / "vq-s1").exists())


class Rows(unittest.TestCase):
    def heads(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(text)
            file.flush()
            return ablation_rows.read_grid(file.name)

    def test_mistakes_in_a_grid_are_named(self):
        for text, word in [("a head.kind=dense", "0 lines say baseline"), ("a baseline\nb baseline", "2 lines"), ("a baseline\na", ":2: a: stands on"),
                           ("a baseline size=1.5", "size=1.5%"), ("a baseline size=0%", "size=0%"), ("a baseline clusters=5", "clusters=5"),
                           ("a/b baseline", "a/b"), ("a baseline\nb body=fatter", "body=wider or body=deeper"),
                           ("a baseline body=wider", "the base configuration's body"), ("a baseline\nb head.map=from:c", "from:c"), ("a baseline\nb head.map=refit:b", "refit:b")]:
            with self.subTest(grid=text), self.assertRaisesRegex(ablation_rows.GridError, word):
                self.heads(text)
        heads = self.heads("a baseline\nb head.map=from:a size=10%")
        with self.assertRaisesRegex(ablation_rows.GridError, "--heads c"):
            ablation_rows.choose(heads, "a,c")

    def test_sizes_are_parts_of_the_vocabulary(self):
        heads = self.heads("a baseline\nb size=1.5%\nc size=1.5% head.codes=64\nd size=1% head.groups=0\ne size=30% head.codes=250")
        size = lambda name, vocab: ablation_rows.sizes(heads[name], {"head.members": "codes"}, vocab)  # noqa: E731
        self.assertEqual(size("b", 16384), {"head.clusters": "120", "head.codes": "120"})
        self.assertEqual(size("b", 50257), {"head.clusters": "496", "head.codes": "256"})
        self.assertEqual(size("b", 320), {"head.clusters": "2", "head.codes": "2"})
        self.assertEqual(size("c", 16384), {"head.clusters": "184", "head.codes": "64"})
        self.assertEqual(size("d", 16384), {"head.clusters": "160"})
        low_rank = self.heads("a baseline\nb size=25% head.kind=low_rank")["b"]
        self.assertEqual(ablation_rows.sizes(low_rank, {"model.d_model": "256"}, 16384), {"head.rank": "64"})  # 63.02
        with self.assertRaisesRegex(ablation_rows.GridError, "no clusters are left"):
            size("e", 320)
        adaptive = self.heads("a baseline\nb size=25% head.kind=adaptive")["b"]
        with self.assertRaisesRegex(ablation_rows.GridError, "head.cutoffs and head.tail_ratio"):
            ablation_rows.sizes(adaptive, {}, 16384)

    def test_bodies_grow_until_the_parameters_are_the_baseline_s(self):
        base = {"model.d_model": "128", "model.n_layers": "2", "model.n_heads": "4", "model.n_kv_heads": "2", "model.d_ff": "384",
                "head.members": "codes", "head.clusters": "64", "head.codes": "64", "head.groups": "32"}
        dense = base | {"head.kind": "dense"}
        count = ablation_bodies.Counter(PROGRAM, 8192, base)
        # By hand: 8192 x 128 twice, 8192 biases, two layers of 128 x (256 + 128 + 1152 + 2), and the last norm.
        self.assertEqual(count(dense), 2 * 8192 * 128 + 8192 + 2 * 128 * 1538 + 128)
        self.assertEqual(count(dense | {"model.tie_embeddings": "true"}), count(dense) - 8192 * 128)
        for how in ("wider", "deeper"):
            body = ablation_bodies.grown(how, base, dense, count)
            self.assertLess(abs(count(base | body) / count(dense) - 1), 0.05, body)
        self.assertEqual(ablation_bodies.grown("wider", base, dense, count),
                         {"model.d_model": "192", "model.n_heads": "6", "model.n_kv_heads": "3", "model.d_ff": "576"})
        with self.assertRaisesRegex(ablation_bodies.BodyError, "parallel.tensor"):
            ablation_bodies.grown("wider", base | {"head.groups": "1009"}, dense, count)
        with self.assertRaisesRegex(ablation_bodies.BodyError, "needs model.d_ff"):
            ablation_bodies.grown("wider", {"model.d_model": "128", "model.n_layers": "2", "model.n_heads": "2"}, dense, count)
        with self.assertRaisesRegex(ablation_bodies.BodyError, "head.clusters = 9000"):  # the program's own words
            ablation_bodies.grown("deeper", base | {"head.clusters": "9000"}, dense, count)
        with self.assertRaisesRegex(ablation_bodies.BodyError, "n_kv_heads=3"):
            ablation_bodies.grown("wider", base | {"model.n_kv_heads": "3"}, dense, count)
        equal = ablation_bodies.grown("wider", base | {"model.n_kv_heads": "4"}, dense | {"model.n_kv_heads": "4"}, count)
        self.assertEqual(equal["model.n_kv_heads"], equal["model.n_heads"])
        self.assertEqual(count(dense | {"model.d_ff": "0"}), count(dense))  # 8/3 of 128, up to 384

    def test_the_grid_of_the_repository(self):
        heads = ablation_rows.read_grid(pathlib.Path(SOURCE_DIR, "configs", "ablation-heads.txt"))
        base = ablation_rows.read_base(pathlib.Path(SOURCE_DIR, "configs", "ablation.toml"), [])
        dense = base | heads["dense"].overrides
        count = ablation_bodies.Counter(PROGRAM, 16384, base)
        rows = {head.name: ablation_rows.row(head, base, dense, count, 3) for head in ablation_rows.choose(heads, "all")}
        for name in ("vq", "map-random", "published", "embedding", "own-32"):  # whose runs make their maps
            self.assertEqual(rows[name][1:4], ["-", "-", "-"])
        self.assertIn("data.counted_text=all", rows["vq-map-all"][4].split())
        self.assertEqual(rows["low-rank"][1:], ["-", "-", "-", "head.kind=low_rank head.rank=64"])
        self.assertEqual(rows["adaptive"][1:], ["-", "-", "-", "head.kind=adaptive"])
        self.assertEqual(rows["map-from-dense"][1], "dense-s3")
        self.assertEqual(rows["map-from-dense"][2:4], ["from-dense-k120-g32-q120-s3.h5",
                                                       "make --map from-dense --clusters 120 --groups 32 --seed 3 --codes 120"])
        self.assertEqual(rows["map-learned"][1:4], ["vq-s3", "refit-vq-k120-g32-q120-s3.h5", "refit --seed 3 --own-tokens 0"])
        self.assertIn("head.own_tokens=32", rows["own-32"][4].split())
        for name in ("embedding-wider", "embedding-deeper", "vq-wider", "vq-deeper"):
            settings = base | dict(word.split("=") for word in rows[name][4].split())
            self.assertLess(abs(count(settings) / count(dense) - 1), 0.02, name)


class Tables(unittest.TestCase):
    """A study of two seeds, written by hand."""

    def write_row(self, name, seed, perplexity, curve):
        folder = pathlib.Path(self.folder.name, "rows", f"{name}-s{seed}")
        (folder / "run").mkdir(parents=True)
        (folder / "status").write_text("done\n")
        (folder / "run" / "config.toml").write_text("[model]\ntie_embeddings = false\n")
        lines = [{"step": i, "tokens": tokens, "tokens_per_second": 10 * i, "seconds": 0.1 * i, "seconds_head": 0.5} for i, tokens in enumerate(curve, 1)]
        lines += [{"step": i, "tokens": tokens, "heldout_loss": loss} for i, (tokens, loss) in enumerate(curve.items(), 1)]
        (folder / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        head = {"kind": "dense", "parameters": 1000, "fraction_of_dense": 1.0, "biases": 10, "code_bytes": 0, "multiply_adds": 1000.0}
        (folder / "eval-in.json").write_text(json.dumps({"nll": math.log(perplexity), "tokens": 50, "perplexity": perplexity, "bits_per_byte": 2.0, "head": head,
                                                          "model": {"parameters": 5000, "training_flops_per_token": 3e4}}))

    def test_seeds_are_compared_in_pairs(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        curve = {1000 * i: 2.0 for i in range(1, 9)}
        for seed, base, other in [(0, 100, 110), (1, 200, 240)]:  # +10 % and +20 %
            self.write_row("base", seed, base, curve)
            self.write_row("other", seed, other, curve | {8000: 2.0 + 0.1 * seed})
        self.write_row("other", 2, 500, curve)  # without a twin
        grid = pathlib.Path(self.folder.name, "grid.txt")
        grid.write_text("base baseline\nother head.kind=vq\n")
        study = ablation_study.Study(self.folder.name, ablation_rows.read_grid(grid))
        table = ablation_tables.quality_table(study).splitlines()
        spread = statistics.stdev([110, 240, 500])
        self.assertEqual(table[3].split(" | ")[1:4], ["3", f"{850 / 3:.2f} ± {spread:.2f}", "+15.0 ± 7.1 %"])
        self.assertEqual(study.quarters(), [2000, 4000, 6000, 8000])
        self.assertEqual(ablation_tables.course_table(study).splitlines()[3].split(" | ")[1], "7.39 (+0.0 ± 0.0 %)")
        self.assertIn("(+5.3 ± 7.4 %)", ablation_tables.course_table(study).splitlines()[3].split(" | ")[4])
        self.assertEqual(ablation_tables.cost_table(study).splitlines()[2].split(" | ")[-2:], ["500.0", "45 |"])
        heads = ablation_rows.read_grid(grid)
        ablation_tables.write_lines(study, heads, pathlib.Path(self.folder.name, "runs.jsonl"))
        rows = ablation_lines.read_lines(pathlib.Path(self.folder.name, "runs.jsonl"))
        self.assertEqual({name: sorted(seeds) for name, seeds in rows.items()}, {"base": [0, 1], "other": [0, 1, 2]})
        self.assertEqual(rows["other"][1], {"steps": 8, "parameters": 5000, "nll": math.log(240), "perplexity": 240, "seconds_a_step_p10": 0.1})


if __name__ == "__main__":
    unittest.main()
