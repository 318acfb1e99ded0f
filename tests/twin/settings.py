"""The configuration that vqlm wrote: a run's config.toml, which names every key (docs: vqlm train --help)."""

import pathlib
import tomllib
import types


class TwinError(Exception):
    """What a user can mend: one line."""


# What the twin's body and data do not have; vqlm has more.
ONLY = {"model.norm_placement": "pre", "model.qk_norm": "none", "model.attention_bias": False, "model.rope_scaling": "none",
        "data.document_mask": False, "optim.kind": "adamw", "head.members": "embedding", "head.learning": "gradient", "head.z_loss": 0, "head.softcap": 0,
        "head.future": 0, "run.began_from": ""}


class Settings:
    """settings["optim.lr"]; settings.model: what tests/parity/reference_model.py reads of a model."""

    def __init__(self, path, overrides=()):
        self.path = pathlib.Path(path)
        if self.path.is_dir():
            self.path = self.path / "config.toml"
        try:
            sections = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TwinError(f"{self.path}: {error.strerror}; name a folder that vqlm train wrote") from error
        self.keys = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
        for override in overrides:
            self.override(override)
        for key, value in ONLY.items():
            if self.keys.get(key, value) != value:
                raise TwinError(f"{key} = {self.keys[key]!r}: the twin has {value!r} alone")
        if isinstance(self.keys.get("data.mix"), list) or not isinstance(self.keys.get("data.heldout", ""), str):
            raise TwinError("data.mix, data.heldout: the twin reads one source and one held-out set; set data.train and data.heldout")

    def override(self, text):
        key, equals, value = text.partition("=")
        if not equals or key not in self.keys:
            raise TwinError(f"--set {text}: no key of {self.path}")
        kind = type(self.keys[key])
        try:
            self.keys[key] = value == "true" if kind is bool else kind(value)
        except ValueError as error:
            raise TwinError(f"--set {text}: not a {kind.__name__}") from error

    def __getitem__(self, key):
        if key not in self.keys:
            raise TwinError(f"{self.path}: has no {key}; it must be a config.toml that vqlm train wrote")
        return self.keys[key]

    def get(self, key, default):
        return self.keys.get(key, default)

    @property
    def model(self):
        model = {key.removeprefix("model."): value for key, value in self.keys.items() if key.startswith("model.")}
        model.setdefault("window", 0)
        for name in ("window_pattern", "nope_every", "window_rope_theta", "attention_scale"):
            model.setdefault(name, 0)
        model["head_dim"] = model.get("head_width", 0) or model["d_model"] // model["n_heads"]
        return types.SimpleNamespace(**model)
