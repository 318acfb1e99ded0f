"""Bodies that spend on the rest of the model what a small head saves: the words body=wider and body=deeper of a grid, for
launch/ablation_rows.py. Both come as near as they can to the baseline's number of parameters, the whole model counted.

wider: d_model grows by whole attention heads of the base's size, d_ff in proportion (to multiples of 8).
deeper: n_layers grows.
"""

NEEDED = ("model.d_model", "model.n_layers", "model.n_heads", "model.d_ff")
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


def head_numbers(settings, vocab):
    """Trained numbers of the output head (docs/heads.md), biases included."""
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
    return matrices + clusters + biases


def model_numbers(settings, vocab):
    """Trained numbers of the whole model: embedding, layers (attention, SwiGLU, two norms), last norm and head."""
    width, layers, heads, inner = (number(settings, key) for key in NEEDED)
    key_values = number(settings, "model.n_kv_heads", 0) or heads
    attention = 2 * width * width + 2 * width * key_values * (width // heads)
    return vocab * width + layers * (attention + 3 * width * inner + 2 * width) + width + head_numbers(settings, vocab)


def wider(settings):
    """Bodies of growing width, each a dict of overrides; sizes that the head or the tensor ranks cannot divide are left out."""
    width, _, heads, inner = (number(settings, key) for key in NEEDED)
    key_values = number(settings, "model.n_kv_heads", 0) or heads
    shared = heads // key_values  # query heads to a key-value head
    groups, rank = number(settings, "head.groups", 0), number(settings, "head.member_rank", 0)
    ranks = number(settings, "parallel.tensor", 1) or 1
    for more in range(heads, MOST * heads + 1, shared):
        d_model = width // heads * more
        d_ff = max(8, 8 * round(inner * d_model / width / 8))
        if any(divisor and size % divisor for size, divisor in ((d_model, groups), (d_model, rank), (more // shared, ranks), (d_ff, ranks))):
            continue
        body = {"model.d_model": str(d_model), "model.n_heads": str(more), "model.d_ff": str(d_ff)}
        yield body | ({"model.n_kv_heads": str(more // shared)} if shared > 1 else {})


def deeper(settings):
    layers = number(settings, "model.n_layers")
    for more in range(layers, MOST * layers + 1):
        yield {"model.n_layers": str(more)}


GROWN = {"wider": wider, "deeper": deeper}


def grown(how, settings, baseline, vocab):
    """The overrides of the body whose model has the number of parameters nearest to the baseline's."""
    wanted = model_numbers(baseline, vocab)
    bodies = list(GROWN[how](settings))
    if not bodies:
        raise BodyError(f"body={how}: no width that head.groups, head.member_rank and parallel.tensor divide")
    return min(bodies, key=lambda body: abs(model_numbers(settings | body, vocab) - wanted))
