"""Llama with vqlm's output head. The logits are exact: their softmax is p(v | h); those of a VQ head are log-probabilities."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaForCausalLM

from .configuration_vqlm import VqlmConfig


class VqHead(nn.Module):
    """a_j = h . c_j + beta_j over the K clusters; inside the cluster k(v), s_v = sum_g h_g . u_{g, q_g(v)} + b_v,
    or with members "embedding" s_v = h . (v's input embedding) + b_v; with their mean, c_j is the code plus the mean of
    the input embeddings of the cluster's members;
    log p(v | h) = log_softmax(a)_{k(v)} + s_v - logsumexp of s over the cluster."""

    def __init__(self, config):
        super().__init__()
        vocab, width = config.vocab_size, config.hidden_size
        clusters, groups, codes = config.vq_clusters, config.vq_groups, config.vq_codes
        self.groups = groups
        self.by_embedding = config.vq_members == "embedding"
        self.mean = self.by_embedding and config.vq_member_mean
        self.embedding = None  # in a list, set by the model: the input embedding is the model's to move and to save
        self.codebook = nn.Parameter(config.initializer_range * torch.randn(clusters, width))
        self.cluster_bias = nn.Parameter(torch.zeros(clusters))
        self.token_bias = nn.Parameter(torch.zeros(vocab)) if config.head_bias else None
        self.register_buffer("cluster_of_token", torch.zeros(vocab, dtype=torch.int32))
        if groups > 0:
            member_codebook = config.initializer_range * torch.randn(groups, codes, width // groups)
            self.member_codebook = nn.Parameter(member_codebook)
            self.register_buffer("member_codes", torch.zeros(vocab, groups, dtype=torch.uint8))

    def token_scores(self, h):
        """s: (n, V) for h (n, d)."""
        vocab = self.cluster_of_token.shape[0]
        scores = h.new_zeros(h.shape[0], vocab) if self.token_bias is None else self.token_bias.float()
        if self.groups > 0:
            # One table of products per group, looked up by every token's sub-code.
            tables = torch.einsum(
                "ngw,gqw->gnq", h.view(h.shape[0], self.groups, -1), self.member_codebook.float()
            )
            for table, codes in zip(tables, self.member_codes.long().t()):
                scores = scores + table[:, codes]
        if self.by_embedding:
            scores = scores + h @ self.embedding[0].weight.float().t()
        return scores.expand(h.shape[0], vocab)

    def cluster_vectors(self, clusters):
        """(K, d)."""
        codes = self.codebook.float()
        if not self.mean:
            return codes
        sums = torch.zeros_like(codes).index_add(0, clusters, self.embedding[0].weight.float())
        return codes + sums / torch.bincount(clusters, minlength=codes.shape[0])[:, None]

    def forward(self, hidden_states):
        h = hidden_states.reshape(-1, hidden_states.shape[-1]).float()
        clusters = self.cluster_of_token.long()
        vectors = self.cluster_vectors(clusters)
        cluster_log_probs = F.log_softmax(F.linear(h, vectors, self.cluster_bias.float()), dim=-1)
        scores = self.token_scores(h)
        # logsumexp over each cluster's members, shifted by their largest score.
        highest = torch.full_like(cluster_log_probs, float("-inf"))
        highest = highest.scatter_reduce(1, clusters.expand_as(scores), scores.detach(), "amax")
        sums = torch.zeros_like(cluster_log_probs).index_add(1, clusters, (scores - highest[:, clusters]).exp())
        log_probs = (cluster_log_probs - highest - sums.log())[:, clusters] + scores
        return log_probs.view(*hidden_states.shape[:-1], -1)


class LowRankHead(nn.Linear):
    """logits = U (A h) + b, U (V, r), A (r, d)."""

    def __init__(self, config):
        super().__init__(config.head_rank, config.vocab_size, bias=config.head_bias)
        self.projection = nn.Linear(config.hidden_size, config.head_rank, bias=False)

    def forward(self, hidden_states):
        return super().forward(self.projection(hidden_states))


class VqlmForCausalLM(LlamaForCausalLM):
    config_class = VqlmConfig

    def __init__(self, config):
        super().__init__(config)
        if config.head_kind == "vq":
            self.lm_head = VqHead(config)
            self.lm_head.embedding = [self.model.embed_tokens]
        elif config.head_kind == "low_rank":
            self.lm_head = LowRankHead(config)
        else:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.head_bias)
        self.post_init()

    def set_input_embeddings(self, value):
        super().set_input_embeddings(value)
        if self.config.head_kind == "vq":
            self.lm_head.embedding = [value]

    def get_output_embeddings(self):
        return self.lm_head if self.config.head_kind == "dense" else None
