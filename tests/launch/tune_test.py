"""vqlm tune on the host executor, whose stand-in for cuBLASLt has five algorithms (tests/simt/cublaslt_rules.h) and whose
events are dated by a clock of products: the file, the trainings that read it, and every way in which a file is of no use."""

import json
import os
import unittest

from device_runs import HEADS, DeviceRuns
from program import error_lines, run

SLOW, LOST, UNSTEADY, SPLIT, DEEP = 10, 43, 32, 21, 54  # in the heuristic's order
ALONE = ["run.device=cuda", "parallel.tensor=1"]
SHORT = ["train.steps=2", "train.global_batch=4"]


def expected_algorithm(product):
    """The fastest that is steady and can be made again."""
    return DEEP if product["k"] > product["n"] else SPLIT


class Tune(DeviceRuns):
    def tune(self, name, *settings, ranks=0, algorithms=8, **environment):
        """The file of this name."""
        path = self.folder / f"{name}.json"
        result = run("tune", *self.options(name, *settings), "--out", path, "--algorithms", algorithms, "--repeats", "3", ranks=ranks,
                     environment={"SIMT_CLOCK": "products", **environment}, timeout=200)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.words = result.stdout
        return path

    def read(self, path):
        return json.loads(path.read_text(encoding="utf-8"))

    def write(self, name, contents):
        path = self.folder / f"{name}.json"
        path.write_text(contents if isinstance(contents, str) else json.dumps(contents), encoding="utf-8")
        return path

    def ran(self, name, *settings, ranks=0, flags=(), **environment):
        """What train() returns, and the products that each algorithm made; of one rank."""
        log = self.folder / f"{name}.log"
        history = self.train(name, *settings, ranks=ranks, flags=flags, SIMT_PRODUCTS_LOG=str(log), **environment)
        return history, {int(line.split()[0]): int(line.split()[1]) for line in log.read_text().splitlines()}

    def setUp(self):
        self.dense = [*HEADS["dense"], *ALONE, *SHORT]

    def tuned(self):
        """A file for self.dense, made once."""
        path = self.folder / "dense.json"
        return path if path.exists() else self.tune("dense", *self.dense)

    def test_the_file_says_what_is_fastest(self):
        path = self.tune("whole", *self.dense)
        file = self.read(path)
        self.assertEqual([file["format"], file["version"], file["device"], file["compute_capability"]], ["vqlm products", 1, "host executor", 80])
        self.assertRegex(file["library"], r"^cuBLASLt \d+\.\d+\.\d+$")
        for product in file["products"]:
            with self.subTest(product=product):
                self.assertEqual(product["algorithm"]["id"], expected_algorithm(product))
                # CUDA's times are floats.
                self.assertAlmostEqual(product["microseconds"], 1.0 if product["k"] > product["n"] else 2.0, places=5)
                self.assertAlmostEqual(product["microseconds_first"], 4.0, places=5)
        # qkv, output, gate and up, down, head: forward, gradient of the input, and of the weights twice: written, then added to.
        self.assertGreaterEqual(len(file["products"]), 5 * 4)
        added = [product for product in file["products"] if product["accumulate"]]
        self.assertTrue(all(product["transpose_a"] and product["result"] == "f32" and product["operands"] == "bf16" for product in added))
        self.assertEqual(len({json.dumps({**product, "accumulate": False}) for product in added}), len(added))
        self.assertGreaterEqual(len(added), 5)
        self.assertIn(f"{len(file['products'])} of {len(file['products'])} shapes get another algorithm", self.words)
        self.assertIn("1 refused, 1 of changing bits left out", self.words)
        self.assertIn(f"{path}: read by trainings", self.words)

    def test_of_fewer_algorithms_the_first_may_stay(self):
        file = self.read(self.tune("few", *self.dense, algorithms=3))
        self.assertEqual({product["algorithm"]["id"] for product in file["products"]}, {SLOW})
        self.assertIn(f"0 of {len(file['products'])} shapes get another algorithm", self.words)

    def test_trainings_read_it_and_have_the_same_bits(self):
        path = self.tuned()
        chosen = [*self.dense, f"run.products_file={path}"]
        plain, plain_by = self.ran("plain", *self.dense)
        self.assertEqual(set(plain_by), {SLOW})
        first, by = self.ran("first", *chosen, SIMT_SEED="1")
        self.assertEqual(set(by), {SLOW, SPLIT, DEEP})  # the first one: the peak's, before the run
        known = len(self.read(path)["products"])
        self.assertIn(f"products: {known} of {known} shapes have their algorithm from {path}", self.last_words)
        self.assertRegex(self.last_words, r"SHA-256 [0-9a-f]{12}\.\.\.\), timed on host executor \(8\.0, 8 multiprocessors\) with cuBLASLt")
        self.assertNotIn("does not know", self.last_words)
        self.assertNotEqual(first, plain)  # sums of a split K are rounded otherwise
        self.assert_alike(first, plain)
        again, again_by = self.ran("again", *chosen, SIMT_SEED="7")
        self.assertEqual(again, first)
        self.assertEqual([again_by[SPLIT], again_by[DEEP]], [by[SPLIT], by[DEEP]])
        self.assertEqual(self.train("direct", *chosen, "run.cuda_graphs=false", SIMT_SEED="3"), first)

    def test_a_resumed_run_goes_on_by_the_same_algorithms(self):
        chosen = [*self.dense, f"run.products_file={self.tuned()}", "optim.schedule=constant", "optim.warmup_steps=1", "data.counted_text=all"]
        whole = self.train("whole-run", *chosen)
        self.train("halves", *chosen, "train.steps=1")
        resumed, by = self.ran("halves", *chosen, flags=["--resume"])
        self.assertEqual(resumed[:2], whole[:2])
        self.assertIn(SPLIT, by)
        self.assertIn(f'products_file = "{self.tuned()}"', (self.folder / "halves" / "config.toml").read_text())

    def test_a_product_that_it_does_not_know_takes_the_first_and_is_named_once(self):
        file = self.read(self.tuned())
        gone = next(product for product in file["products"] if product["accumulate"])
        file["products"].remove(gone)
        _, by = self.ran("fewer", *self.dense, f"run.products_file={self.write('fewer', file)}")
        known = len(file["products"])
        sizes = f"{gone['m']} x {gone['n']} x {gone['k']} (bf16 to f32, added"
        self.assertEqual(self.last_words.count("does not know"), 1)
        self.assertIn(f"products: {known} of {known + 1} shapes have their algorithm", self.last_words)
        self.assertIn(f"1 that it does not know takes the library's first, for example {sizes}", self.last_words)
        self.assertIn(SLOW, by)

    def test_a_file_of_another_card_or_library_is_passed_over(self):
        path = self.tuned()
        plain, _ = self.ran("unchosen", *self.dense)
        other = {**self.read(path), "library": "cuBLASLt 12.0.0"}
        for name, settings, environment in (("card", f"run.products_file={path}", {"SIMT_DEVICE_NAME": "another card"}),
                                            ("library", f"run.products_file={self.write('library', other)}", {})):
            with self.subTest(of=name):
                history, by = self.ran(name, *self.dense, settings, **environment)
                self.assertEqual(history, plain)
                self.assertEqual(set(by), {SLOW})
                self.assertEqual(self.last_words.count("it is passed over, products take the library's first algorithms"), 1)

    def test_what_is_no_file_is_refused(self):
        path = self.tuned()
        text, file = path.read_text(), self.read(path)
        product = file["products"][0]
        bad = {"cut": (text[:len(text) // 2], "no JSON at byte"),
               "empty": ("", "no JSON at byte 1 of 0"),
               "foreign": ({"model": "vqlm"}, '"format" is not "vqlm products"'),
               "later": ({**file, "version": 2}, '"version" = 2, and this program reads 1'),
               "number": ({**file, "products": [{**product, "m": -4}]}, 'product 1: "m" = -4 is no whole number'),
               "twice": ({**file, "products": [product, product]}, "product 2: a second algorithm for"),
               "unnamed": ({**file, "products": [{**product, "algorithm": {"id": 10}}]}, 'product 1: "tile" is missing')}
        for name, (contents, words) in bad.items():
            with self.subTest(file=name):
                result = self.start(f"bad-{name}", *self.dense, f"run.products_file={self.write(name, contents)}")
                self.assert_fails(result, f"{name}.json: is no products file", words, "make it by vqlm tune --out")
        self.assert_fails(self.start("gone", *self.dense, "run.products_file=/nowhere/p.json"), "/nowhere/p.json")
        unknown = {**file, "products": [{**one, "algorithm": {**one["algorithm"], "id": 99}} for one in file["products"]]}
        self.assert_fails(self.start("unknown", *self.dense, f"run.products_file={self.write('unknown', unknown)}"),
                          "unknown.json: cuBLASLt refuses the algorithm for a product of", "id 99", "make the file anew by vqlm tune")

    def test_a_file_that_cannot_be_written_is_refused_before_the_timing(self):
        result = run("tune", *self.options("lost", *self.dense), "--out", "/nowhere/p.json", timeout=60)
        self.assert_fails(result, "/nowhere/p.json: cannot write into /nowhere: No such file or directory", "--out")
        self.assertNotIn("shapes get another algorithm", result.stdout)

    def test_the_cpu_has_no_choice(self):
        for result in (self.start("cpu", *HEADS["dense"], *SHORT, "run.device=cpu", f"run.products_file={self.tuned()}"),
                       run("tune", *self.options("cpu", *HEADS["dense"], *SHORT, "run.device=cpu"))):
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertRegex(error_lines(result)[0], r"cpu \(.*makes every matrix product in one way")

    def test_ranks_read_one_file_and_every_kind_of_head_knows_its_products(self):
        for name in ("vq_embedding_mean", "muon"):
            with self.subTest(head=name):
                grid = [*HEADS[name], "run.device=cuda", "parallel.tensor=2", *SHORT]
                path = self.tune(f"{name}-grid", *grid, ranks=4)
                chosen = [*grid, f"run.products_file={path}"]
                first = self.train(f"{name}-first", *chosen, ranks=4, SIMT_SEED="1")
                self.assertRegex(self.last_words, r"products: (\d+) of \1 shapes have their algorithm")
                self.assertEqual(self.train(f"{name}-again", *chosen, ranks=4, SIMT_SEED="5"), first)

    def test_products_that_follow_from_the_tokens_are_not_kept(self):
        settings = [*HEADS["adaptive"], *ALONE, *SHORT]
        path = self.tune("bands", *settings)
        self.assertRegex(self.words, r"\d+ shapes follow from the tokens and keep the library's first")
        self.train("banded", *settings, f"run.products_file={path}")
        self.assertIn("that it does not know", self.last_words)

    def test_doctor_and_the_step_benchmark_know_the_file(self):
        path = self.tuned()
        bench = run("bench", "step", *self.options("bench", *self.dense, f"run.products_file={path}"), "--vocab", "321", "--steps", "1",
                    "--profile", "0", "--micro-batches", "2")
        self.assertEqual(bench.returncode, 0, bench.stderr)
        self.assertRegex(bench.stdout, r"products: \d+ of \d+ shapes have their algorithm")
        good = run("doctor", "--device", "cuda", "--products", path)
        self.assertIn("shapes, for this card and library, which takes all their algorithms", good.stdout)
        self.assertEqual(good.returncode, 0, good.stdout)
        foreign = run("doctor", "--device", "cuda", "--products", path, environment={"SIMT_DEVICE_NAME": "another card"})
        self.assertIn("here is another card (8.0, 8 multiprocessors)", foreign.stdout)
        self.assertEqual(foreign.returncode, 1)
        file = self.read(path)
        file["products"][0]["algorithm"]["tile"] += 1
        edited = run("doctor", "--device", "cuda", "--products", self.write("edited", file))
        self.assertIn("refuses the algorithm for a product of", edited.stdout)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    unittest.main()
