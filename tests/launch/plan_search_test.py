"""vqlm plan --search and --gpu: ranked by predicted time under a memory limit; what is wrong is said in one line."""

import json
import pathlib
import tempfile
import unittest

from program import SOURCE_DIR, error_lines, run

CONFIG = ["--config", f"{SOURCE_DIR}/configs/gpt2-small-dense.toml", "--vocab", 50257]
CLUSTER = ["--gpus", 8, "--gpu", "h100-80"]


class PlanSearch(unittest.TestCase):
    def plan(self, *arguments, returncode=0):
        """The plan's words, its JSON, and what standard error says."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "plan.json"
            result = run("plan", *CONFIG, *arguments, "--json", path)
            self.assertEqual(result.returncode, returncode, result.stderr)
            return result.stdout, json.loads(path.read_text(encoding="utf-8")), error_lines(result)

    def assert_refused(self, words, *arguments):
        result = run("plan", *arguments)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(len(error_lines(result)), 1, result.stderr)
        for word in words:
            self.assertIn(word, error_lines(result)[0])

    def test_ranked_by_predicted_time(self):
        text, plan, _ = self.plan("--search", *CLUSTER, "--top", 3)
        self.assertIn("predicted, not measured", text)
        self.assertEqual(sum("x1 " in line and " ms " in line for line in text.splitlines()), 3)
        choices = plan["choices"]
        self.assertEqual(choices["all"], choices["fitting"] + choices["too_large"] + choices["refused"])
        # 12 heads do not divide over 8 ranks.
        self.assertEqual(len(plan["refused"]), 1)
        self.assertIn("model.n_heads = 12", plan["refused"][0]["reason"])
        self.assertIn("model.n_heads = 12", text)
        ranked = plan["ranked"]
        self.assertEqual(len(ranked), choices["fitting"])
        seconds = [choice["predicted_seconds"] for choice in ranked]
        self.assertEqual(seconds, sorted(seconds))
        for choice in ranked:
            self.assertLessEqual(choice["bytes_per_rank"], plan["available_bytes"])
            self.assertEqual(choice["data"] * choice["tensor"], 8)
            self.assertEqual(512 % (choice["data"] * choice["micro_batch"]), 0)
            parts = choice["seconds"]
            self.assertAlmostEqual(sum(parts.values()) / choice["predicted_seconds"], 1, places=9)
            self.assertEqual(choice["binds"].replace(" ", "_"), max(parts, key=parts.get))
            self.assertTrue(0 < choice["mfu"] < 0.8)
        self.assertTrue(all(choice["bytes_per_rank"] > plan["available_bytes"] for choice in plan["too_large"]))
        self.assertEqual({choice["recompute"] for choice in ranked}, {"none", "cheap", "block"})
        self.assertEqual(ranked[0]["recompute"], "none")  # everything fits
        self.assertEqual(ranked[0]["tensor"], 1)  # 0.16 billion parameters: their gradients take less than the rows of tensor ranks

    def test_a_line_is_what_plan_says_of_it(self):
        _, search, _ = self.plan("--search", "--gpus", 16, "--gpu", "a100-40", "--gpus-per-node", 8)
        for choice in (search["ranked"][0], search["ranked"][-1]):
            grid = f"{choice['data']}x{choice['tensor']}"
            keys = ["--set", f"train.micro_batch={choice['micro_batch']}", "--set", f"train.recompute={choice['recompute']}"]
            _, plan, _ = self.plan("--gpu", "a100-40", "--grid", grid, *keys)
            self.assertEqual(plan["seconds"]["step"], choice["predicted_seconds"])
            self.assertEqual(plan["memory_bytes"]["total"], choice["bytes_per_rank"])
            self.assertEqual(plan["mfu"], choice["mfu"])
            self.assertEqual(plan["device_memory_bytes"], 40_000_000_000)

    def test_the_memory_limit(self):
        _, all_fit, _ = self.plan("--search", *CLUSTER)
        best = all_fit["ranked"][0]
        limit = best["bytes_per_rank"] - 1
        text, plan, _ = self.plan("--search", *CLUSTER, "--device-memory", f"{limit}B", "--reserve", "0")
        self.assertEqual(plan["available_bytes"], limit)
        self.assertIn("memory  binds: ", text)
        self.assertIn(", memory limit\n", text)
        self.assertTrue(all(choice["bytes_per_rank"] <= limit for choice in plan["ranked"]))
        self.assertEqual(plan["choices"]["all"], all_fit["choices"]["all"])

    def test_rates_and_efficiencies(self):
        def best_seconds(*arguments):
            return self.plan("--search", *CLUSTER, *arguments)[1]["ranked"][0]["predicted_seconds"]

        usual = best_seconds()
        self.assertLess(best_seconds("--product-efficiency", 1), usual)
        self.assertLess(best_seconds("--memory-efficiency", 1), usual)
        self.assertGreater(best_seconds("--link-efficiency", 0.01), usual)
        self.assertGreater(best_seconds("--op-us", 30), usual)
        self.assertGreater(best_seconds("--collective-us", 2000), usual)
        self.assertGreater(best_seconds("--peak-tflops", 100), usual)
        self.assertGreater(best_seconds("--tensor-gbs", 5), usual)
        self.assertGreater(best_seconds("--gpus-per-node", 1), usual)

    def test_nothing_fits(self):
        text, plan, errors = self.plan("--search", *CLUSTER, "--device-memory", "100MB", returncode=1)
        self.assertEqual(plan["ranked"], [])
        nearest = plan["too_large"][0]
        self.assertEqual(nearest["bytes_per_rank"], min(choice["bytes_per_rank"] for choice in plan["too_large"]))
        self.assertEqual(len(errors), 1)
        for word in ("nothing fits", f"{nearest['data']}x{nearest['tensor']}, train.micro_batch = {nearest['micro_batch']}", "train.recompute = block", "--gpus"):
            self.assertIn(word, errors[0])
        self.assertIn("choices", text)

    def test_everything_is_refused(self):
        self.assert_refused(["refused on every grid of 7 GPUs", "divide"], *CONFIG, "--search", "--gpus", 7, "--gpu", "h200")

    def test_bad_input(self):
        self.assert_refused(["--gpu h100", "h100-80", "--peak-tflops"], *CONFIG, "--search", "--gpus", 8, "--gpu", "h100")
        self.assert_refused(["--gpus"], *CONFIG, "--search", "--gpu", "h200")
        self.assert_refused(["--gpu"], *CONFIG, "--search", "--gpus", 8)
        self.assert_refused(["--grid"], *CONFIG, "--search", *CLUSTER, "--grid", "8x1")
        self.assert_refused(["--search"], *CONFIG, "--top", 3)
        self.assert_refused(["--gpu"], *CONFIG, "--op-us", 3)
        self.assert_refused(["--product-efficiency", "at most 1"], *CONFIG, "--search", *CLUSTER, "--product-efficiency", 1.2)
        self.assert_refused(["--dtype fp32", "bf16"], *CONFIG, "--search", *CLUSTER, "--dtype", "fp32")
        self.assert_refused(["--dtype fp32", "bf16"], *CONFIG, "--gpu", "h200", "--dtype", "fp32")
        self.assert_refused(["train.precision"], *CONFIG, "--search", *CLUSTER, "--set", "train.precision=fp32")


if __name__ == "__main__":
    unittest.main()
