# A tokenizer's files as the fields of a GGUF file that llama.cpp gives the same ids by. Runs inside `vqlm convert --to gguf`
# together with gguf_writer.py; standard library alone.
import json
import pathlib
import struct

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's and SentencePiece's numbers
WITHOUT = "; --no-tokenizer leaves the tokenizer out: llama.cpp then takes ids alone"

GPT2_BYTES = "ByteLevel"
DIGITS_THEN_BYTES = "Digits, ByteLevel"
QUOTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
THREE_DIGITS = QUOTED + "|" + WORDS + r"|\p{N}{1,3}|" + REST
ONE_DIGIT = QUOTED + "|" + WORDS + r"|\p{N}|" + REST
# OpenAI's spelling of THREE_DIGITS: what its possessive quantifiers forbid cannot match in the other one either.
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + QUOTED + r"?|[^\r\n\p{L}\p{N}]?"
         r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + QUOTED +
         r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# (how words are cut, model.ignore_merges): tokenizer.ggml.pre, of which llama.cpp knows both by heart.
FAMILIES = {
    (GPT2_BYTES, False): "gpt-2",
    (DIGITS_THEN_BYTES, False): "smollm",
    (THREE_DIGITS, True): "llama-bpe",
    (THREE_DIGITS, False): "dbrx",
    (CL100K, False): "dbrx",
    (CL100K.replace(r"[\r\n]|", r"[\r\n]+|"), False): "dbrx",
    (ONE_DIGIT, False): "qwen2",
    (O200K, False): "gpt-4o",
}


class Refused(Exception):
    """What a user can mend, in one line."""


class Vocabulary:
    def __init__(self, model, pre):
        self.model, self.pre = model, pre
        self.tokens, self.scores, self.types = [], [], []
        self.merges = None
        self.special = {}  # unk, pad; bos and eos where the tokenizer's file insists
        self.adds = {"bos": False, "eos": False}
        self.space_prefix = self.extra_whitespaces_removed = None
        self.charsmap = b""
        self.chat_template = None
        self.notes = []

    def append(self, text, score, kind):
        self.tokens.append(text)
        self.scores.append(score)
        self.types.append(kind)

    def put(self, token_id, text, kind):
        """A token that is added to the vocabulary, or takes the place of one of its own."""
        while len(self.tokens) <= token_id:
            self.append(b"[PAD%d]" % len(self.tokens), -10000.0, UNUSED)
        self.tokens[token_id], self.scores[token_id], self.types[token_id] = text, -1000.0, kind


def read_json(file):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refused(f"{file.name}: is no JSON: {error}; copy it again from its model") from error


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    """(number, value) of a protobuf message; value is an int, four or eight bytes, or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            length, at = {1: (8, at), 5: (4, at)}.get(key & 7) or varint(data, at)
            value, at = data[at : at + length], at + length
        yield key >> 3, value


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def added_tokens(folder):
    """(id, text, special, strips) of what the tokenizer's other files add to it."""
    if (folder / "tokenizer.json").exists():
        for token in read_json(folder / "tokenizer.json").get("added_tokens") or []:
            yield token["id"], token["content"], token.get("special", False), token.get("lstrip") or token.get("rstrip")
    elif (folder / "added_tokens.json").exists():
        for text, token_id in read_json(folder / "added_tokens.json").items():
            yield token_id, text, False, False


def sentencepiece_vocabulary(folder):
    """Of tokenizer.model, sentencepiece_model.proto's ModelProto: 1 pieces, 2 trainer_spec, 3 normalizer_spec."""
    pieces, trainer, normalizer = [], {}, {}
    for number, value in fields((folder / "tokenizer.model").read_bytes()):
        if number == 1:
            pieces.append(dict(fields(value)))  # 1 piece, 2 score, 3 type
        elif number == 2:
            trainer = dict(fields(value))
        elif number == 3:
            normalizer = dict(fields(value))
    kind = {1: "unigram", 2: "bpe"}.get(trainer.get(3, 1))
    if kind is None:
        raise Refused(f"tokenizer.model: is a SentencePiece model of words or characters, which llama.cpp does not read{WITHOUT}")
    vocabulary = Vocabulary("llama" if kind == "bpe" else "t5", "default")
    for piece in pieces:
        text, what = piece[1], piece.get(3, NORMAL)
        if what == USER_DEFINED:
            text = text.replace("\u2581".encode(), b" ")  # searched in the text before its spaces are written so
        vocabulary.append(text, struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0, what)
    vocabulary.special = {"unk": signed(trainer.get(40, 0)), "pad": signed(trainer.get(43, (1 << 64) - 1))}
    vocabulary.space_prefix = bool(normalizer.get(3, 1))
    vocabulary.extra_whitespaces_removed = bool(normalizer.get(4, 1))
    vocabulary.charsmap = normalizer.get(2, b"")
    check_sentencepiece(vocabulary, kind, bool(trainer.get(35, 0)), normalizer.get(1, b"").decode())
    for token_id, text, special, _ in added_tokens(folder):
        if token_id >= len(pieces):
            vocabulary.put(token_id, text.encode(), CONTROL if special else USER_DEFINED)
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    vocabulary.adds = {"bos": bool(config.get("add_bos_token", True)), "eos": bool(config.get("add_eos_token", False))}
    return vocabulary


def check_sentencepiece(vocabulary, kind, byte_fallback, rule):
    """What llama.cpp does not do with a SentencePiece model."""
    def refuse(what):
        raise Refused(f"tokenizer.model: {what}, and llama.cpp would give other ids{WITHOUT}")

    if vocabulary.space_prefix and USER_DEFINED in vocabulary.types:
        refuse("add_dummy_prefix and user_defined_symbols stand together")
    if kind == "unigram":
        if byte_fallback:  # a line end, for one
            refuse("unigram writes characters without a piece in bytes (byte_fallback = true)")
        vocabulary.notes.append("of equally probable cuts, as of a run of one character, llama.cpp may choose another one")
        return
    if not byte_fallback:
        refuse("characters without a piece have no bytes (byte_fallback = false)")
    if vocabulary.charsmap:
        refuse(f"normalization_rule_name = {rule} changes the text")
    if vocabulary.extra_whitespaces_removed:
        refuse("remove_extra_whitespaces = true")


def cut_of(file, pre_tokenizer):
    """The pre-tokenizer in the words of FAMILIES; None for one that has no words there."""
    steps = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    kinds = [step.get("type") for step in steps]
    if kinds[-1:] != ["ByteLevel"]:
        raise Refused(f"{file.name}: pre_tokenizer: is not byte-level, and no SentencePiece model lies beside it{WITHOUT}")
    if steps[-1].get("add_prefix_space", True):
        raise Refused(f"{file.name}: pre_tokenizer: add_prefix_space = true, which llama.cpp does not know of byte-level BPE{WITHOUT}")
    by_pattern = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and by_pattern:
        return GPT2_BYTES
    if kinds == ["Digits", "ByteLevel"] and by_pattern and steps[0].get("individual_digits"):
        return DIGITS_THEN_BYTES
    if kinds == ["Split", "ByteLevel"] and not by_pattern:
        return steps[0]["pattern"].get("Regex")
    return None


def template_ends(processor):
    """The special tokens that a TemplateProcessing puts in front of a single text and behind it."""
    ends = {}
    for step in processor.get("processors", [processor]):
        if step.get("type") != "TemplateProcessing":
            continue
        single = step["single"]
        for name, part in (("bos", single[0]), ("eos", single[-1])):
            if "SpecialToken" in part:
                ends[name] = step["special_tokens"][part["SpecialToken"]["id"]]["ids"][0]
    return ends


def byte_level_vocabulary(folder):
    file = folder / "tokenizer.json"
    content = read_json(file)
    model = content["model"]
    if model.get("type", "BPE") != "BPE":
        raise Refused(f"{file.name}: model.type = {model['type']}: of tokenizer.json llama.cpp reads byte-level BPE{WITHOUT}")
    cut = cut_of(file, content.get("pre_tokenizer") or {})
    family = FAMILIES.get((cut, bool(model.get("ignore_merges"))))
    if family is None:
        known = ", ".join(sorted(set(FAMILIES.values())))
        told = json.dumps(content.get("pre_tokenizer"), ensure_ascii=False)
        raise Refused(f"{file.name}: pre_tokenizer {told} with ignore_merges = {bool(model.get('ignore_merges'))} is none of the "
                      f"families that llama.cpp knows by name ({known}){WITHOUT}")
    vocabulary = Vocabulary("gpt2", family)
    for text, token_id in sorted(model["vocab"].items(), key=lambda item: item[1]):
        vocabulary.put(token_id, text.encode(), NORMAL)
    for token_id, text, special, strips in added_tokens(folder):
        vocabulary.put(token_id, text.encode(), CONTROL if special else USER_DEFINED)
        if strips and not special:
            vocabulary.notes.append(f"llama.cpp leaves the white space beside the token {text} (lstrip, rstrip)")
    vocabulary.merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]
                         if not (isinstance(merge, str) and merge.startswith("#version"))]
    if content.get("normalizer"):
        vocabulary.notes.append("llama.cpp does not normalize (NFC): text that is not normalized has other ids there")
    if family == "gpt-4o":
        vocabulary.notes.append("llama.cpp knows the cases of a to z alone and no marks: other letters may have other ids there")
    ends = template_ends(content.get("post_processor") or {})
    vocabulary.special.update(ends)
    vocabulary.adds = {name: name in ends for name in ("bos", "eos")}
    return vocabulary


def read_vocabulary(folder):
    """The folder's tokenizer; Refused where llama.cpp would cut texts in another way."""
    folder = pathlib.Path(folder)
    if (folder / "tokenizer.model").exists():
        vocabulary = sentencepiece_vocabulary(folder)
    elif (folder / "tokenizer.json").exists():
        vocabulary = byte_level_vocabulary(folder)
    else:
        raise Refused(f"the model has no tokenizer.model and no tokenizer.json{WITHOUT}")
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    template = folder / "chat_template.jinja"
    vocabulary.chat_template = template.read_text(encoding="utf-8") if template.exists() else config.get("chat_template")
    return vocabulary
