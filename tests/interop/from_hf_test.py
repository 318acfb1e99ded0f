"""Random tiny Llamas of transformers: this program's log-probabilities are theirs, and the way back gives the same tensors."""

import json
import pathlib
import tempfile
import unittest

from interop import load, log_probs, np, their_log_probs, torch
from program import error_lines, run
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

SIZES = dict(vocab_size=131, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3)
# Of 4 pairs, one turns 2.5 times over the 16 positions: between the two factors.
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
FOLDERS = {
    "fp32": dict(),
    "bf16_tied": dict(dtype=torch.bfloat16, tie_word_embeddings=True),
    "fp16_sharded": dict(dtype=torch.float16, max_shard_size="10KB"),
    "full_heads": dict(num_key_value_heads=4, rope_theta=500000.0, rms_norm_eps=1e-5),
    "llama3_rope": dict(rope_scaling=LLAMA3),
    "linear_rope": dict(rope_scaling=dict(type="linear", factor=4.0)),
    "mistral": dict(family=(MistralConfig, MistralForCausalLM), sliding_window=None),
}
# fp32 sums of 2 layers in other orders: about 100 roundings of 6e-8 of values around 10.
TOLERANCE = 1e-4


def tensors_of(folder):
    """name -> (dtype, bytes) over all files of a folder."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():
                tensor = tensors.get_tensor(name)
                found[name] = (tensor.dtype, tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found


class FromHf(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.ids = np.random.default_rng(1).integers(0, SIZES["vocab_size"], (3, 60))

    def make(self, name, dtype=torch.float32, max_shard_size="5GB", family=(LlamaConfig, LlamaForCausalLM), **options):
        torch.manual_seed(7)
        make_config, make_model = family
        model = make_model(make_config(**{**SIZES, **options}))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.uniform_(0.5, 1.5)  # gains that are not all 1
        model.to(dtype).save_pretrained(self.folder / name, max_shard_size=max_shard_size)
        return self.folder / name

    def test_log_probabilities_and_the_way_back(self):
        for name, options in FOLDERS.items():
            with self.subTest(name):
                folder = self.make(name, **options)
                theirs = their_log_probs(load(folder), self.ids)
                difference = np.abs(log_probs(folder, self.ids, self.folder) - theirs).max()
                print(f"{name}: largest difference {difference:.2g} of log-probabilities down to {theirs.min():.1f}")
                self.assertLess(difference, TOLERANCE)

                checkpoint, back = self.folder / f"{name}-checkpoint", self.folder / f"{name}-back"
                converted = run("convert", "--from", "hf", "--input", folder, "--out", checkpoint)
                self.assertEqual(converted.returncode, 0, converted.stderr)
                dtype = str(options.get("dtype", torch.float32)).removeprefix("torch.")
                converted = run("convert", "--to", "hf", "--checkpoint", checkpoint, "--out", back, "--dtype", dtype)
                self.assertEqual(converted.returncode, 0, converted.stderr)
                self.assertEqual(tensors_of(folder), tensors_of(back))
                self.assertLess(np.abs(their_log_probs(load(back), self.ids) - theirs).max(), 1e-6)

    def test_what_would_be_computed_wrongly_is_refused_by_name(self):
        folder = self.make("refused")
        config = json.loads((folder / "config.json").read_text())
        refused = {
            "model_type": "qwen2", "hidden_act": "gelu", "attention_bias": True, "mlp_bias": True, "pretraining_tp": 2,
            "head_dim": 16, "num_key_value_heads": 3, "rope_scaling": {"rope_type": "yarn", "factor": 2.0},
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}, "quantization_config": {"bits": 4},
            "hidden_size": 0, "vocab_size": 130, "num_hidden_layers": 1, "tie_word_embeddings": True, "rope_theta": -1,
        }
        for key, value in refused.items():
            with self.subTest(key):
                (folder / "config.json").write_text(json.dumps({**config, key: value}))
                result = run("convert", "--from", "hf", "--input", folder, "--out", self.folder / "never")
                self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
                self.assertEqual(len(error_lines(result)), 1, result.stderr)
                print(error_lines(result)[0].replace(str(self.folder), ""))
                self.assertIn(str(folder), error_lines(result)[0])
                self.assertFalse((self.folder / "never").exists())


if __name__ == "__main__":
    unittest.main()
