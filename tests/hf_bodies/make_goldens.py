#!/usr/bin/env python3
"""Folders of other bodies than Llama's, and the log-probabilities that transformers gives them.

Run in an environment with the versions below (CI's is older than these models):

    python3 -m venv ENV && ENV/bin/pip install transformers==5.24.0 torch==2.15.0 h5py==3.16.0
    ENV/bin/python tests/hf_bodies/make_goldens.py                   # writes tests/hf_bodies/<case>/
    ENV/bin/python tests/hf_bodies/make_goldens.py --check FOLDER    # compares what vqlm wrote to FOLDER/<case>

A case is a folder as save_pretrained writes it, random weights in float32, and golden.h5: ids (2, 12) and log_probs
(24, V) computed in double precision. --check asks the same of folders that `vqlm convert --to hf` wrote from these.
README.md says what the cases are.
"""

import argparse
import os
import pathlib

import h5py
import numpy as np
import torch
import transformers

VERSIONS = {"transformers": "5.24.0", "torch": "2.15.0"}
COMMON = dict(vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None, pad_token_id=None)
FULL, SLIDING = "full_attention", "sliding_attention"

CASES = {
    "qwen2": (transformers.Qwen2Config, dict(tie_word_embeddings=True)),
    "qwen3": (transformers.Qwen3Config, dict(head_dim=6, tie_word_embeddings=False)),
    "qwen3_windows": (transformers.Qwen3Config, dict(head_dim=8, use_sliding_window=True, sliding_window=5,
                                                     layer_types=[SLIDING, FULL, SLIDING, FULL])),
    "smollm3": (transformers.SmolLM3Config, dict(no_rope_layer_interval=3)),
    "olmo2": (transformers.Olmo2Config, dict(num_hidden_layers=3)),
    "gemma3": (transformers.Gemma3TextConfig, dict(
        head_dim=8, query_pre_attn_scalar=10, sliding_window=4, layer_types=[SLIDING, SLIDING, FULL, SLIDING],
        rope_parameters={FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5},
                         SLIDING: {"rope_type": "default", "rope_theta": 1e3}})),
    "mistral": (transformers.MistralConfig, dict(sliding_window=3)),
}


def model_of(config):
    """Random weights large enough that every part shows in the result; gains and biases, too."""
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, x in model.named_parameters():
            x.copy_(0.3 * torch.randn(x.shape))
            if name.endswith("norm.weight") and config.model_type != "gemma3_text":
                x.add_(1)
    return model.float()


def log_probs(model, ids):
    model = model.double().eval()
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids.astype(np.int64))).logits
    return torch.log_softmax(logits.double(), -1).reshape(ids.size, -1).numpy()


def ids_of(vocabulary):
    return np.random.RandomState(3).randint(0, vocabulary, (2, 12)).astype(np.int32)


def make(name, out):
    config_class, settings = CASES[name]
    config = config_class(**{**COMMON, **settings})
    config._attn_implementation = "eager"
    model = model_of(config)
    folder = out / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    ids = ids_of(COMMON["vocab_size"])
    with h5py.File(folder / "golden.h5", "w") as file:
        file.create_dataset("ids", data=ids, track_times=False)
        file.create_dataset("log_probs", data=log_probs(model, ids), track_times=False)
    print(f"{name}: written")


def check(name, folder):
    ids = ids_of(COMMON["vocab_size"])
    with h5py.File(pathlib.Path(__file__).parent / name / "golden.h5") as file:
        golden = file["log_probs"][()]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / name, dtype=torch.float32, attn_implementation="eager")
    distance = np.abs(log_probs(model, ids) - golden).max()
    print(f"{name}: {type(model).__name__}, largest difference {distance:.1e}")
    assert distance < 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    parser.add_argument("--check", type=pathlib.Path)
    arguments = parser.parse_args()
    for package, version in VERSIONS.items():
        found = {"transformers": transformers, "torch": torch}[package].__version__.split("+")[0]
        if found != version:
            print(f"note: {package} is {found}, the goldens are of {version}")
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in CASES:
        if arguments.check:
            check(name, arguments.check)
        else:
            make(name, arguments.out)


if __name__ == "__main__":
    main()
