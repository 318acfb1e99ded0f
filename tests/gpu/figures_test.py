"""figures.py on results as the tools write them: what is picked, and what makes a stage fail."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

FIGURES = pathlib.Path(__file__).resolve().parent / "figures.py"

MEMCHECK = """========= COMPUTE-SANITIZER
Running main() from ./googletest/src/gtest_main.cc
========= Invalid __global__ read of size 16 bytes
=========     at void cutlass::Kernel2<cutlass_80_tensorop>(T1::Params)+0x430
=========     by thread (64,0,0) in block (0,0,0)
=========     Saved host backtrace up to driver entry point at kernel launch time
=========     Host Frame: vqlm::cuda::MatmulPlans::run in matmul_plans.cpp:140 [0x7f]
========= Program hit cudaErrorNotSupported (error 801) on CUDA API call to cudaMemPoolCreate.
=========     Saved host backtrace up to driver entry point at error
[  PASSED  ] 31 tests.
========= ERROR SUMMARY: 2 errors
"""
OUR_ERROR = """========= Invalid __shared__ write of size 4 bytes
=========     at vqlm::cuda::<unnamed>::rmsnorm_forward_kernel(float *, int)+0x70 in rmsnorm.cu:41
=========     by thread (0,0,0) in block (0,0,0)
"""
OUR_RACE = """========= Error: Race reported between Write access at vqlm::cuda::softmax_kernel(float *)+0x4f0 in softmax.cu:33
=========     and Read access at vqlm::cuda::softmax_kernel(float *)+0x500 in softmax.cu:34 [512 hazards]
"""
NCU = """==PROF== Connected to process 42
"ID","Process ID","Kernel Name","gpu__time_duration.sum","sm__throughput.avg.pct_of_peak_sustained_elapsed","unknown"
"","","","ns","%",""
"0","42","attention_forward_kernel","1,812,345","61.4","n/a"
"1","42","adamw_kernel","90","","n/a"
"""


class FiguresTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def file(self, name, content):
        path = pathlib.Path(self.folder.name) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def figures(self, *arguments, status=0):
        result = subprocess.run([sys.executable, "-B", FIGURES, *map(str, arguments)], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result.stdout

    def test_reports_about_others_do_not_fail_a_sanitizer(self):
        text = self.figures("sanitizer", self.file("log", MEMCHECK))
        self.assertEqual(text, "31 tests passed, 0 reports about our kernels, 2 about others\n")

    def test_a_report_about_our_kernel_does(self):
        for report, first in ((OUR_ERROR, "Invalid __shared__ write"), (OUR_RACE, "Error: Race reported")):
            text = self.figures("sanitizer", self.file("log", MEMCHECK + report), status=1)
            self.assertIn("1 reports about our kernels, 2 about others", text)
            self.assertIn(f"the first: {first}", text)

    def test_a_sanitizer_that_did_not_start_fails(self):
        text = self.figures("sanitizer", self.file("log", "compute-sanitizer: cannot inject\n"), status=1)
        self.assertIn("did not start: compute-sanitizer: cannot inject", text)

    def test_counters_name_kernels_and_skip_what_is_not_a_number(self):
        text = self.figures("counters", self.file("ncu.csv", NCU))
        self.assertEqual(text, "attention_forward_kernel 1,812,345 ns, 61 % SM; adamw_kernel 90 ns\n")
        self.assertIn("counted no kernel", self.figures("counters", self.file("ncu.csv", "==ERROR== nothing\n"), status=1))

    def test_the_card_is_judged_while_busy(self):
        card = self.file("card.csv", "300, 90.00, 30, 0, 100\n1980, 600.5, 60, 99, 2000\n1755, 650.5, 62, 100, 2100\n345, [N/A], 40, 3, 5\n")
        self.assertEqual(self.figures("card", card, 0), "[SM 1,868 MHz, at least 1,755; 626 W; 61 C]\n")
        self.assertEqual(self.figures("card", card, 3), "[card idle in 1 samples]\n")

    def metrics(self, name, losses):
        steps = [json.dumps({"step": i + 1, "loss": loss, "grad_norm": 1.5, "seconds": 0.1 * i}) for i, loss in enumerate(losses)]
        return self.file(f"{name}/metrics.jsonl", "\n".join(steps) + "\n")

    def test_the_same_runs_agree_in_every_digit(self):
        a, b = self.metrics("a", [5.25, 4.125]), self.metrics("b", [5.25, 4.125])
        self.assertIn("2 runs of 2 steps, the same losses", self.figures("same", a, b))
        self.assertIn("step 2: loss 4.125, norm 1.5; in c loss 4.125000000000001",
                      self.figures("same", a, b, self.metrics("c", [5.25, 4.125000000000001]), status=1))
        self.assertIn("2 and 1 steps", self.figures("same", a, self.metrics("d", [5.25]), status=1))
        self.assertIn("no steps", self.figures("same", self.metrics("e", []), status=1))

    def test_memory_may_differ_in_workspace_alone(self):
        uses = {"parameters": 1 << 20, "gradients": 2 << 20, "optimizer": 3 << 20, "activations": 4 << 20}
        plan = self.file("plan.json", {"memory_bytes": {**uses, "workspace": 1 << 20, "total": 11 << 20}})
        step = self.file("step.json", {"memory_bytes": {**uses, "workspace": 65 << 20, "peak_total": 75 << 20}})
        card = self.file("card.csv", "300, 90, 30, 0, 500\n300, 90, 30, 0, 900\n")
        self.assertEqual(self.figures("memory", plan, step, card), "planned 11 MiB, used 75: the difference is workspace, 1 and 65; "
                         "at most 900 MiB of the card were taken in this run\n")
        step = self.file("step.json", {"memory_bytes": {**uses, "gradients": 1, "workspace": 0, "peak_total": 0}})
        self.assertIn("gradients: planned 2,097,152 bytes, used 1", self.figures("memory", plan, step, status=1))

    def test_products_show_what_was_refused(self):
        part = {"layer": "qkv", "share_of_peak": 0.7, "seconds": 1e-3}
        refused = {"layer": "head, V = 50257", "refused": "no algorithm"}
        text = self.figures("products", self.file("p.json", {"matmul_peak_flops": 7.9e14, "products": [part, part, part, refused]}))
        self.assertEqual(text, "790 TFLOP/s peak; forward/input/weight gradient: qkv 3.00 ms 70/70/70 %; head, V = 50257 refused %; "
                         "refused: no algorithm\n")

    def test_a_step_is_compared_by_name_and_says_what_is_missing(self):
        ours = self.file("step.json", {"tokens_per_second": 200.0, "seconds_per_step": 0.5, "mfu": 0.5, "matmul_peak_flops": 8e14,
                                       "memory_bytes": {"peak_total": 1 << 30}})
        lines = [{"variant": "plain", "tokens_per_second": 100.0, "mfu": 0.25}, {"variant": "chunked", "tokens_per_second": 160.0,
                 "mfu": 0.4}, {"variant": "cut", "error": "not installed"}]
        peer = self.file("peer.jsonl", "\n".join(map(json.dumps, lines)))
        text = self.figures("step", ours, peer, "--target-ratio", 1.15)
        self.assertIn("; 1.25x PyTorch chunked (target 1.15): 160 tokens/s", text)
        self.assertIn("; 2.00x PyTorch plain: 100", text)
        self.assertIn("; no cut: not installed", text)
        self.assertIn("; no ratio (PyTorch missing)", self.figures("step", ours, self.file("peer.jsonl", "no ratio (PyTorch missing)\n")))

    def test_heads_are_compared_by_name(self):
        ours = self.file("h.json", {"vq": {"seconds": 0.001, "bytes": 1 << 20}, "dense": {"seconds": 0.02, "bytes": 100 << 20}})
        lines = [{"variant": "plain", "seconds": 0.04, "bytes": 400 << 20}, {"variant": "cut", "seconds": 0.03, "bytes": None}]
        text = self.figures("head", ours, self.file("p.jsonl", "\n".join(map(json.dumps, lines))))
        self.assertEqual(text, "vq 1.00 ms, 1 MiB; dense 20.00 ms, 100 MiB; vq 30.0x (target 20), dense 1.50x PyTorch cut 30.00 ms; "
                         "vq 40.0x, dense 2.00x PyTorch plain 40.00 ms, vq memory 0.25 % of its\n")

    def test_attention_is_compared_with_each_back_end_by_name(self):
        key = {"seq_len": 2048, "head_dim": 128, "heads": 16, "batch": 8}
        part = lambda seconds: {"seconds": seconds, "share_of_peak": 0.5}
        ours = self.file("a.json", {"shapes": [{**key, "forward": part(2.0), "backward": part(4.0)}]})
        lines = [{"variant": name, **key, "forward": part(f), "backward": part(b)} for name, f, b in (("flash", 1, 2), ("cudnn", 3, 1))]
        text = self.figures("attention", ours, self.file("p.jsonl", "\n".join(map(json.dumps, lines))))
        self.assertIn("T 2048 head 128 forward 50 % (0.50x flash, 1.50x cudnn); T 2048 head 128 backward 50 % (0.50x flash, 0.25x", text)

    def test_tests_of_several_processes_add_up(self):
        good = self.file("a.log", "[  PASSED  ] 20 tests.\n")
        bad = self.file("b.log", "[  FAILED  ] Rope.Turns, where x = 1 (3 ms)\n[  PASSED  ] 3 tests.\n[  FAILED  ] 1 test, listed below:\n")
        self.assertEqual(self.figures("tests", good, bad), "23 tests passed, 1 failed: Rope.Turns\n")

    def test_a_failed_stage_fails_the_table(self):
        good = "a\tpassed\t3\tfast\nb\tskipped\t0\tno ncu\n"
        self.assertIn("2 stages in 3 s; none failed", self.figures("table", self.file("t.tsv", good)))
        self.assertIn("failed: c", self.figures("table", self.file("t.tsv", good + "c\ttimed out\t9\t\n"), status=1))


if __name__ == "__main__":
    unittest.main()
