"""Llama with vqlm's output head and its tables at the input. The logits are exact: their softmax is p(v | h); those of a VQ head
or an adaptive one are log-probabilities."""

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


def ngram_rows(ids, table, order, rows):
    """(B, T): the row of table number `table` for the last `order` of ids (B, T), negative where there is no token; -1 where
    one of them is missing. The arithmetic is modulo 2^64."""
    length = ids.shape[1]
    hashes = torch.full_like(ids, table + 1)
    whole = torch.ones_like(ids, dtype=torch.bool)
    for back in range(order - 1, -1, -1):
        earlier = F.pad(ids, (back, 0), value=-1)[:, :length]
        whole = whole & (earlier >= 0)
        hashes = (hashes ^ earlier) * -0x61C8864680B583EB  # 0x9E3779B97F4A7C15
        hashes = hashes ^ ((hashes >> 32) & 0xFFFFFFFF)
    return torch.where(whole, ((hashes >> 33) & 0x7FFFFFFF) % rows, -1)


class CappedLinear(nn.Linear):
    """c tanh(x / c) of the matrix' logits x."""

    softcap = None  # c, set by the model

    def forward(self, hidden_states):
        return self.softcap * torch.tanh(super().forward(hidden_states) / self.softcap)


class LowRankHead(nn.Linear):
    """logits = U (A h) + b, U (V, r), A (r, d)."""

    def __init__(self, config):
        super().__init__(config.head_rank, config.vocab_size, bias=config.head_bias)
        self.projection = nn.Linear(config.hidden_size, config.head_rank, bias=False)

    def forward(self, hidden_states):
        return super().forward(self.projection(hidden_states))


class TailBand(nn.Linear):
    """The scores of a band's members, W (A h) + b."""

    def __init__(self, config, members, width):
        super().__init__(width, members, bias=config.head_bias)
        self.projection = nn.Linear(config.hidden_size, width, bias=False)

    def forward(self, hidden_states):
        return super().forward(self.projection(hidden_states))


class AdaptiveHead(nn.Linear):
    """The classes are band 0's tokens, then one for each tail band; the members of a band are told apart by a softmax of its own.
    A band's tokens stand by rising id: log p(v | h) = log_softmax(W h + b)_band + log_softmax(W_i A_i h + b_i)_v."""

    def __init__(self, config):
        ends = [*config.head_cutoffs, config.vocab_size]
        super().__init__(config.hidden_size, ends[0] + len(ends) - 1, bias=config.head_bias)
        self.words = ends[0]
        widths = [max(1, config.hidden_size // config.head_tail_ratio ** (i + 1)) for i in range(len(ends) - 1)]
        bands = zip(ends, ends[1:], widths)
        self.tails = nn.ModuleList([TailBand(config, end - begin, width) for begin, end, width in bands])
        self.register_buffer("cluster_of_token", torch.zeros(config.vocab_size, dtype=torch.int32))

    def forward(self, hidden_states):
        head = F.log_softmax(super().forward(hidden_states).float(), dim=-1)
        parts = [head[..., : self.words]]
        for i, tail in enumerate(self.tails):
            of_band = head[..., self.words + i : self.words + i + 1]
            parts.append(of_band + F.log_softmax(tail(hidden_states).float(), dim=-1))
        by_band = torch.argsort(self.cluster_of_token.long(), stable=True)
        return torch.cat(parts, dim=-1)[..., torch.argsort(by_band)]


class VqlmForCausalLM(LlamaForCausalLM):
    config_class = VqlmConfig

    def __init__(self, config):
        super().__init__(config)
        if config.ngram_tables:
            tables = [nn.Embedding(rows, config.hidden_size) for _, rows in config.ngram_tables]
            self.model.ngram_tables = nn.ModuleList(tables)
        if config.head_kind == "vq":
            self.lm_head = VqHead(config)
            self.lm_head.embedding = [self.model.embed_tokens]
        elif config.head_kind == "low_rank":
            self.lm_head = LowRankHead(config)
        elif config.head_kind == "adaptive":
            self.lm_head = AdaptiveHead(config)
        else:
            linear = CappedLinear if config.head_softcap else nn.Linear
            self.lm_head = linear(config.hidden_size, config.vocab_size, bias=config.head_bias)
            self.lm_head.softcap = config.head_softcap
        self.post_init()

    def input_vectors(self, input_ids, attention_mask):
        """The embedding and the tables' rows; tokens that the mask hides are none."""
        vectors = self.model.embed_tokens(input_ids)
        ids = input_ids.long()
        if attention_mask is not None and attention_mask.dim() == 2:
            ids = ids.masked_fill(attention_mask[:, -ids.shape[1] :] == 0, -1)
        for number, (order, rows) in enumerate(self.config.ngram_tables):
            row = ngram_rows(ids, number, order, rows)
            vectors = vectors + self.model.ngram_tables[number](row.clamp(min=0)) * (row >= 0).unsqueeze(-1)
        return vectors

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, **kwargs
    ):
        if self.config.ngram_tables:
            if input_ids is None or inputs_embeds is not None:
                raise ValueError("tables at the input are chosen by input_ids, and inputs_embeds do not say them")
            past = past_key_values
            if past is not None and (past.get_seq_length() if hasattr(past, "get_seq_length") else len(past)) > 0:
                raise ValueError("tables at the input need all tokens before, which a cache does not keep")
            inputs_embeds = self.input_vectors(input_ids, attention_mask)
            input_ids = None
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **kwargs):
        if not self.config.ngram_tables:
            return super().prepare_inputs_for_generation(input_ids, attention_mask=attention_mask, **kwargs)
        if kwargs.get("inputs_embeds") is not None:
            raise ValueError("tables at the input are chosen by input_ids, and inputs_embeds do not say them")
        # The whole text in every step.
        positions = None if attention_mask is None else (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": positions, "use_cache": False}

    def set_input_embeddings(self, value):
        super().set_input_embeddings(value)
        if self.config.head_kind == "vq":
            self.lm_head.embedding = [value]

    def get_output_embeddings(self):
        return self.lm_head if self.config.head_kind == "dense" else None
