"""`vqlm convert --to gguf`: every tensor and the tokenizer's fields as PyPI's gguf reads them back; where llama-cpp-python is
installed (it is compiled for minutes, so that CI has none), the ids and the perplexity that llama.cpp gives, too."""

import functools
import itertools
import json
import math
import os
import shutil
import subprocess
import unittest

from interop import ENVIRONMENT, log_probs, np
import gguf
import safetensors.numpy
import sentencepiece
from program import PROGRAM, error_lines, run
from trained import MODEL, SOURCE, Trained, set_options

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

READER = {"VQLM_PYTHON": str(ENVIRONMENT / "bin" / "python")}
DENSE = ["head.kind=dense", "head.bias=false"]
LLAMA3_ROPE = ["model.rope_scaling=llama3", "model.rope_factor=8", "model.rope_original_positions=64", "model.rope_low_freq_factor=1",
               "model.rope_high_freq_factor=4"]
WIDE = ["model.d_model=64", "model.d_ff=96"]  # two blocks of q8_0 a row, and three
ODD = ["caf\u00e9 12345 ABC'S we're", "  two  spaces\n\n\tand 123 tabs\r\n", "\u65e5\u672c \U0001f600 na\u00efve", "x" * 50, "a\n b"]
# What is their own: tests/tokenizers. The other families are refused: a space in front, digits in runs.
FAMILIES = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "smollm2": "smollm", "cl100k": "dbrx", "o200k": "gpt-4o"}


def paired(matrix, heads):
    """llama.cpp's row 2 i of a head is Llama's row i, and 2 i + 1 is i + half."""
    rows = matrix.shape[0] // heads
    order = [head * rows + half * (rows // 2) + pair for head in range(heads) for pair in range(rows // 2) for half in (0, 1)]
    return matrix[order]


class Gguf(Trained):
    numbers = itertools.count()

    @functools.lru_cache
    def converted(self, checkpoint, *more):
        out = self.folder / f"{next(self.numbers)}.gguf"
        self.succeed("convert", "--to", "gguf", "--checkpoint", checkpoint, "--out", out, *more, environment=READER)
        self.assertEqual(list(self.folder.glob("*.partial")), [])
        return out

    def of_tokenizer(self, name, options, *tokenizer):
        """A run on shards of that tokenizer."""
        shards, folder = self.folder / f"{name}-shards", self.folder / f"{name}-run"
        if not folder.exists():
            self.succeed("prepare", "--input", self.folder / "*.txt", *tokenizer, "--out", shards)
            self.succeed("train", *set_options([*MODEL, *WIDE, *options, f"data.train={shards}/train-*.h5", f"run.dir={folder}"]))
        return folder

    def runs(self):
        """Runs of every kind of tokenizer, every rope and both kinds of embedding."""
        yield "bpe", self.of_tokenizer("bpe", [*DENSE, *LLAMA3_ROPE], "--train-tokenizer", "400")
        unigram = self.folder / "unigram.model"
        if not unigram.exists():
            sentencepiece.SentencePieceTrainer.train(
                input=",".join(map(str, sorted(self.folder.glob("*.txt")))), model_prefix=str(unigram.with_suffix("")), vocab_size=400,
                model_type="unigram", minloglevel=2)
        yield "unigram", self.of_tokenizer("unigram", DENSE, "--tokenizer", unigram)
        tied = [*DENSE, "model.tie_embeddings=true", "model.rope_scaling=linear", "model.rope_factor=2"]
        yield "byte-bpe", self.of_tokenizer("byte-bpe", tied, "--train-tokenizer", "400", "--kind", "byte-bpe")

    def tensors_of(self, checkpoint):
        """The same model's tensors as the Hugging Face folder holds them, by llama.cpp's names, and config.json."""
        out = self.folder / f"hf-{next(self.numbers)}"
        self.succeed("convert", "--to", "hf", "--checkpoint", checkpoint, "--out", out)
        config, tensors = json.loads((out / "config.json").read_text()), safetensors.numpy.load_file(out / "model.safetensors")
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])  # gguf's own table
        for name, value in list(tensors.items()):
            del tensors[name]
            for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
                value = paired(value, config[heads]) if part in name else value
            tensors[names.get_name(name, try_suffixes=(".weight",))] = value
        return tensors, config, out

    def test_tensors(self):
        for name, checkpoint in self.runs():
            expected, config, _ = self.tensors_of(checkpoint)
            for dtype in ("f32", "f16", "q8_0"):
                reader = gguf.GGUFReader(self.converted(checkpoint, "--dtype", dtype))
                told = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
                factors = told.pop("rope_freqs.weight", None)
                self.assertEqual(factors is not None, name == "bpe")
                self.assertEqual(set(told), set(expected))
                for tensor, value in expected.items():
                    if value.ndim == 1 or dtype == "f32":
                        np.testing.assert_array_equal(told[tensor], value, tensor)
                    elif dtype == "f16":
                        np.testing.assert_array_equal(told[tensor], value.astype(np.float16).astype(np.float32), tensor)
                    else:
                        # Half a step of the block's scale, and that scale's rounding to f16 on 127 steps.
                        largest = np.abs(value.reshape(-1, 32)).max(-1, keepdims=True)
                        bound = largest / 127 * (0.5 + 127 * 2.0**-11) * (1 + 2.0**-20) + 1e-7
                        self.assertTrue((np.abs((told[tensor] - value).reshape(-1, 32)) <= bound).all(), tensor)
                fields = {key: field.contents() for key, field in reader.fields.items()}
                for key, ours in (("block_count", "num_hidden_layers"), ("embedding_length", "hidden_size"), ("feed_forward_length", "intermediate_size"),
                                  ("attention.head_count", "num_attention_heads"), ("attention.head_count_kv", "num_key_value_heads"),
                                  ("context_length", "max_position_embeddings"), ("rope.dimension_count", "head_dim"), ("vocab_size", "vocab_size")):
                    self.assertEqual(fields[f"llama.{key}"], config[ours], key)
                self.assertAlmostEqual(fields["llama.rope.freq_base"], config["rope_theta"])
                self.assertAlmostEqual(fields["llama.attention.layer_norm_rms_epsilon"], config["rms_norm_eps"])
                self.assertEqual(fields.get("llama.rope.scaling.factor"), 2 if name == "byte-bpe" else None)

    def test_rows_that_blocks_do_not_fill_are_f16(self):
        checkpoint = self.folder / "narrow"
        self.succeed("train", *set_options([*MODEL, *DENSE, "model.d_ff=72", f"data.train={self.folder}/shards/train-*.h5", f"run.dir={checkpoint}"]))
        out = self.folder / "narrow.gguf"
        told = self.succeed("convert", "--to", "gguf", "--checkpoint", checkpoint, "--out", out, "--dtype", "q8_0", environment=READER)
        self.assertIn("q8_0: 2 matrices are f16, as their rows are no multiple of 32: model.layers.0.mlp.down_proj.weight", told.stderr + told.stdout)
        kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors}
        self.assertEqual((kinds["blk.1.ffn_down.weight"], kinds["blk.1.ffn_up.weight"], kinds["output_norm.weight"]), ("F16", "Q8_0", "F32"))

    def test_the_tokenizer_s_fields(self):
        for name, checkpoint in self.runs():
            fields = {key: field.contents() for key, field in gguf.GGUFReader(self.converted(checkpoint)).fields.items()}
            shards = self.folder / f"{name}-shards"
            tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
            self.assertEqual((fields["tokenizer.ggml.add_bos_token"], fields["tokenizer.ggml.add_eos_token"]), (True, False))
            if name == "byte-bpe":
                model = json.loads((shards / "tokenizer.json").read_text())
                self.assertEqual((fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]), ("gpt2", "gpt-2"))
                self.assertEqual(tokens, sorted(model["model"]["vocab"], key=model["model"]["vocab"].get))
                self.assertEqual(fields["tokenizer.ggml.merges"], model["model"]["merges"])
                self.assertEqual((types[0], set(types[1:])), (3, {1}))
                self.assertEqual(fields["tokenizer.ggml.eos_token_id"], 0)
                continue
            ours = sentencepiece.SentencePieceProcessor(model_file=str(shards / "tokenizer.model"))
            self.assertEqual(fields["tokenizer.ggml.model"], "llama" if name == "bpe" else "t5")
            self.assertEqual(tokens, [ours.id_to_piece(token) for token in range(ours.vocab_size())])
            np.testing.assert_allclose(fields["tokenizer.ggml.scores"], [ours.get_score(token) for token in range(ours.vocab_size())])
            self.assertEqual((fields["tokenizer.ggml.unknown_token_id"], fields["tokenizer.ggml.eos_token_id"]), (ours.unk_id(), ours.eos_id()))
            self.assertEqual(fields["tokenizer.ggml.add_space_prefix"], name == "unigram")
            for token, kind in enumerate(types):
                expected = (2 if ours.is_unknown(token) else 3 if ours.is_control(token) else 6 if ours.is_byte(token) else
                            4 if tokens[token] == "\n" else 1)
                self.assertEqual(kind, expected, tokens[token])
            self.assertEqual(fields.get("tokenizer.ggml.remove_extra_whitespaces"), None if name == "bpe" else True)
            self.assertEqual("tokenizer.ggml.precompiled_charsmap" in fields, name == "unigram")

    def with_tokenizer(self, family):
        """A model of random numbers with that family's tokenizer and three rows more than it has tokens."""
        model = self.folder / f"{family}-model"
        if not model.exists():
            self.succeed("convert", "--to", "hf", "--checkpoint", self.trained("dense"), "--out", model)
            (model / "tokenizer.model").unlink()
            for other in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
                (model / other).unlink()
            tokenizer = (SOURCE / "tests/tokenizers" / f"{family}.json").read_text()
            (model / "tokenizer.json").write_text(tokenizer)
            described, config = json.loads(tokenizer), json.loads((model / "config.json").read_text())
            last = max([*described["model"]["vocab"].values(), *(token["id"] for token in described["added_tokens"])])
            config.update({"vocab_size": last + 4, "bos_token_id": None, "eos_token_id": None})
            (model / "config.json").write_text(json.dumps(config))
            tensors = safetensors.numpy.load_file(model / "model.safetensors")
            for name in ("model.embed_tokens.weight", "lm_head.weight"):
                tensors[name] = np.random.default_rng(1).normal(size=(last + 4, config["hidden_size"])).astype(np.float32)
            safetensors.numpy.save_file(tensors, model / "model.safetensors", {"format": "pt"})
        return model

    def with_sentencepiece(self, **options):
        """A model with a SentencePiece model of that kind."""
        model = self.folder / f"sentencepiece-{next(self.numbers)}"
        self.succeed("convert", "--to", "hf", "--checkpoint", self.trained("dense"), "--out", model)
        sentencepiece.SentencePieceTrainer.train(input=str(self.folder / "0.txt"), model_prefix=str(model / "tokenizer"), minloglevel=2,
                                                 **{"model_type": "bpe", "vocab_size": 390, **options})
        return model

    def test_families_of_byte_level_bpe(self):
        for family, pre in FAMILIES.items():
            model = self.with_tokenizer(family)
            fields = {key: field.contents() for key, field in gguf.GGUFReader(self.converted(model)).fields.items()}
            self.assertEqual(fields["tokenizer.ggml.pre"], pre)
            self.assertEqual(len(fields["tokenizer.ggml.tokens"]), fields["llama.vocab_size"])
            self.assertEqual(fields["tokenizer.ggml.token_type"][-3:], [5, 5, 5])
            described = json.loads((model / "tokenizer.json").read_text())
            for token in described["added_tokens"]:
                self.assertEqual(fields["tokenizer.ggml.tokens"][token["id"]], token["content"])
                self.assertEqual(fields["tokenizer.ggml.token_type"][token["id"]], 3 if token["special"] else 4)
            self.assertEqual(fields["tokenizer.ggml.add_bos_token"], family == "llama3")

    def test_what_is_refused(self):
        def refused(words, checkpoint, *more, exit_code=1, environment=READER):
            result = run("convert", "--to", "gguf", "--checkpoint", checkpoint, "--out", self.folder / "never", *more, environment=environment)
            self.assertEqual(result.returncode, exit_code, result.stderr)
            for word in words:
                self.assertIn(word, error_lines(result)[0])
            self.assertEqual(list(self.folder.glob("never*")), [])

        refused(["has a VQ head", "--to hf"], self.trained("vq_embedding"))
        refused(["token bias", "head.bias = false"], self.trained("dense_bias"))
        refused(["head.softcap = 3", "--to hf"], self.trained("capped"))
        refused(["--dtype bfloat16: of --to gguf it is f32, f16, q8_0"], self.trained("dense"), "--dtype", "bfloat16", exit_code=2)
        (self.folder / "no" / "gguf").mkdir(parents=True)
        (self.folder / "no" / "gguf" / "__init__.py").write_text("raise ImportError('absent', name='gguf')\n")
        refused(["has no gguf: pip install gguf", "VQLM_PYTHON"], self.trained("dense"), environment={**READER, "PYTHONPATH": str(self.folder / "no")})
        refused(["/nowhere/python cannot be started"], self.trained("dense"), environment={"VQLM_PYTHON": "/nowhere/python"})
        refused(["add_prefix_space", "--no-tokenizer"], self.with_tokenizer("roberta"))
        for options, words in (({"model_type": "unigram", "byte_fallback": True}, "byte_fallback = true"), ({}, "byte_fallback = false"),
                               ({"byte_fallback": True}, "normalization_rule_name = nmt_nfkc"),
                               ({"byte_fallback": True, "normalization_rule_name": "identity"}, "remove_extra_whitespaces = true"),
                               ({"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
                                 "user_defined_symbols": "\n"}, "add_dummy_prefix and user_defined_symbols")):
            refused([words, "--no-tokenizer"], self.with_sentencepiece(**options))
        unknown = self.folder / "unknown"
        shutil.copytree(self.with_tokenizer("qwen2"), unknown)
        content = json.loads((unknown / "tokenizer.json").read_text())
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|\p{N}"
        (unknown / "tokenizer.json").write_text(json.dumps(content))
        refused([r"\\p{L}+|\\p{N}", "none of the families", "--no-tokenizer"], unknown)
        reader = gguf.GGUFReader(self.converted(unknown, "--no-tokenizer"))
        self.assertEqual(reader.fields["tokenizer.ggml.model"].contents(), "no_vocab")

    def our_ids(self, checkpoint, texts):
        """By the program's own tokenizer."""
        text, out = self.folder / "text.jsonl", self.folder / f"ids-{next(self.numbers)}.jsonl"
        text.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in texts))
        self.succeed("score", "--checkpoint", checkpoint, "--input", text, "--out", out, "--device", "cpu")
        return [json.loads(line)["tokens"] for line in out.read_text().splitlines()]

    def test_a_signal_ends_it_and_leaves_nothing(self):
        slow = self.folder / "slow.sh"
        slow.write_text("#!/bin/sh\necho started\nexec sleep 60\n")
        slow.chmod(0o755)
        job = subprocess.Popen([PROGRAM, "convert", "--to", "gguf", "--checkpoint", self.trained("dense"), "--out", self.folder / "stopped"],
                               env={**os.environ, "VQLM_PYTHON": str(slow)}, stderr=subprocess.PIPE, text=True)
        for line in job.stderr:
            if "started" in line:
                break
        job.terminate()
        self.assertIn("stopped by a signal; nothing was written", job.communicate(timeout=10)[1])
        self.assertEqual((job.returncode, list(self.folder.glob("stopped*"))), (130, []))

    def perplexity(self, rows):
        """Of log-probabilities (rows, length, V) of ids (rows, length)."""
        scores, ids = rows
        return math.exp(-np.take_along_axis(scores[:, :-1], ids[:, 1:, None], -1).mean(dtype=np.float64))

    @unittest.skipIf(llama_cpp is None, "pip install llama-cpp-python, compiled for minutes")
    def test_ids_and_perplexity_in_llama_cpp(self):
        for name, checkpoint in self.runs():
            texts = [*self.texts, *ODD]
            ours = self.our_ids(checkpoint, texts)
            ids = np.array(ours[0][: 64 * 12]).reshape(12, 64)
            expected = self.perplexity((log_probs(checkpoint, ids, self.folder), ids))
            for dtype in ("f32", "f16", "q8_0"):
                model = llama_cpp.Llama(str(self.converted(checkpoint, "--dtype", dtype)), n_ctx=64, logits_all=True, verbose=False)
                for piece, tokens in zip(texts, ours, strict=True):
                    # Text that spells a special token is that token by tokenizer.json, and text by SentencePiece.
                    theirs = model.tokenize(piece.encode(), add_bos=False, special=name == "byte-bpe")
                    if name == "unigram":  # of equally probable cuts another one
                        theirs, tokens = sorted(theirs), sorted(tokens)
                    self.assertEqual(theirs, tokens, (name, piece[:40]))
                scores = []
                for row in ids:
                    model.reset()
                    model.eval(row.tolist())
                    scores.append(np.array(model.scores[:64], dtype=np.float64))
                scores = np.array(scores)
                scores -= np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1, keepdims=True)) + scores.max(-1, keepdims=True)
                told = self.perplexity((scores, ids))
                print(f"{name} {dtype}: perplexity {told:.4f}, ours {expected:.4f}, {told / expected - 1:+.2e}")
                self.assertLess(abs(told / expected - 1), 1e-3)

    @unittest.skipIf(llama_cpp is None, "pip install llama-cpp-python, compiled for minutes")
    def test_ids_of_families_in_llama_cpp(self):
        texts = [*self.texts, *ODD]
        for family in FAMILIES:
            model = self.with_tokenizer(family)
            theirs = llama_cpp.Llama(str(self.converted(model)), vocab_only=True, verbose=False)
            for text, ids in zip(texts, self.our_ids(model, texts), strict=True):
                self.assertEqual(theirs.tokenize(text.encode(), add_bos=False, special=True), ids, (family, text[:40]))


if __name__ == "__main__":
    unittest.main()
