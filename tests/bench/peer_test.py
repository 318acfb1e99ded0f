#!/usr/bin/python3
"""The peers do the work that they are compared by: peer_step.py's model gives the losses and gradient norms of
tests/parity (the files that vqlm itself is tested with), the losses of peer_head.py agree with a direct computation, and
a comparison of different work is refused. Exit status 77, "skipped", where PyTorch or h5py is missing."""

import argparse
import contextlib
import os
import sys
import types
import unittest
import unittest.mock

try:
    import h5py
    import torch
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

import peer
import peer_attention
import peer_head
import peer_step

PARITY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity")
CPU = peer.Device("cpu")


def arrays(group, prefix=""):
    """Name and array of everything below an HDF5 group."""
    for key, item in group.items():
        yield from arrays(item, f"{prefix}{key}/") if isinstance(item, h5py.Group) else [(prefix + key, item[()])]


def load(model, w):
    """Hugging Face's names, vqlm's fused matrices."""
    model.table.data, model.gain.data, model.head.data = (
        w[name] for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"))
    if model.bias is not None:
        model.bias.data = w["lm_head.bias"]
    for i, block in enumerate(model.blocks):
        of = lambda name: w[f"model.layers.{i}.{name}.weight"]
        block.attention_gain.data, block.mlp_gain.data = of("input_layernorm"), of("post_attention_layernorm")
        block.qkv.data = torch.cat([of(f"self_attn.{x}_proj") for x in "qkv"])
        block.out.data = of("self_attn.o_proj")
        block.gate_up.data = torch.cat([of(f"mlp.{x}_proj") for x in ("gate", "up")])
        block.down.data = of("mlp.down_proj")


def step_options():
    return argparse.Namespace(steps=2, warmup=1, eager=True, compile_blocks=False, chunk_rows=5)


def direct_cross_entropy(e, c, targets, bias=None, reduction="mean"):
    """What cut_cross_entropy's linear_cross_entropy computes, and its parameters."""
    return torch.nn.functional.cross_entropy(e @ c.T + bias, targets, reduction=reduction)


@contextlib.contextmanager
def package(function):
    """cut_cross_entropy, whether it is installed here or not, with `function`; None: not to be imported."""
    module = types.SimpleNamespace(linear_cross_entropy=function) if function else None
    with unittest.mock.patch.dict(sys.modules, {"cut_cross_entropy": module}):
        yield


class Step(unittest.TestCase):
    sizes = dict(vocab_size=101, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24, seq_len=8, micro_batch=2,
                 micro_batches=2, bias=True, rope_theta=10000.0, norm_eps=1e-5)

    def test_is_the_model_of_the_golden_files(self):
        for name in ("dense", "dense_bias"):
            for chunk_rows in (0, 5):  # 16 rows: the last chunk is shorter
                with self.subTest(file=name, chunk_rows=chunk_rows), h5py.File(f"{PARITY}/{name}.h5") as file:
                    self.three_steps(file, chunk_rows)

    def three_steps(self, file, chunk_rows):
        s = argparse.Namespace(**{key: file.attrs[key].item() for key in file.attrs})
        model = peer_step.Decoder(s, chunk_rows)
        load(model, {name: torch.from_numpy(x) for name, x in arrays(file["init"])})
        training = peer_step.Training(model, s.lr, fused=False, master=chunk_rows > 0)
        for step, batch in enumerate(torch.from_numpy(file["batches"][()]).long()):
            loss = model(batch[:, :-1], batch[:, 1:])
            loss.backward()
            norm = training.update()
            # fp32 of a double-precision golden: the golden script's own fp32 run is within 1e-6 of it.
            self.assertAlmostEqual(loss.item() / file["loss"][step], 1, delta=1e-5)
            self.assertAlmostEqual(norm.item() / file["grad_norm"][step], 1, delta=1e-5)

    def test_measures_every_recipe_and_refuses_other_work(self):
        s = argparse.Namespace(**self.sizes)
        for recipe, loss in (("bf16 + master", "plain"), ("autocast", "chunked")):
            result = peer_step.measure(CPU, s, step_options(), recipe, loss)
            self.assertGreater(result["tokens_per_second"], 0)
            self.assertEqual(result["tokens_per_step"], 32)
        ours = {**result, "shape": {"head": "dense"}}
        self.assertEqual(peer_step.compare(result, ours)["vqlm_over_peer"], 1)
        with self.assertRaises(SystemExit):
            peer_step.compare(result, {**ours, "parameters": result["parameters"] + 1})
        with self.assertRaises(SystemExit):
            peer_step.compare(result, {**ours, "tokens_per_step": 16, "shape": {"head": "vq"}})


    def test_cut_cross_entropy_is_the_same_loss(self):
        s = argparse.Namespace(**self.sizes)
        plain = peer_step.measure(CPU, s, step_options(), "bf16 + master", "plain")
        calls = []

        def counted(e, c, targets, bias=None, reduction="mean"):
            calls.append(e.shape)
            return direct_cross_entropy(e, c, targets, bias, reduction)

        with package(counted):
            cut = peer_step.measure(CPU, s, step_options(), "bf16 + master", "cut")
        self.assertEqual(set(calls), {(16, 16)})
        # Two means of 16 fp32 terms in another order, after the same steps.
        self.assertAlmostEqual(cut["loss_last"], plain["loss_last"], delta=16 * 1.2e-7 * plain["loss_last"])

    def test_cut_cross_entropy_says_why_it_is_missing(self):
        s = argparse.Namespace(**self.sizes)
        with package(None), self.assertRaisesRegex(RuntimeError, "cut_cross_entropy is not installed"):
            peer_step.measure(CPU, s, step_options(), "bf16 + master", "cut")
        with package(lambda e, c, targets: None), self.assertRaisesRegex(RuntimeError, "knows no bias"):
            peer_step.measure(CPU, s, step_options(), "bf16 + master", "cut")
        with package(direct_cross_entropy), self.assertRaisesRegex(RuntimeError, "master alone"):
            peer_step.measure(CPU, s, step_options(), "autocast", "cut")


class Head(unittest.TestCase):
    def test_all_losses_are_the_same(self):
        s = argparse.Namespace(vocab_size=53, width=8, rows=12)
        options = argparse.Namespace(eager=True, repeats=1)
        plain, chunked = (peer_head.measure(CPU, s, options, rows) for rows in (0, 5))
        # Sums of 12 fp32 terms in another order.
        self.assertAlmostEqual(plain["mean_nll"], chunked["mean_nll"], delta=12 * 1.2e-7 * plain["mean_nll"])
        self.assertEqual(plain["matrix_parameters"], 53 * 8)
        with package(direct_cross_entropy):
            cut = peer_head.measure(CPU, s, options, 0, peer.cut_cross_entropy(True))
        self.assertAlmostEqual(plain["mean_nll"], cut["mean_nll"], delta=12 * 1.2e-7 * plain["mean_nll"])
        ours = {head: {"seconds": plain["seconds"] / 2, "bytes": 1, "matrix_parameters": 53 * 8}
                for head in ("dense", "vq")}
        self.assertAlmostEqual(peer_head.compare(plain, ours)["vq_over_peer"], 2)


class Attention(unittest.TestCase):
    @unittest.skipUnless(hasattr(torch.nn.functional, "scaled_dot_product_attention"), "not in this PyTorch")
    def test_measures_shared_heads(self):
        shape = dict(batch=1, seq_len=16, heads=4, kv_heads=2, head_dim=8)
        result = peer_attention.measure(CPU, shape, 1, peer_attention.kernels()["auto"])
        self.assertGreater(result["backward"]["flops_per_second"], 0)

    def test_kernels_have_names(self):
        # PyTorch before 2.3 can only choose by itself.
        self.assertIn(set(peer_attention.kernels()), ({"auto"}, {"auto", "flash", "cudnn", "efficient", "math"},
                                                      {"auto", "flash", "efficient", "math"}))

    def test_math_is_left_out_where_its_scores_are_large(self):
        peer_attention.check_scores(dict(batch=1, heads=16, seq_len=8192))
        with self.assertRaisesRegex(RuntimeError, "left out: T x T scores of T 8192"):
            peer_attention.check_scores(dict(batch=2, heads=16, seq_len=8192))


if __name__ == "__main__":
    torch.set_num_threads(1)
    unittest.main()
