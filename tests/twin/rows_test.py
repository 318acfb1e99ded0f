"""Rows of the twin that this program does not have: each is a distribution over the vocabulary, its loss is what the distribution
says, it starts as the unigram model where h = 0, and does what its formula says."""

import json
import pathlib
import sys
import tempfile
import types
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "interop")]

from interop import np, torch  # noqa: E402  goes on in the environment of tests/interop/setup.sh, or skips
import h5py  # noqa: E402
import sentencepiece  # noqa: E402

import parts  # noqa: E402
from heads.merges import left_parents, sentencepiece_parents, walk  # noqa: E402
from inputs.ngram import table_rows  # noqa: E402
from probes.share import shares  # noqa: E402
from settings import TwinError  # noqa: E402
from twin import made  # noqa: E402

V, D, N = 40, 8, 12
C = types.SimpleNamespace(vocab_size=V, d_model=D, embedding_scale=1.0)
COUNTS = np.random.default_rng(1).permutation(np.arange(V)) ** 2
UNIGRAM = torch.from_numpy(parts.log_unigram(COUNTS))


class Nothing(dict):
    """A configuration that says nothing."""

    path = pathlib.Path("/nowhere/config.toml")


class Rows(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)

    def head(self, text):
        head = made("heads", text, C, COUNTS, Nothing(), self.folder)
        w = {p.name: p.start(3).double().requires_grad_() for p in [*head.table(), *head.parameters()]}
        return head, w

    def given(self):
        rng = np.random.default_rng(2)
        return torch.from_numpy(rng.normal(size=(N, D))), torch.from_numpy(rng.integers(0, V, N))

    def check_head(self, text, unigram=True):
        """Of the row as it starts, and of one whose weights are large."""
        head, w = self.head(text)
        h, targets = self.given()
        if unigram:
            told = head.log_probs(torch.zeros_like(h), w)[0]
            torch.testing.assert_close(told, UNIGRAM, rtol=0, atol=1e-6)
        for name, x in w.items():
            with torch.no_grad():
                x += torch.from_numpy(np.random.default_rng(len(name)).normal(size=x.shape)) * 0.5
        log_probs = head.log_probs(h, w)
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(N, dtype=h.dtype), rtol=0, atol=1e-12)
        nll = head.nll(h, targets, w)
        torch.testing.assert_close(nll, -log_probs.gather(1, targets[:, None])[:, 0], rtol=0, atol=1e-12)
        nll.sum().backward()
        for name, x in w.items():
            if name not in (parts.TABLE, "vq_head.input_codebook"):
                self.assertGreater(float(x.grad.abs().max()), 0, (text, name))
        return head, w, log_probs

    def test_lowrank(self):
        head, w, log_probs = self.check_head("lowrank:rank=3")
        logits = self.given()[0] @ (w["lm_head.weight"] @ w["lm_head.projection.weight"]).T + w["lm_head.bias"]
        torch.testing.assert_close(log_probs, torch.log_softmax(logits, -1))

    def test_dense_and_tied(self):
        self.check_head("dense")
        self.check_head("tied")

    def test_vq(self):
        path = self.folder / "map.h5"
        with h5py.File(path, "w") as file:
            file["cluster_of_token"] = np.arange(V, dtype=np.int32) ** 2 % 7 // 2  # 3 clusters
        for parts_of_head in ("", ",mean=0,input_codes=0"):
            self.check_head(f"vq:map={path}{parts_of_head}")

    def test_adaptive(self):
        for text in ("adaptive:cuts=5/15,div=2", "adaptive:cuts=5/15,div=2,tied=1", "adaptive"):
            head, w, log_probs = self.check_head(text)
        head, w, log_probs = self.check_head("adaptive:cuts=5/15,div=2")
        theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(D, V, [5, 15], 2.0, head_bias=True).double()  # its tails have no biases
        with torch.no_grad():
            w["lm_head.tails.0.bias"].zero_(), w["lm_head.tails.1.bias"].zero_()
            theirs.head.weight.copy_(w["lm_head.weight"])
            theirs.head.bias.copy_(w["lm_head.bias"])
            for i, tail in enumerate(theirs.tail):
                tail[0].weight.copy_(w[f"lm_head.tails.{i}.projection.weight"])
                tail[1].weight.copy_(w[f"lm_head.tails.{i}.weight"])
            h, targets = self.given()
            rank = head.rank
            torch.testing.assert_close(head.log_probs(h, w), theirs.log_prob(h)[:, rank])
            torch.testing.assert_close(head.nll(h, targets, w), -theirs(h, rank[targets]).output)
        self.assertEqual(sorted(COUNTS[head.order.numpy()[:5]].tolist()), sorted(COUNTS.tolist())[-5:])

    def test_adaptive_input(self):
        """tied=1: a token goes in by the vector that scores it, and the table is gone."""
        head, w, _ = self.check_head("adaptive:cuts=5/15,div=2,tied=1")
        self.assertNotIn(parts.TABLE, w)
        vectors = head.embed(torch.arange(V)[None], w)[0]
        rare = int(head.order[20])
        torch.testing.assert_close(vectors[rare], w["lm_head.tails.1.weight"][5] @ w["lm_head.tails.1.projection.weight"])
        torch.testing.assert_close(vectors[int(head.order[3])], w["lm_head.weight"][3])
        scores = self.given()[0] @ vectors[head.order[15:]].T + w["lm_head.tails.1.bias"]
        torch.testing.assert_close(head.inside(2, self.given()[0], w), torch.log_softmax(scores, -1))

    def test_merges(self):
        vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "bc": 5, "aba": 6} | {f"<{i}>": i for i in range(7, V)}
        merges = ["a b", ["ab", "c"], "b c", "ab a"]
        (self.folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab, "merges": merges}}))
        parents = left_parents(self.folder, V)
        self.assertEqual(parents[:7], [-1, -1, -1, 0, 3, 1, 3])
        self.assertEqual(walk(parents)[:7], [0, 3, 4, 6, 1, 5, 2])
        head, w, _ = self.check_head("merges:clusters=10")
        self.assertEqual(head.cluster[:7].tolist(), [0, 1, 1, 0, 0, 1, 0])  # blocks of four: a ab abc aba | b bc c ...
        self.assertEqual(head.sizes.tolist(), [4] * 10)
        self.check_head("merges:clusters=7,own=1,input_codes=0")
        (self.folder / "tokenizer.json").unlink()
        with self.assertRaisesRegex(TwinError, "no tokenizer.json"):
            self.head("merges:clusters=10")

    def test_merges_of_sentencepiece(self):
        text = self.folder / "text.txt"
        text.write_text("abab abc abab abcd abab abc bc bc d\n" * 50)
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(self.folder / "small"), vocab_size=16, model_type="bpe",
                                                 hard_vocab_limit=False, minloglevel=2)
        path = self.folder / "small.model"
        reader = sentencepiece.SentencePieceProcessor(model_file=str(path))
        found = {reader.id_to_piece(token): reader.id_to_piece(parent) for token, parent in sentencepiece_parents(path).items()}
        self.assertEqual([found[piece] for piece in ("ab", "\u2581ab", "\u2581abc", "\u2581abab")], ["a", "\u2581", "\u2581ab", "\u2581ab"])
        self.assertTrue(all(piece.startswith(parent) and piece != parent for piece, parent in found.items()))

    def test_mixture(self):
        for text in ("mixture", "mixture:mixtures=3,tied=1"):
            self.check_head(text)
        head, w = self.head("mixture:mixtures=1")
        log_probs = head.log_probs(self.given()[0], w)
        h = torch.tanh(self.given()[0] @ w["mixture.projections"].T)
        torch.testing.assert_close(log_probs, torch.log_softmax(head.logits(h, w), -1))

    def test_share_of_the_gradient(self):
        """Of a dense head in closed form; all of it where h has as many numbers as softmax tells apart."""
        head, w = self.head("dense")
        h, y = self.given()[0][0], 3
        inside, whole = shares(head, h, y, w)
        g = torch.softmax(head.logits(h[None], w)[0], -1).detach()
        g[y] -= 1
        columns = w["lm_head.weight"].detach() - w["lm_head.weight"].detach().mean(0)
        told = columns @ torch.linalg.solve(columns.T @ columns, columns.T @ g)  # least squares
        self.assertAlmostEqual(inside, float(told.square().sum()), places=9)
        self.assertAlmostEqual(whole, float(g.square().sum()), places=9)
        self.assertLess(inside, 0.9 * whole)
        wide = types.SimpleNamespace(vocab_size=V, d_model=V - 1, embedding_scale=1.0)
        head = made("heads", "dense", wide, COUNTS, Nothing(), self.folder)
        w = {p.name: p.start(3).double() for p in head.parameters()}
        inside, whole = shares(head, torch.ones(V - 1), y, w)
        self.assertAlmostEqual(inside, whole, places=9)

    def test_ngram(self):
        ids = torch.tensor([[1, 2, 3, 1, 2, 1], [7, 1, 2, 3, 1, 2]])
        pairs = table_rows(ids, 0, 2, 1 << 30)
        self.assertEqual(pairs[0, 1], pairs[0, 4])
        self.assertEqual(pairs[0, 1], pairs[1, 2])
        self.assertEqual(len(set(pairs.flatten().tolist())), 6)  # 12 23 31 21 71, and none
        self.assertEqual(pairs[:, 0].tolist(), [-1, -1])
        self.assertNotEqual(pairs[0, 1], table_rows(ids, 1, 2, 1 << 30)[0, 1])
        triples = table_rows(ids, 0, 3, 1 << 30)
        self.assertEqual(triples[0, 2], triples[1, 3])
        self.assertNotEqual(triples[0, 3], triples[0, 4])
        table = made("inputs", "ngram:rows=64,order=3,number=1,stddev=0", C, COUNTS)
        w = {p.name: p.start(3).double() for p in table.parameters()}
        self.assertEqual(list(w), ["model.ngram_tables.1.weight"])
        x = torch.ones(2, 6, D, dtype=torch.float64)
        torch.testing.assert_close(table.apply(x, ids, w), x)
        w["model.ngram_tables.1.weight"] += torch.arange(64.0)[:, None]
        torch.testing.assert_close(table.apply(x, ids, w)[:, :, 0], 1 + table_rows(ids, 1, 3, 64).clamp(min=0).double())

    def test_scaled(self):
        x = torch.ones(1, 2, D, requires_grad=True)
        y = made("inputs", "scaled:factor=3", C, COUNTS).apply(x, None, None)
        y.sum().backward()
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(x.grad, torch.full_like(x, 3))

    def test_refusals(self):
        for text, words in {"denser": "not one of", "lowrank:width=3": "unexpected keyword"}.items():
            with self.assertRaisesRegex(TwinError, words):
                self.head(text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
