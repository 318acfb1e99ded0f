"""`vqlm score` against transformers on the exported folder: sums, greedy choice, windows of a whole text."""

import itertools
import json
import unittest

from interop import load, np, their_log_probs
from trained import Trained
from transformers import AutoTokenizer

LENGTH = 64  # data.seq_len of MODEL


def windows(tokens, beginning):
    """What lm-evaluation-harness makes of a whole text: (context, scored tokens), with as much context as there is room for."""
    for begin in range(0, len(tokens), LENGTH):
        scored = tokens[begin : begin + LENGTH]
        before = [beginning, *tokens[:begin]]
        yield before[-(LENGTH + 1 - len(scored)) :], scored


class Score(Trained):
    def questions(self):
        """Contexts and continuations of many lengths, one of them too long, one empty, one that ends in spaces."""
        words = self.texts[0].split()
        for number, begin in enumerate(range(0, 400, 7)):
            continuation = " ".join(words[begin + 40 : begin + 41 + number % 5])
            yield " ".join(words[begin : begin + number % 30 + 1]), " " + continuation[:LENGTH // 2]
        yield " ".join(words[:200]), " " + words[200]
        yield "", words[7]
        yield words[8] + "  ", words[9]
        yield words[8] + " \n\n", words[9]
        yield words[10] + "\u3000\u00a0", words[11]

    def expected(self, model, context, continuation):
        """The sum and whether greedy decoding says the same, as lm-evaluation-harness's Hugging Face model computes them."""
        ids = (context + continuation)[-(LENGTH + 1) :]
        rows = their_log_probs(model, [ids[:-1]])[0][-len(continuation) :]
        return float(rows[np.arange(len(continuation)), continuation].sum()), rows.argmax(-1).tolist() == list(continuation)

    def test_scores_are_those_of_the_exported_folder(self):
        for name in ("dense", "vq_embedding_mean", "vq"):
            with self.subTest(name):
                checkpoint, out = self.trained(name), self.folder / f"{name}-hf"
                self.succeed("convert", "--to", "hf", "--checkpoint", checkpoint, "--out", out)
                tokenizer, model = AutoTokenizer.from_pretrained(out), load(out)
                beginning = tokenizer.eos_token_id

                def encode(text, tokenizer=tokenizer):
                    return tokenizer(text, add_special_tokens=False)["input_ids"]

                lines, expected = [], []
                for context, continuation in self.questions():
                    lines.append({"context": context, "continuation": continuation})
                    stripped = context.rstrip()
                    continuation = context[len(stripped) :] + continuation
                    before = encode(stripped) if stripped else []
                    expected.append(self.expected(model, before or [beginning], encode(stripped + continuation)[len(before) :]))
                lines.append({"text": self.texts[1][:2000]})
                parts = [self.expected(model, *window) for window in windows(encode(self.texts[1][:2000]), beginning)]
                expected.append((sum(score for score, _ in parts), all(greedy for _, greedy in parts)))

                for begin in (0, 5):  # what greedy decoding says next
                    before = encode(self.texts[2])[begin : begin + 12]
                    best = int(their_log_probs(model, [before])[0][-1].argmax())
                    lines.append({"context_tokens": before, "continuation_tokens": [best]})
                    expected.append(self.expected(model, before, [best]))

                asked = self.folder / f"{name}.jsonl"
                asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
                answers = {}
                for ranks in (0, 3):
                    told = self.folder / f"{name}-{ranks}.jsonl"
                    self.succeed("score", "--checkpoint", checkpoint, "--input", asked, "--out", told, "--device", "cpu", ranks=ranks)
                    answers[ranks] = [json.loads(line) for line in told.read_text().splitlines()]
                self.assertEqual(answers[0], answers[3])
                worst = max(abs(answer["logprob"] - score) / len(answer["tokens"]) for answer, (score, _) in zip(answers[0], expected, strict=True))
                print(f"{name}: {len(lines)} lines, largest difference {worst:.2g} a token")
                self.assertLess(worst, 4e-6)
                self.assertEqual([answer["greedy"] for answer in answers[0]], [greedy for _, greedy in expected])
                self.assertEqual({greedy for _, greedy in expected}, {True, False})
                for answer in itertools.islice(answers[0], 5):
                    self.assertAlmostEqual(sum(answer["logprobs"]), answer["logprob"])


if __name__ == "__main__":
    unittest.main()
