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

    def test_order_of_streams_graphs_overlap_and_recomputation_change_no_bit(self):
        head = [*HEADS["vq"], *GRID]
        runs = [("again", [], 7), ("direct", ["run.cuda_graphs=false"], 3), ("in-turn", ["parallel.overlap=false"], 5),
                ("cheap", ["train.recompute=cheap"], 2), ("block", ["train.recompute=block"], 4)]
        self.check_runs(head, "80", runs)
        # Where launches are dependent ones.
        self.check_runs(head, "90", [*runs[:2], ("ordinary", ["run.dependent_launch=false"], 6)])

    def check_runs(self, head, capability, runs):
        """That each of these (name, settings, seed of the streams' order) has the bits of one more."""
        chip = {"ranks": 4, "SIMT_COMPUTE_CAPABILITY": capability}
        first = self.train(f"first-{capability}", *head, **chip, SIMT_SEED="1")
        for name, settings, seed in runs:
            with self.subTest(run=name, capability=capability):
                made = self.train(f"{name}-{capability}", *head, *settings, **chip, SIMT_SEED=str(seed))
                self.assertEqual(made, first)

    def test_memory_without_pools_changes_no_bit(self):
        head = [*HEADS["vq_embedding_mean"], *GRID]
        self.assertEqual(self.train("plain-blocks", *head, ranks=4, SIMT_MEMORY_POOLS="0"), self.train("pool", *head, ranks=4))


if __name__ == "__main__":
    unittest.main()
