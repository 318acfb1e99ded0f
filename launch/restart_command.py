"""The words of a `vqlm train` that launch/restarts.py starts again: its run folder, the keys that its ranks depend on, and
the words that go on after a failure."""

import os
import pathlib
import re


class Refused(Exception):
    """What a user can mend, in one line."""


def keys_of(path):
    """{"section.key": text} of a configuration's lines `key = value`; empty without the file. Enough for numbers and plain
    strings, which is all that is asked of it."""
    found, section = {}, ""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        if head := re.match(r"\s*\[+([\w.]+)\]+", line):
            section = head[1]
        elif entry := re.match(r"""\s*([\w.]+)\s*=\s*("[^"]*"|'[^']*'|[^#]*)""", line):
            found[f"{section}.{entry[1]}".lstrip(".")] = entry[2].strip().strip("\"'")
    return found


class Command:
    def __init__(self, words):
        if "train" not in words[1:]:
            raise Refused(f"--restarts: continues `vqlm train`, and this is {' '.join(words)[:80]}")
        at = words.index("train", 1)
        self.program, self.arguments = words[:at], words[at + 1:]
        named = dict(text.split("=", 1) for text in self.values("--set") if "=" in text)  # the last one of a key wins
        self.named = {key.strip(): value.strip().strip("\"'") for key, value in named.items()}
        self.config = (self.values("--config") or [None])[-1]
        configured = keys_of(os.path.expanduser(self.config)) if self.config else {}
        self.configured = {**configured, **self.named}
        self.run = pathlib.Path(os.path.expanduser(self.configured.get("run.dir", "runs/default")))

    def values(self, option):
        """Of an option in both of its forms, --set A and --set=A."""
        found = [self.arguments[at + 1] for at, word in enumerate(self.arguments[:-1]) if word == option]
        return found + [word[len(option) + 1:] for word in self.arguments if word.startswith(f"{option}=")]

    def keys(self):
        """What the run is configured by: its own config.toml, once it has one."""
        own = keys_of(self.run / "config.toml")
        return {**(own or self.configured), **self.named}

    def grid(self):
        """(ranks of a tensor group, micro-batches of a step over all data ranks). The defaults are the program's."""
        keys = self.keys()
        tensor, batch, micro = (int(keys.get(key, default)) for key, default in
                                (("parallel.tensor", 1), ("train.global_batch", 32), ("train.micro_batch", 8)))
        return max(1, tensor), max(1, batch // max(1, micro))

    def again(self, begun, saved, other_ranks):
        """The words that lose nothing. begun: the failed start reached the run's records, so that what is in the folder is
        this run and no earlier one that --force was to replace; saved: it has a checkpoint; other_ranks: their number is
        not the one that the user asked for."""
        words = list(self.arguments)
        if begun:
            from_model, forked = self.values("--init"), self.values("--resume-from")
            words = without(words, valued=[], flags=["--resume", "--force"])
            if from_model and not saved:
                words.append("--force")  # as docs/checkpoints.md says: --init does not go with --resume
            elif from_model:
                # The model's sizes are in the run's own configuration, perhaps not in the file.
                words = without(words, valued=["--init", "--config"], flags=[]) + ["--set", f"run.dir={self.run}", "--resume"]
            else:
                words.append("--resume" if saved and not forked else "--resume=auto")
        if other_ranks and self.configured.get("parallel.data", "0") != "0":
            words += ["--set", "parallel.data=0"]
        return [*self.program, "train", *words]


def without(words, valued, flags):
    """The words without these options: valued ones with their value, flags also in the form --flag=..."""
    left, skip = [], False
    for word in words:
        name = word.split("=", 1)[0]
        if skip:
            skip = False
        elif name in valued:
            skip = "=" not in word
        elif name not in flags:
            left.append(word)
    return left
