"""The model in PyTorch, written from the Llama definition and the VQ head's formulas: what make_goldens.py runs.

c is a Case of cases.py (sizes and the kind of head), w its weights by Hugging Face name.
Notation: B batch, T sequence, N = B*T tokens, d width, V vocabulary, K clusters, G groups, Q codes per group.
"""

import math

import torch
import torch.nn.functional as F


# ---- the decoder ---------------------------------------------------------------------------------------------------


def rmsnorm(x, gain, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * gain


def rope(x, theta):
    """x (B, T, heads, head_dim): pair (i, i + head_dim/2) is a complex number, turned by t * theta^(-2i/head_dim)."""
    half = x.shape[-1] // 2
    t = torch.arange(x.shape[1], dtype=x.dtype)
    frequency = theta ** (-2 * torch.arange(half, dtype=x.dtype) / x.shape[-1])
    angle = torch.outer(t, frequency)[:, None, :]  # (T, 1, half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)


def last_of(layer, pattern):
    return pattern != 0 and (layer + 1) % pattern == 0


def projected(x, w, name, c, heads):
    """(B, T, heads, head_dim) of q, k or v, with its bias and its norm over a head or the whole width."""
    y = x @ w[f"{name}_proj.weight"].T
    if f"{name}_proj.bias" in w:
        y = y + w[f"{name}_proj.bias"]
    if c.qk_norm == "width" and name != "v":
        y = rmsnorm(y, w[f"{name}_norm.weight"], c.norm_eps)
    y = y.view(*x.shape[:2], heads, c.head_dim)
    return rmsnorm(y, w[f"{name}_norm.weight"], c.norm_eps) if c.qk_norm == "head" and name != "v" else y


def other_documents(ids, end):
    """(B, T, T): query t and key j are of different documents; one ends with its token `end`."""
    number = torch.cumsum(ids == end, 1) - (ids == end).to(torch.int64)
    return number[:, :, None] != number[:, None, :]


def attention(x, w, c, layer, others):
    """Causal, grouped-query: query head h reads key/value head h // (n_heads / n_kv_heads)."""
    t = x.shape[1]
    q, k, v = (projected(x, w, name, c, c.n_heads if name == "q" else c.n_kv_heads) for name in "qkv")
    window = 0 if last_of(layer, c.window_pattern) else c.window
    if not last_of(layer, c.nope_every):
        theta = c.window_rope_theta if window and c.window_rope_theta else c.rope_theta
        q, k = rope(q, theta), rope(k, theta)
    hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
    if window:
        hidden |= torch.ones(t, t, dtype=torch.bool).tril(-window)
    if others is not None:
        hidden = hidden | others
    heads = []
    for h in range(c.n_heads):
        kv = h // (c.n_heads // c.n_kv_heads)
        scores = q[:, :, h] @ k[:, :, kv].transpose(1, 2) / math.sqrt(c.attention_scale or c.head_dim)  # (B, T, T)
        heads.append(torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ v[:, :, kv])
    return torch.cat(heads, -1) @ w["o_proj.weight"].T


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def mlp(x, w, c):
    gate, up = x @ w["gate_proj.weight"].T, x @ w["up_proj.weight"].T
    gate = gelu_tanh(gate) if c.activation == "geglu" else gate * torch.sigmoid(gate)
    return (gate * up) @ w["down_proj.weight"].T


def block(x, layer, c, i, others):
    """Norms have Hugging Face's names: Llama's, OLMo 2's or Gemma 3's."""
    norm = lambda y, name: rmsnorm(y, layer[name + "layernorm.weight"], c.norm_eps)
    attend = lambda y: attention(y, below(layer, "self_attn."), c, i, others)
    feed = lambda y: mlp(y, below(layer, "mlp."), c)
    if c.norm_placement == "pre":
        x = x + attend(norm(x, "input_"))
        return x + feed(norm(x, "post_attention_"))
    if c.norm_placement == "post":
        x = x + norm(attend(x), "post_attention_")
        return x + norm(feed(x), "post_feedforward_")
    x = x + norm(attend(norm(x, "input_")), "post_attention_")
    return x + norm(feed(norm(x, "pre_feedforward_")), "post_feedforward_")


def below(w, prefix):
    return {name[len(prefix) :]: x for name, x in w.items() if name.startswith(prefix)}


def ngram_row(ids, number, rows):
    """The row of table `number` for an n-gram, oldest id first, as docs/inputs.md defines it."""
    h = number + 1
    for token in ids:
        h = (h ^ token) * 0x9E3779B97F4A7C15 % 2 ** 64
        h ^= h >> 32
    return (h >> 33) % rows


def input_tables(ids, w, c):
    """(B, T, d): the sum of the tables' rows; nothing reaches over the beginning of a sequence or a masked document."""
    sums = []
    for sequence in ids.tolist():
        begin = 0
        for t, token in enumerate(sequence):
            row = torch.zeros_like(w["model.embed_tokens.weight"][0])
            for number, (order, rows) in enumerate(c.tables):
                first = t - order + 1
                if first >= begin:
                    of = ngram_row(sequence[first : t + 1], number, rows)
                    row = row + w[f"model.ngram_tables.{number}.weight"][of]
            sums.append(row)
            if token == c.document_end:
                begin = t + 1
    return torch.stack(sums).view(*ids.shape, -1)


def decoder(ids, w, c, cluster_of_token):
    """ids (B, T) -> the head's input h (N, d), the output of the final norm."""
    table = w["model.embed_tokens.weight"]
    if c.rank and c.tie_embeddings:  # the whole one, (V, d)
        table = table @ w["lm_head.projection.weight"]
    x = table[ids] * c.embedding_scale
    if c.tables:
        x = x + input_tables(ids, w, c)
    if c.input_codes:
        x = x + w["vq_head.input_codebook"][cluster_of_token[ids]]
    others = other_documents(ids, c.document_end) if c.document_end >= 0 else None
    for i in range(c.n_layers):
        x = block(x, below(w, f"model.layers.{i}."), c, i, others)
    return rmsnorm(x, w["model.norm.weight"], c.norm_eps).reshape(-1, c.d_model)


# ---- the heads -----------------------------------------------------------------------------------------------------


def dense_logits(h, w, c):
    matrix = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    if "lm_head.projection.weight" in w:  # the whole one, (V, d)
        matrix = matrix @ w["lm_head.projection.weight"]
    logits = h @ matrix.T
    if "lm_head.bias" in w:
        logits = logits + w["lm_head.bias"]
    return c.softcap * torch.tanh(logits / c.softcap) if c.softcap > 0 else logits


def cluster_vectors(c, cluster_of_token, w):
    """(K, d): the codes, or these and the means of what h scores their members with."""
    rows = list(w["vq_head.codebook"])
    if c.member_mean:
        vectors = w["model.embed_tokens.weight"]
        rows = [row + vectors[cluster_of_token == k].mean(0) for k, row in enumerate(rows)]
    return torch.stack(rows)


def vq_nll(h, targets, c, cluster_of_token, codes, w):
    """(N): lse_j(a_j) - a_k(y) + lse_{w in k(y)}(s_w) - s_y, one token at a time as the formula reads."""
    a = h @ cluster_vectors(c, cluster_of_token, w).T + w["vq_head.cluster_bias"]  # (N, K)
    out = []
    for n, y in enumerate(targets.tolist()):
        k = cluster_of_token[y]
        members = (cluster_of_token == k).nonzero()[:, 0]
        s = w["vq_head.token_bias"][members]
        if "vq_head.member_codebook" in w:
            u = w["vq_head.member_codebook"]  # (G, Q, d/G)
            vectors = torch.cat([u[g, codes[members, g]] for g in range(u.shape[0])], -1)  # (members, d)
            s = s + vectors @ h[n]
        if c.embedding_members:
            s = s + w["model.embed_tokens.weight"][members] @ h[n]
        own = (members == y).nonzero()[0, 0]
        out.append(torch.logsumexp(a[n], 0) - a[n, k] + torch.logsumexp(s, 0) - s[own])
    return torch.stack(out)


def band_ends(c):
    return [*c.cutoffs, c.vocab_size]


def tail_width(c, band):
    return max(1, c.d_model // c.tail_ratio ** band)


def adaptive_scores(h, w, prefix):
    z = h @ w[prefix + "projection.weight"].T if prefix + "projection.weight" in w else h
    scores = z @ w[prefix + "weight"].T
    return scores + w[prefix + "bias"] if prefix + "bias" in w else scores


def adaptive_nll(h, targets, c, band_of_token, w):
    """(N): -log p(word or band | h), and for a member of a tail band -log p(member | band, h), one token at a time (arXiv
    1609.04309)."""
    words = band_ends(c)[0]
    out = []
    for n, y in enumerate(targets.tolist()):
        band = int(band_of_token[y])
        own = int((band_of_token[:y] == band).sum())  # classes stand by rising id
        first = adaptive_scores(h[n], w, "lm_head.")
        cost = torch.logsumexp(first, 0) - first[words + band - 1 if band else own]
        if band:
            members = adaptive_scores(h[n], w, f"lm_head.tails.{band - 1}.")
            cost = cost + torch.logsumexp(members, 0) - members[own]
        out.append(cost)
    return torch.stack(out)


def adaptive_log_probs(h, c, band_of_token, w):
    """(N, V) as a product of explicit probabilities, all of a band at once."""
    softmax = lambda x: torch.exp(x) / torch.exp(x).sum(-1, keepdim=True)
    first = softmax(adaptive_scores(h, w, "lm_head."))
    words = band_ends(c)[0]
    p = torch.zeros(h.shape[0], c.vocab_size, dtype=h.dtype)
    p[:, band_of_token == 0] = first[:, :words]
    for band in range(1, len(band_ends(c))):
        inside = softmax(adaptive_scores(h, w, f"lm_head.tails.{band - 1}."))
        p[:, band_of_token == band] = first[:, words + band - 1 : words + band] * inside
    return torch.log(p)


def adaptive_by_torch(h, c, band_of_token, w):
    """(N, V) by PyTorch's own module, which has no biases in the tails."""
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(c.d_model, c.vocab_size, list(c.cutoffs), float(c.tail_ratio)).to(h.dtype)
    module.head.weight.data = w["lm_head.weight"].data
    for i, (projection, members) in enumerate(module.tail):
        assert projection.weight.shape == w[f"lm_head.tails.{i}.projection.weight"].shape
        projection.weight.data = w[f"lm_head.tails.{i}.projection.weight"].data
        members.weight.data = w[f"lm_head.tails.{i}.weight"].data
    by_band = torch.argsort(band_of_token, stable=True)
    return module.log_prob(h)[:, torch.argsort(by_band)]


def log_probs(h, c, cluster_of_token, codes, w):
    """(N, V): the whole distribution as explicit probabilities, by another road than vq_nll: the members' scores from
    look-up tables h_g . u_{g,q}, the cluster sums by a (V, K) membership matrix."""
    if c.head == "adaptive":
        return adaptive_log_probs(h, c, cluster_of_token, w)
    if c.head != "vq":
        e = torch.exp(dense_logits(h, w, c))
        return torch.log(e / e.sum(-1, keepdim=True))
    s = w["vq_head.token_bias"].expand(h.shape[0], -1)
    for g in range(c.groups):
        u = w["vq_head.member_codebook"][g]  # (Q, d/G)
        table = h.view(-1, c.groups, u.shape[1])[:, g] @ u.T  # (N, Q)
        s = s + table[:, codes[:, g]]
    if c.embedding_members:
        for j in range(c.d_model):  # coordinate by coordinate
            s = s + h[:, j : j + 1] * w["model.embed_tokens.weight"][:, j]
    member_of = F.one_hot(cluster_of_token, c.clusters).to(h.dtype)  # (V, K)
    e = torch.exp(s)
    inside = e / (e @ member_of @ member_of.T)
    a = h @ w["vq_head.codebook"].T + w["vq_head.cluster_bias"]  # (N, K)
    if c.member_mean:  # h . mean = mean of h . u
        products = h @ w["model.embed_tokens.weight"].T  # (N, V)
        a = a + products @ member_of / member_of.sum(0)
    code = torch.exp(a)
    return torch.log((code / code.sum(-1, keepdim=True))[:, cluster_of_token] * inside)


def loss_and_penalty(h, targets, c, cluster_of_token, codes, w):
    """Means over the batch's tokens; what is minimised is their sum."""
    if c.head == "adaptive":
        return adaptive_nll(h, targets, c, cluster_of_token, w).mean(), torch.zeros((), dtype=h.dtype)
    if c.head != "vq":
        logits = dense_logits(h, w, c)
        return F.cross_entropy(logits, targets), c.z_loss * (torch.logsumexp(logits, -1) ** 2).mean()
    nll = vq_nll(h, targets, c, cluster_of_token, codes, w).mean()
    # Stop-gradient on the code: the hidden state is pulled to it, not it to the hidden state (arXiv 1711.00937).
    c_y = cluster_vectors(c, cluster_of_token, w).detach()[cluster_of_token[targets]]
    return nll, c.commitment * ((h - c_y) ** 2).sum(-1).mean() / c.d_model
