"""Bodies that spend on the rest of the model what a small head saves: the words body=wider and body=deeper of a grid, for
launch/ablation/ablation_rows.py. Both come near to the baseline's number of parameters, the whole model counted.

wider: d_model grows by whole attention heads of the base's size, d_ff in proportion (to multiples of 8); where no such width is
within 2 %, the largest that is not above takes the rest into d_ff.
deeper: n_layers grows.
"""

import math

MOST = 64  # times as wide or as deep: no head saves more


class BodyError(Exception):
    """Why no body can be made, in one line."""


def number(settings, key, otherwise=None):
    try:
        return int(settings[key])
    except KeyError:
        if otherwise is None:
            raise BodyError(f"body= needs {key} in the base configuration or on the line") from None
        return otherwise
    except ValueError:
        raise BodyError(f"{key}={settings[key]}: body= needs a number") from None


def inner_width(settings):
    """d_ff, and what the program makes of 0."""
    width = number(settings, "model.d_model")
    return number(settings, "model.d_ff") or (8 * width // 3 + 63) // 64 * 64


def heads_of(settings):
    """Query heads, and how many of them share a key-value head."""
    heads = number(settings, "model.n_heads")
    key_values = number(settings, "model.n_kv_heads", 0) or heads
    if heads % key_values or number(settings, "model.d_model") % heads:
        raise BodyError(f"model.n_heads={heads} does not divide model.d_model, or model.n_kv_heads={key_values} not model.n_heads")
    return heads, heads // key_values


def head_numbers(settings, vocab):
    """Trained numbers of the output head (docs/heads.md), biases and input codes included."""
    width = number(settings, "model.d_model")
    biases = vocab if settings.get("head.bias", "true") == "true" else 0
    if settings.get("head.kind") == "dense":
        return biases + (0 if settings.get("model.tie_embeddings") == "true" else vocab * width)
    clusters = number(settings, "head.clusters")
    matrices = clusters * width
    if settings.get("head.members") == "embedding":
        rank = number(settings, "head.member_rank", 0) or width
        matrices += width * rank if rank < width else 0
    elif settings.get("head.groups") != "0":
        matrices += number(settings, "head.codes") * width
    if settings.get("head.input_codes") == "true":
        matrices += clusters * width
    return matrices + clusters + biases


def model_numbers(settings, vocab):
    """Trained numbers of the whole model: embedding, layers (attention, SwiGLU, two norms), last norm and head."""
    width, layers = (number(settings, key) for key in ("model.d_model", "model.n_layers"))
    heads, shared = heads_of(settings)
    attention = 2 * width * width + 2 * width * (heads // shared) * (width // heads)
    layer = attention + 3 * width * inner_width(settings) + 2 * width
    return vocab * width + layers * layer + width + head_numbers(settings, vocab)


def divisors(settings):
    """What the head wants a width to be a multiple of."""
    if settings.get("head.kind") == "dense":
        return []
    key = "head.member_rank" if settings.get("head.members") == "embedding" else "head.groups"
    return [number(settings, key, 0) or 1]


def wider(settings):
    """Bodies of growing width, each a dict of overrides; sizes that the head or the tensor ranks cannot divide are left out."""
    width, inner = number(settings, "model.d_model"), inner_width(settings)
    heads, shared = heads_of(settings)
    ranks = number(settings, "parallel.tensor", 1) or 1
    for more in range(heads, MOST * heads + 1, shared):
        d_model = width // heads * more
        d_ff = max(8, 8 * round(inner * d_model / width / 8))
        if any(d_model % divisor for divisor in divisors(settings)) or more // shared % ranks or d_ff % ranks:
            continue
        body = {"model.d_model": str(d_model), "model.n_heads": str(more), "model.d_ff": str(d_ff)}
        yield body | ({"model.n_kv_heads": str(more // shared)} if number(settings, "model.n_kv_heads", 0) else {})


def deeper(settings):
    layers = number(settings, "model.n_layers")
    for more in range(layers, MOST * layers + 1):
        yield {"model.n_layers": str(more)}


GROWN = {"wider": wider, "deeper": deeper}


def with_rest_in_d_ff(settings, vocab, wanted):
    """d_ff, in multiples of 8 and of the tensor ranks, that brings the model nearest to `wanted` parameters."""
    ranks = number(settings, "parallel.tensor", 1) or 1
    step = math.lcm(8, ranks)
    each = 3 * number(settings, "model.d_model") * number(settings, "model.n_layers") * step
    missing = wanted - model_numbers(settings, vocab)
    return str(max(step, step * round((inner_width(settings) + step * missing / each) / step)))


def grown(how, settings, baseline, vocab):
    """The overrides of the body whose model has the number of parameters nearest to the baseline's."""
    wanted = model_numbers(baseline, vocab)
    bodies = list(GROWN[how](settings))
    if not bodies:
        raise BodyError(f"body={how}: no width that head.groups or head.member_rank and parallel.tensor divide")
    body = min(bodies, key=lambda body: abs(model_numbers(settings | body, vocab) - wanted))
    if how == "wider" and abs(model_numbers(settings | body, vocab) / wanted - 1) > 0.02:
        body = max((b for b in bodies if model_numbers(settings | b, vocab) <= wanted), default=bodies[0], key=lambda b: int(b["model.d_model"]))
        body["model.d_ff"] = with_rest_in_d_ff(settings | body, vocab, wanted)
    return body
