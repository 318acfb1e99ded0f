"""Models that this program trained, in transformers: the same log-probabilities, the same tokens, and generation."""

import itertools
import json
import unittest

from interop import load, log_probs, np, their_log_probs, torch
import safetensors.torch
from program import error_lines, run
from trained import MODEL, RUNS, SOURCE, Trained, set_options
from transformers import AutoTokenizer, LlamaForCausalLM

# fp32 sums in other orders, as in from_hf_test.py.
TOLERANCE = 1e-4


class ToHf(Trained):
    numbers = itertools.count()

    def converted(self, name, *more):
        checkpoint, out = self.trained(name), self.folder / f"{name}-hf-{next(self.numbers)}"
        self.succeed("convert", "--to", "hf", "--checkpoint", checkpoint, "--out", out, *more)
        return checkpoint, out

    def ids(self, folder, length=64, rows=3):
        ids = AutoTokenizer.from_pretrained(folder)(self.texts[0])["input_ids"][: rows * length]
        return np.array(ids).reshape(rows, length)

    def test_log_probabilities_and_generation(self):
        for name, (options, architecture) in RUNS.items():
            with self.subTest(name):
                checkpoint, out = self.converted(name)
                ids = self.ids(out)
                model = load(out)
                self.assertEqual(type(model).__name__, architecture)
                theirs = their_log_probs(model, ids)
                ours = log_probs(checkpoint, ids, self.folder)
                print(f"{name}: {architecture}, largest difference {np.abs(ours - theirs).max():.2g}")
                self.assertLess(np.abs(ours - theirs).max(), TOLERANCE)
                # The folder read by this program again is the model that was written; input codes are sums there.
                back = log_probs(out, ids, self.folder)
                if "head.input_codes=true" in options:
                    np.testing.assert_allclose(back, ours, rtol=0, atol=TOLERANCE)
                else:
                    np.testing.assert_array_equal(back, ours)
                # Greedy choice by the cached model and by the whole prefix.
                prompt = torch.tensor(ids[:1, :10])
                cached, whole = (model.generate(prompt, max_new_tokens=12, do_sample=False, use_cache=use_cache, eos_token_id=None,
                                                pad_token_id=0) for use_cache in (True, False))
                self.assertEqual(cached.tolist(), whole.tolist())
                self.assertEqual(cached.shape[1], 22)

    def test_tables_do_not_see_what_a_mask_hides_and_refuse_a_cache(self):
        _, out = self.converted("tables")
        model, ids = load(out), self.ids(out, length=20, rows=1)
        padded = torch.tensor([[7, 7, 7, *ids[0]]])
        mask = torch.tensor([[0, 0, 0, *[1] * 20]])
        positions = torch.clamp(mask.cumsum(1) - 1, min=0)
        with torch.no_grad():
            alone = model(torch.tensor(ids), use_cache=True)
            behind = model(padded, attention_mask=mask, position_ids=positions).logits[0, 3:]
            self.assertLess((alone.logits[0] - behind).abs().max().item(), TOLERANCE)
            with self.assertRaisesRegex(ValueError, "need all tokens before"):
                model(torch.tensor(ids[:, :1]), past_key_values=alone.past_key_values)
        whole, left = (model.generate(tokens, attention_mask=seen, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
                       for tokens, seen in ((torch.tensor(ids), torch.ones(1, 20, dtype=torch.long)), (padded, mask)))
        self.assertEqual(whole[0, 20:].tolist(), left[0, 23:].tolist())

    def test_the_native_form_reads_back_into_the_same_tensors(self):
        checkpoint, out = self.converted("vq")
        back, twice = self.folder / "again-checkpoint", self.folder / "again-twice"
        self.succeed("convert", "--from", "hf", "--input", out, "--out", back)
        self.succeed("convert", "--to", "hf", "--checkpoint", back, "--out", twice)
        for name in ("model.safetensors", "tokenizer.model", "tokenizer_config.json", "modeling_vqlm.py", "config.json"):
            self.assertEqual((out / name).read_bytes(), (twice / name).read_bytes(), name)
        ids = self.ids(out)
        np.testing.assert_array_equal(log_probs(back, ids, self.folder), log_probs(checkpoint, ids, self.folder))

    def test_sixteen_bits(self):
        for dtype in ("bfloat16", "float16"):
            checkpoint, out = self.converted("vq", "--dtype", dtype)
            ids = self.ids(out)
            # The rounded values, computed with in float32 on both sides.
            self.assertLess(np.abs(log_probs(out, ids, self.folder) - their_log_probs(load(out), ids)).max(), TOLERANCE)
            self.assertGreater(np.abs(log_probs(checkpoint, ids, self.folder) - log_probs(out, ids, self.folder)).max(), 0)

    def test_tokens(self):
        import sentencepiece
        _, out = self.converted("dense")
        ours = sentencepiece.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
        # transformers takes text that spells a special token for that token.
        texts = [*(text.replace("</s>", "") for text in self.texts), "", " ", "  two  spaces\n\n\tand 123 tabs\r\n", " caf\u00e9 \u65e5\u672c \U0001f600", "\n"]
        for use_fast in (True, False):
            theirs = AutoTokenizer.from_pretrained(out, use_fast=use_fast)
            for text in texts:
                self.assertEqual(theirs(text)["input_ids"], [ours.eos_id(), *ours.encode(text)], (use_fast, text[:40]))
                self.assertEqual(theirs(text, add_special_tokens=False)["input_ids"], ours.encode(text), (use_fast, text[:40]))
            self.assertEqual((theirs.bos_token_id, theirs.eos_token_id), (ours.eos_id(), ours.eos_id()))

    def prompt_tokens(self, model, text):
        said = self.succeed("generate", "--checkpoint", model, "--prompt", text, "--max-tokens", "1", "--device", "cpu", "--json")
        return json.loads(said.stdout)["prompt_tokens"]

    def test_what_stands_before_a_prompt_is_what_generate_puts_there(self):
        text = "Once upon a time, 12 caf\u00e9s"
        checkpoint, out = self.converted("dense")
        begun = [(checkpoint, out)]
        # Tokenizers of others, which put nothing, or a token that our shards do not have, before a text.
        fixtures = SOURCE / "tests" / "tokenizers"
        for name, tokenizer in (("own", ["--train-tokenizer", "400", "--kind", "byte-bpe"]), ("gpt2", ["--tokenizer", fixtures / "gpt2.json"]),
                                ("llama3", ["--tokenizer", fixtures / "llama3.json"])):
            data, model, folder = (self.folder / f"{name}-{part}" for part in ("shards", "run", "begun"))
            self.succeed("prepare", "--input", self.folder / "0.txt", *tokenizer, "--heldout", "0", "--out", data)
            self.succeed("train", *set_options([*MODEL, *RUNS["dense"][0], f"data.train={data}/train-*.h5", f"run.dir={model}", "data.seq_len=32"]))
            self.succeed("convert", "--to", "hf", "--checkpoint", model, "--out", folder)
            begun.append((model, folder))
        for model, folder in begun:
            with self.subTest(folder.name):
                ours = self.prompt_tokens(model, text)
                theirs = AutoTokenizer.from_pretrained(folder)
                self.assertEqual(theirs(text)["input_ids"], ours)
                self.assertEqual(self.prompt_tokens(folder, text), ours)
                self.assertEqual((theirs.bos_token_id, load(folder).config.bos_token_id), (ours[0], ours[0]))

    def test_expand_gives_stock_llama_or_the_reason_why_not(self):
        for name in ("vq_published_without_bias", "dense"):
            checkpoint, out = self.converted(name)
            if name != "dense":
                # A constant that is the same for every token: no cluster bias, and clusters that are equally large (400 / 8).
                tensors = safetensors.torch.load_file(out / "model.safetensors")
                tensors["lm_head.cluster_bias"].zero_()
                safetensors.torch.save_file(tensors, out / "model.safetensors", {"format": "pt"})
            expanded = self.folder / f"{name}-expanded"
            self.succeed("convert", "--from", "hf", "--input", out, "--to", "hf", "--out", expanded, "--expand")
            model, ids = load(expanded), self.ids(out)
            self.assertIs(type(model), LlamaForCausalLM)
            self.assertLess(np.abs(log_probs(out, ids, self.folder) - their_log_probs(model, ids)).max(), TOLERANCE)
        for name, reason in (("vq", "no matrix equals"), ("vq_embedding", "no matrix equals"), ("vq_published", "no bias"), ("dense_bias", "no bias")):
            checkpoint = self.trained(name)
            result = run("convert", "--to", "hf", "--checkpoint", checkpoint, "--out", self.folder / "never", "--expand")
            self.assertEqual(result.returncode, 1)
            self.assertIn(reason, error_lines(result)[0])
            self.assertFalse((self.folder / "never").exists())


if __name__ == "__main__":
    unittest.main()
