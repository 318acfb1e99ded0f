"""Configuration of models written by `vqlm convert --to hf` that no stock class computes: Llama's, and the output head."""

from transformers import LlamaConfig


class VqlmConfig(LlamaConfig):
    """head_kind "vq": vq_clusters (K), vq_groups (G, 0 for the published VQ-Logits method) and vq_codes (Q),
    or vq_members "embedding" with vq_member_mean;
    head_kind "dense": Llama's matrix, with a bias where head_bias says so, and its logits x as c tanh(x / c) where
    head_softcap is a c;
    head_kind "low_rank": the matrix of rank head_rank, as a product of two;
    head_kind "adaptive": an adaptive softmax, its bands cut at the ranks head_cutoffs, tail band i head_tail_ratio^i times narrower.
    ngram_tables [[order, rows], ...]: tables at the input, of a row for each value of a hash of the last `order` tokens."""

    model_type = "vqlm"

    def __init__(
        self,
        head_kind="dense",
        head_bias=True,
        vq_clusters=None,
        vq_groups=0,
        vq_codes=0,
        vq_map="",
        vq_map_provenance="",
        vq_learning="gradient",
        vq_commitment=0.25,
        vq_ema_decay=0.99,
        vq_members="codes",
        vq_member_mean=False,
        ngram_tables=None,
        head_softcap=None,
        head_rank=None,
        head_cutoffs=None,
        head_tail_ratio=4,
        **kwargs,
    ):
        self.head_kind = head_kind
        self.head_bias = head_bias
        self.vq_clusters = vq_clusters
        self.vq_groups = vq_groups
        self.vq_codes = vq_codes
        self.vq_map = vq_map
        self.vq_map_provenance = vq_map_provenance
        self.vq_learning = vq_learning
        self.vq_commitment = vq_commitment
        self.vq_ema_decay = vq_ema_decay
        self.vq_members = vq_members
        self.vq_member_mean = vq_member_mean
        self.ngram_tables = ngram_tables or []
        self.head_softcap = head_softcap
        self.head_rank = head_rank
        self.head_cutoffs = head_cutoffs or []
        self.head_tail_ratio = head_tail_ratio
        super().__init__(**kwargs)
