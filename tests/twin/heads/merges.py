"""Two levels whose classes come from the tokenizer's BPE merges (after Vennam et al., arXiv 2411.06371), in place of a code map.

A merge joins two pieces into one; the left one is its parent. Tokens in the order of a walk through these trees, children by rank,
are cut into `clusters` blocks of equal size, so that a class is of tokens that begin alike: the program's own way to cut, the paper's
grouping may be another. Members are rows of the embedding, or with own=1 of a matrix (V, d). The rest is heads/vq.py."""

import json

import numpy as np

import heads.vq
import parts
from settings import TwinError


class Head(heads.vq.Head):
    def __init__(self, *context, clusters=128, own=0, mean=1, input_codes=1):
        parts.Head.__init__(self, *context)
        self.bias, self.mean, self.input_codes, self.own = self.settings.get("head.bias", True), bool(mean), bool(input_codes), own
        self.embedding_stddev = parts.first_scores(self.c)
        order = walk(left_parents(self.folder, self.c.vocab_size))
        cluster = np.empty(len(order), dtype=np.int64)
        cluster[order] = np.arange(len(order)) * clusters // len(order)
        self.set_map(cluster)

    def parameters(self):
        own = [parts.Parameter("merges.members", (self.c.vocab_size, self.c.d_model), "head", 0.02)] if self.own else []
        return [*super().parameters(), *own]

    def vectors(self, w):
        return w["merges.members" if self.own else parts.TABLE][self.order]


def walk(parents):
    """Every token once: a root (parent -1), then what began with it, in the order of ids."""
    children = {}
    for token, parent in enumerate(parents):
        children.setdefault(parent, []).append(token)
    order, todo = [], children.get(-1, [])[::-1]
    while todo:
        order.append(todo.pop())
        todo += children.get(order[-1], [])[::-1]
    return order


def left_parents(folder, vocab_size):
    """(V): the id of the left piece of the merge that made a token; -1 where none did."""
    if (folder / "tokenizer.json").exists():
        model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        left = {model["vocab"][a + b]: model["vocab"][a] for a, b in pairs}
    elif (folder / "tokenizer.model").exists():
        left = sentencepiece_parents(folder / "tokenizer.model")
    else:
        raise TwinError(f"{folder}: no tokenizer.json or tokenizer.model; merge classes read the merges beside the shards")
    return [left.get(token, -1) for token in range(vocab_size)]


def sentencepiece_parents(path):
    """A piece's score is minus its merge's rank; the last merge is found by doing the earlier ones."""
    import sentencepiece

    reader = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [reader.id_to_piece(i) for i in range(reader.get_piece_size())]
    score = {piece: reader.get_score(i) for i, piece in enumerate(pieces) if not (reader.is_byte(i) or reader.is_control(i) or reader.is_unknown(i))}
    found = {}
    for token, piece in enumerate(pieces):
        cut = list(piece) if piece in score else []
        while len(cut) > 2:
            joined = [(score.get(a + b, -np.inf), -i) for i, (a, b) in enumerate(zip(cut, cut[1:], strict=False))]
            best, first = max(joined)  # of equals the leftmost
            if best <= score[piece]:  # not made of earlier pieces
                break
            at = -first
            cut[at : at + 2] = [cut[at] + cut[at + 1]]
        if len(cut) == 2 and cut[0] in score:
            found[token] = pieces.index(cut[0])
    return found
