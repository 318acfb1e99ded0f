"""The CUDA form of the program (on the host executor, its streams deferred, NCCL's stand-in between the ranks) trains like the
CPU back end, and gives the same bits whatever the order in which its streams run."""

import unittest

from device_runs import GRID, HEADS, DeviceRuns, tolerance

STEPS = 5


class DeviceTraining(DeviceRuns):
    vocabulary = "321"  # no multiple of what a GPU pads to, alone or over two ranks

    def train(self, name, *settings, **more):
        return super().train(name, f"train.steps={STEPS}", *settings, **more)

    def test_a_grid_of_devices_trains_like_the_cpu(self):
        for name, head in HEADS.items():
            with self.subTest(head=name):
                expected = self.train(f"{name}-cpu", *head, "run.device=cpu")
                device = self.train(f"{name}-cuda", *head, *GRID, ranks=4)
                self.assertIn("cuda:0", self.last_words)
                self.assert_alike(device, expected)
                losses = expected[0]
                self.assertEqual(len(losses), STEPS)
                self.assertGreater(losses[0] - losses[-1], 4 * tolerance(STEPS))  # else agreement would say little

    def test_order_of_streams_graphs_and_overlap_change_no_bit(self):
        head = [*HEADS["vq"], *GRID]
        first = self.train("first", *head, ranks=4, SIMT_SEED="1")
        for name, settings, seed in (("again", [], 7), ("direct", ["run.cuda_graphs=false"], 3),
                                     ("in-turn", ["parallel.overlap=false"], 5)):
            with self.subTest(run=name):
                self.assertEqual(self.train(name, *head, *settings, ranks=4, SIMT_SEED=str(seed)), first)

    def test_memory_without_pools_changes_no_bit(self):
        head = [*HEADS["vq_embedding_mean"], *GRID]
        self.assertEqual(self.train("plain-blocks", *head, ranks=4, SIMT_MEMORY_POOLS="0"), self.train("pool", *head, ranks=4))


class LearnedMapsOnDevices(DeviceRuns):
    def train(self, name, *settings, **more):
        return super().train(name, f"train.steps={STEPS}", *settings, **more)

    def refits(self, name):
        lines = [line for line in self.metrics(name) if "refit_rows" in line]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]

    def test_a_learned_map_is_refit_on_devices(self):
        head = ["head.kind=vq", "head.clusters=8", "head.groups=4", "head.codes=8", "head.map=learned", "head.refit_every=2",
                "head.refit_until=4", "head.refit_dims=32"]
        cpu = self.train("learned-cpu", *head, "run.device=cpu")
        device = self.train("learned", *head, *GRID, ranks=4, SIMT_SEED="1")
        # Up to the first re-fit. What it decides from differs by bf16, so that it may move other tokens than the CPU's.
        for step, (loss, expected) in enumerate(zip(device[0][:2], cpu[0]), 1):
            self.assertAlmostEqual(loss, expected, delta=tolerance(step))
        found, wanted = self.refits("learned"), self.refits("learned-cpu")
        self.assertEqual([refit["step"] for refit in found], [2, 4])
        for refit, expected in zip(found, wanted):
            self.assertEqual(refit["refit_rows"], expected["refit_rows"])
            self.assertGreater(refit["refit_moved_tokens"], 0)
            # Carried over: the re-fit moves the loss no further than the CPU's does, beside what rounding does to both.
            change, theirs = (r["refit_loss_after"] - r["refit_loss_before"] for r in (refit, expected))
            self.assertAlmostEqual(change, theirs, delta=2 * tolerance(refit["step"]))
        self.assertEqual(self.train("learned-again", *head, *GRID, ranks=4, SIMT_SEED="7"), device)
        self.assertEqual(self.refits("learned-again"), found)


if __name__ == "__main__":
    unittest.main()
