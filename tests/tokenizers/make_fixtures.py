#!/usr/bin/env python3
"""Writes tests/tokenizers/FAMILY.json, small byte-level BPE tokenizers with the pre-tokenizers of well-known families, and
goldens.json: what PyPI's `tokenizers` makes of odd texts with them. tests/data/byte_level_bpe_test.cpp asks the C++ program
for the same ids.

    pip install tokenizers==0.22.2
    tests/tokenizers/make_fixtures.py          # --out FOLDER writes elsewhere, to compare
"""

import argparse
import hashlib
import json
import pathlib

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)"
          r"|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXT = """The weather today isn't what we'd hoped for; it's raining, and they've said that it'll rain until 2024.
She said: "I'm here, you're there, we don't know." Thousands of people (about 12,345) walked to the river in 1999.
    def tokenize(self, text: str) -> list[int]:
        return [token.id for token in self.model.encode(text)]  # comment
Der Fluß fließt über die Brücke, während die Kinder größere Äpfel suchen. Où êtes-vous allés, mon cœur? ¿Qué pasó mañana?
Погода сегодня хорошая, а завтра будет дождь. Ο καιρός σήμερα είναι καλός. 今天天气很好，我们去公园散步。今日は天気がいいです。
오늘 날씨가 정말 좋습니다. الطقس اليوم جميل جدا. מזג האוויר היום יפה מאוד. आज मौसम बहुत अच्छा है। วันนี้อากาศดีมาก
The weather of the river was better than the weather of the town, and the people there were walking and talking.
"""


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def template(token, number):
    return processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B",
                                                              special_tokens=[(token, number)])])


# family: (normalizer, pre-tokenizer, special tokens, other added tokens)
FAMILIES = {
    "gpt2": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), [AddedToken("<|endoftext|>", normalized=True)], []),
    "roberta": (None, pre_tokenizers.ByteLevel(add_prefix_space=True),
                ["<s>", "</s>", AddedToken("<mask>", lstrip=True)], []),
    "llama3": (None, split(LLAMA3), ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], []),
    "qwen2": (normalizers.NFC(), split(QWEN2), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
              [AddedToken("<tool_call>", normalized=False), AddedToken("na\u00efve\u212b", normalized=True)]),
    "smollm2": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False)]),
                ["<|endoftext|>", "<|im_start|>"], []),
    "cl100k": (normalizers.Sequence([normalizers.NFC()]), split(CL100K), ["<|endoftext|>"],
               [AddedToken("  ", normalized=True), AddedToken("    ", normalized=True),
                AddedToken("[X]", lstrip=True, rstrip=True, normalized=False), AddedToken("[XY]", rstrip=True)]),
    "o200k": (None, split(O200K), ["<|endoftext|>"], []),
    "digit_runs": (None, pre_tokenizers.Sequence([pre_tokenizers.Split("ab.", "isolated"),
                                                  pre_tokenizers.Digits(individual_digits=False),
                                                  pre_tokenizers.ByteLevel(add_prefix_space=True)]), ["</s>"], []),
}


def train(family):
    normalizer, pre_tokenizer, special, added = FAMILIES[family]
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    # Llama-3's family has its special tokens behind the vocabulary, others in front.
    in_front = [] if family == "llama3" else special
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=in_front, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    if family == "llama3":
        whole = json.loads(tokenizer.to_str())
        # Words that no merge makes.
        for word in ["\u0120unreachable", "!!?", "\u0120\u0120\u0120\u0120\u0120"]:
            whole["model"]["vocab"][word] = len(whole["model"]["vocab"])
        whole["model"]["ignore_merges"] = True
        tokenizer = Tokenizer.from_str(json.dumps(whole))
        tokenizer.add_special_tokens(special)
        tokenizer.post_processor = template("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    tokenizer.add_tokens(added)
    return tokenizer


def texts():
    """Odd texts; no lone surrogates, which are no UTF-8."""
    words = ["don't", "DON'T", "I'LL", "we'Ve", "it\u2019s", "'\u017f", "'K", "'\u212a", "x'dy", "''s", "'lL'rE'M", "ab.cab."]
    yield " ".join(words)
    yield "".join(words)
    yield TEXT
    yield TEXT.replace(" ", "\u00a0")
    yield ""
    yield " "
    yield " " * 10_000
    yield " " * 3_000 + "a"
    yield "a" * 4_000
    yield "\n" * 301 + "\r\n" * 40 + " \n \r \r\n\n\r x\n\n  y\r\r z \n"
    yield "\t \t\tx\t\ty \u000b\u000c \u0085\u0085a \u2028b\u2029 c\u202f\u205f\u3000d\u1680e\u180ef \u200bg\ufeffh\u2060"
    yield "1234567 12 1a2b 3.14159 1,000,000 \u0661\u0662\u0663 \u216b\u2460\u00bd\u00b2 x1 \u0967\u0968 10\u2075"
    yield "".join(chr(c) for c in range(1, 0x180))
    yield "\U0001F469\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466 \U0001F3F3\uFE0F\u200D\U0001F308 \U0001F1E9\U0001F1EA 👍🏽 #️⃣"
    yield "e\u0301 \u0301e o\u0308\u0304 \u1112\u1161\u11ab \uac00\u11a8 q\u0323\u0307 q\u0307\u0323 \u212b \u1e9b\u0323 \u0344 \ufb01 \u2126"
    yield "\u0391\u0301 \u0418\u0306 \u09c7\u09be \u0f71\u0f72\u0f74\u0f80 \u0b47\u0b56 \u110b\u1175x\u302a\u05b0\u05b1\u05c1\u0591"
    yield "na\u00efve\u212b nai\u0308ve\u00c5 na\u00efve\u00c5. naiveA <tool_call>e\u0301</tool_call>"
    yield "x  <mask>y \u00a0<mask> <mask>  <s></s> <<s>> a [X] [X][XY]  \n[XY] [X Y]  [X]\u3000b[X]"
    yield "<|endoftext|>a<|endoftext|> b <|end_of_text|><|begin_of_text|>c <|im_start|>user\n<|im_end|> <|endoftext|"
    yield "unreachable unreachable! !!? !!?!      a\u2581b  \u2581"
    yield "HTTPServer getElementById XMLHttpRequest's \u01c5\u02b0\u0301Ab \u00aa\u00ba \u0130\u0131 STRASSE stra\u00dfe//\r\n/x/"
    yield "\u0000\u0001\u001b[0m\u007f\u0080\u009f\u00ad\ufffe\uffff\U0010ffff\ue000\U000e0001 \u0378\u0379 \U0001f8ff"
    yield "\u1c89\ua7cb\U00010d40\U00010d41 \U00011de0\U00016ff4x \U0002ebf0\U00031350 \u0897\u1ac1 a\U0001e4ec\u0316 \U000105d2\u0307"


def code_points(block):
    """A text of the 0x4000 code points from block * 0x4000 on: each alone, beside a letter, a digit, a space and a mark."""
    points = [chr(c) for c in range(block * 0x4000, (block + 1) * 0x4000) if not 0xD800 <= c <= 0xDFFF]
    return "".join(points) + "".join(c + "a" + c + "1" + c + " " + c + "\u0316" for c in points)


def digest(ids):
    return hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    out = parser.parse_args().out
    goldens = {"made_by": f"tests/tokenizers/make_fixtures.py, tokenizers {tokenizers.__version__}", "texts": list(texts()),
               "families": {}}
    for family in FAMILIES:
        tokenizer = train(family)
        (out / f"{family}.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
        encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in goldens["texts"]]
        # Long lists as their digests.
        goldens["families"][family] = {
            "vocab_size": tokenizer.get_vocab_size(),
            "ids": [ids if len(ids) <= 150 else {"count": len(ids), "sha256": digest(ids)} for ids in encoded],
            "decoded": hashlib.sha256("".join(tokenizer.decode(ids) for ids in encoded).encode()).hexdigest()[:16],
            "blocks": [digest(tokenizer.encode(code_points(b), add_special_tokens=False).ids) for b in range(68)],
        }
    text = json.dumps(goldens, ensure_ascii=True, separators=(",", ":"))
    text = text.replace(" " * 10_000, "@10000 spaces@").replace(" " * 3_000, "@3000 spaces@").replace("a" * 4_000, "@4000 a@")
    (out / "goldens.json").write_text(text.replace('],"', '],\n"') + "\n", encoding="utf-8")


main()
