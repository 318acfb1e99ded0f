"""The cases of make_goldens.py: sizes, kind of head and body of each, one file of golden values a case."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    head: str  # "dense", "vq", "low_rank" or "adaptive"
    bias: int = 1  # dense: lm_head.bias; the VQ head always has its token bias
    tie_embeddings: int = 0
    clusters: int = 0  # K
    groups: int = 0  # G
    codes: int = 0  # Q
    commitment: float = 0.0  # beta_c
    softcap: float = 0.0  # dense: logits x become c tanh(x / c)
    rank: int = 0  # low_rank: of the vocabulary's matrix
    z_loss: float = 0.0  # dense and low_rank: weight of the squared log-sum-exp
    cutoffs: tuple = ()  # adaptive: ranks that the tail bands begin at
    tail_ratio: int = 4  # adaptive
    input_codes: int = 0  # tokens are fed in as their embedding plus a vector of their cluster
    embedding_members: int = 0  # members are scored with the rows of the embedding
    member_mean: int = 0  # a cluster's vector is its code plus the mean of its members'
    vocab_size: int = 37
    d_model: int = 16
    n_layers: int = 2
    n_heads: int = 4
    n_kv_heads: int = 2
    d_ff: int = 24
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    head_width: int = 0  # of a head; 0: d_model / n_heads
    attention_bias: int = 0
    qk_norm: str = "none"
    norm_placement: str = "pre"
    activation: str = "swiglu"
    nope_every: int = 0
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    window: int = 0
    window_pattern: int = 0
    window_rope_theta: float = 0.0
    document_end: int = -1  # the token that ends a document
    tables: tuple = ()  # (order, rows) of each table at the input

    @property
    def head_dim(self):
        return self.head_width or self.d_model // self.n_heads


CASES = [
    Case("dense", "dense", bias=0),
    Case("dense_bias", "dense"),
    Case("dense_tied", "dense", bias=0, tie_embeddings=1),
    Case("vq", "vq", clusters=5, groups=4, codes=3),
    Case("vq_g0", "vq", clusters=5),
    Case("vq_commitment", "vq", clusters=5, groups=4, codes=3, commitment=0.25),
    Case("vq_input_codes", "vq", clusters=5, groups=4, codes=3, input_codes=1),
    Case("vq_embedding", "vq", clusters=5, embedding_members=1),
    Case("zloss", "dense", z_loss=0.05),
    Case("softcap", "dense", softcap=1.5),
    Case("softcap_tied", "dense", bias=0, tie_embeddings=1, softcap=1.0, z_loss=0.05),
    Case("body_qwen", "dense", head_width=6, attention_bias=1, qk_norm="head"),
    Case("body_olmo", "dense", bias=0, qk_norm="width", norm_placement="post"),
    Case("body_gemma", "dense", bias=0, tie_embeddings=1, qk_norm="head", norm_placement="both", activation="geglu",
         embedding_scale=4.0, attention_scale=10.0, window=3, window_pattern=2, window_rope_theta=100.0),
    Case("body_smollm_vq", "vq", clusters=5, groups=4, codes=3, input_codes=1, nope_every=2, qk_norm="width", window=5),
    Case("documents", "dense", bias=0, document_end=29),
    Case("input_tables", "vq", clusters=5, input_codes=1, embedding_members=1, member_mean=1, document_end=29,
         tables=((2, 37), (3, 11))),
    Case("input_tables_tied", "dense", tie_embeddings=1, tables=((2, 7), (2, 7))),
    Case("vq_embedding_mean", "vq", clusters=5, commitment=0.25, embedding_members=1, member_mean=1),
    Case("low_rank", "low_rank", rank=5, z_loss=0.05),
    Case("low_rank_tied", "low_rank", rank=5, tie_embeddings=1),
    Case("adaptive", "adaptive", cutoffs=(6, 15), tail_ratio=3),
    Case("adaptive_plain", "adaptive", bias=0, cutoffs=(4, 9, 20), tail_ratio=2),
]
