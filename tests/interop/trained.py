"""Runs of this program for the tests with transformers: every kind of head, trained for moments on the project's own documents."""

import functools
import os
import pathlib
import tempfile
import unittest

from program import run

SOURCE = pathlib.Path(os.environ["VQLM_SOURCE_DIR"])
MODEL = ["model.d_model=32", "model.n_layers=2", "model.n_heads=4", "model.n_kv_heads=2", "model.d_ff=64",
         "data.seq_len=64", "train.global_batch=8", "train.micro_batch=2", "train.steps=6", "optim.warmup_steps=2",
         "optim.lr=0.01", "run.device=cpu"]
VQ = ["head.kind=vq", "head.clusters=8", "head.map=random"]
CODES = [*VQ, "head.members=codes", "head.codes=8", "head.input_codes=false"]
ROWS = [*VQ, "head.members=embedding", "head.member_mean=false", "head.input_codes=false"]
RUNS = {
    "dense": (["head.kind=dense", "head.bias=false"], "LlamaForCausalLM"),
    "tied": (["head.kind=dense", "head.bias=false", "model.tie_embeddings=true", "model.rope_scaling=linear",
              "model.rope_factor=2"], "LlamaForCausalLM"),
    "dense_bias": (["head.kind=dense"], "VqlmForCausalLM"),
    "capped": (["head.kind=dense", "head.bias=false", "head.softcap=3"], "VqlmForCausalLM"),
    "capped_tied_bias": (["head.kind=dense", "model.tie_embeddings=true", "head.softcap=3"], "VqlmForCausalLM"),
    "tied_bias": (["head.kind=dense", "model.tie_embeddings=true"], "VqlmForCausalLM"),
    "low_rank": (["head.kind=low_rank", "head.rank=8"], "VqlmForCausalLM"),
    "adaptive": (["head.kind=adaptive", "head.cutoffs=[50,200]"], "VqlmForCausalLM"),
    "adaptive_without_bias": (["head.kind=adaptive", "head.bias=false", "head.cutoffs=[10,50,200]", "head.tail_ratio=2"], "VqlmForCausalLM"),
    "vq": ([*CODES, "head.groups=4"], "VqlmForCausalLM"),
    "vq_without_bias": ([*CODES, "head.groups=4", "head.bias=false"], "VqlmForCausalLM"),
    "vq_embedding": (ROWS, "VqlmForCausalLM"),
    "vq_embedding_mean": ([*VQ, "head.members=embedding", "head.member_mean=true", "head.input_codes=true"], "VqlmForCausalLM"),
    "vq_embedding_no_bias": ([*ROWS, "head.bias=false"], "VqlmForCausalLM"),
    "tables": ([*VQ, "head.members=embedding", "head.input_codes=true", "input.tables=[{order=2,rows=300},{order=3,rows=77}]"], "VqlmForCausalLM"),
    "tables_tied": (["head.kind=dense", "head.bias=false", "model.tie_embeddings=true", "input.tables=[{order=2,rows=50}]"],
                    "VqlmForCausalLM"),
    "vq_published": ([*CODES, "head.groups=0"], "VqlmForCausalLM"),
    "vq_published_without_bias": ([*VQ, "head.members=none", "head.input_codes=false", "head.bias=false"], "VqlmForCausalLM"),
}


def set_options(values):
    return [word for value in values for word in ("--set", value)]


class Trained(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.texts = [path.read_text() for path in sorted((SOURCE / "docs").glob("*.md"))]
        for number, text in enumerate(cls.texts):
            (cls.folder / f"{number}.txt").write_text(text)
        cls.succeed("prepare", "--input", cls.folder / "*.txt", "--train-tokenizer", "400", "--out", cls.folder / "shards")

    @classmethod
    def succeed(cls, *arguments, **options):
        result = run(*arguments, **options)
        assert result.returncode == 0, result.stderr
        return result

    @classmethod
    @functools.lru_cache
    def trained(cls, name):
        """The run of that name in RUNS: trained once for all tests."""
        options, _ = RUNS[name]
        data = [f"data.train={cls.folder}/shards/train-*.h5", f"run.dir={cls.folder}/{name}"]
        cls.succeed("train", *set_options([*MODEL, *options, *data]))
        return cls.folder / name
