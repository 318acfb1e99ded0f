"""Bodies that spend on the rest of the model what a small head saves: the words body=wider and body=deeper of a grid, for
launch/ablation/ablation_rows.py. Both come near to the baseline's number of parameters, the whole model counted.

wider: d_model grows by whole attention heads of the base's size, d_ff in proportion (to multiples of 8); where no such width is
within 2 %, the largest that is not above takes the rest into d_ff.
deeper: n_layers grows.
"""

import bisect
import itertools
import json
import math
import pathlib
import re
import subprocess
import tempfile

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


def toml(settings):
    """{section.key: text} as a configuration file."""
    lines = []
    for section, keys in itertools.groupby(sorted(settings), lambda key: key.partition(".")[0]):
        lines.append(f"[{section}]")
        for key in keys:
            plain = re.fullmatch(r"true|false|[-+]?[0-9][0-9_.eE+-]*", settings[key])
            lines.append(f"{key.partition('.')[2]} = {settings[key] if plain else json.dumps(settings[key])}")
    return "\n".join(lines) + "\n"


def is_of_the_model(key):
    return key.startswith(("model.", "head."))


class Counter:
    """Parameters of whole models, as the program counts those that it would build (`vqlm plan`). What a row says stands over
    the base configuration, whose keys of another kind of head are then passed over."""

    def __init__(self, program, vocab, base):
        self.program = program
        self.vocab = vocab
        self.base = {key: value for key, value in base.items() if is_of_the_model(key)}
        self.counted = {}

    def __call__(self, settings):
        words = [f"--set={key}={value}" for key, value in sorted(settings.items()) if is_of_the_model(key) and self.base.get(key) != value]
        if tuple(words) not in self.counted:
            self.counted[tuple(words)] = self._plan(words)
        return self.counted[tuple(words)]

    def _plan(self, words):
        with tempfile.TemporaryDirectory() as folder:
            plan = pathlib.Path(folder, "plan.json")
            base = pathlib.Path(folder, "base.toml")
            base.write_text(toml(self.base), encoding="utf-8")
            command = [self.program, "plan", f"--config={base}", f"--vocab={self.vocab}", "--dtype=fp32", "--grid=1x1", f"--json={plan}", *words]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise BodyError((result.stderr.strip().splitlines() or [f"{self.program} plan: exit code {result.returncode}"])[-1])
            return int(json.loads(plan.read_text(encoding="utf-8"))["model"]["parameters"])


def divisors(settings):
    """What the head wants a width to be a multiple of."""
    if settings.get("head.kind", "vq") != "vq" or settings.get("head.members", "embedding") != "codes":
        return []
    return [number(settings, "head.groups", 0) or 1]


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


def with_rest_in_d_ff(settings, count, wanted):
    """d_ff, in multiples of 8 and of the tensor ranks, that brings the model nearest to `wanted` parameters."""
    step = math.lcm(8, number(settings, "parallel.tensor", 1) or 1)
    inner, numbers = inner_width(settings), count(settings)
    each = count(settings | {"model.d_ff": str(inner + step)}) - numbers
    return str(max(step, step * round((inner + step * (wanted - numbers) / each) / step)))


def grown(how, settings, baseline, count):
    """The overrides of the body whose model has the number of parameters nearest to the baseline's. `count`: a Counter."""
    wanted = count(baseline)
    bodies = list(GROWN[how](settings))
    if not bodies:
        raise BodyError(f"body={how}: no width that head.groups and parallel.tensor divide")
    # Each body has more parameters than the one before.
    above = bisect.bisect_left(bodies, wanted, key=lambda body: count(settings | body))
    body = min(bodies[max(0, above - 1) : above + 1], key=lambda body: abs(count(settings | body) - wanted))
    if how == "wider" and abs(count(settings | body) / wanted - 1) > 0.02:
        body = bodies[max(0, above - 1)]
        body["model.d_ff"] = with_rest_in_d_ff(settings | body, count, wanted)
    return body
