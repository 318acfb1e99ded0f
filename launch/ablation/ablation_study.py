"""What a study's folder holds, as numbers: for launch/ablation/ablation_tables.py."""

import json
import math
import pathlib
import statistics
import tomllib


class Row:
    """One head with one seed, trained and evaluated."""

    def __init__(self, folder, name, seed):
        self.name = name
        self.seed = seed
        with open(folder / "run" / "config.toml", "rb") as file:
            self.config = tomllib.load(file)
        self.inside = json.loads((folder / "eval-in.json").read_text())
        if "model" not in self.inside:
            raise ValueError(f"{folder / 'eval-in.json'} is of an older vqlm: remove it, and the same command evaluates again")
        jobs = folder / "jobs.txt"
        self.jobs = int(jobs.read_text()) if jobs.exists() else 1
        outside = folder / "eval-ood.json"
        self.outside = json.loads(outside.read_text()) if outside.exists() else None
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "tokens_per_second" in line]
        self.tokens_per_second = statistics.median(line["tokens_per_second"] for line in steps)
        seconds = sorted(line["seconds"] for line in steps if line.get("seconds") is not None)
        self.steps = max(line["step"] for line in steps)
        self.seconds_a_step_p10 = seconds[len(seconds) // 10] if seconds else None
        self.head_seconds = statistics.median(line["seconds_head"] for line in steps)
        # {tokens trained on: held-out loss}; a resumed run may say it twice.
        self.curve = {line["tokens"]: line["heldout_loss"] for line in lines if line.get("heldout_loss") is not None}

    @property
    def head(self):
        return self.inside["head"]

    @property
    def model(self):
        return self.inside["model"]

    @property
    def tied(self):
        return self.config["model"].get("tie_embeddings", False)


class Study:
    """rows: {name: {seed: Row}} of those that are done, in the grid's order; others: {id: status}."""

    def __init__(self, folder, heads):
        self.baseline = next(name for name, head in heads.items() if head.baseline)
        self.rows = {name: {} for name in heads}
        self.others = {}
        places = {name: place for place, name in enumerate(heads)}
        for path in sorted(pathlib.Path(folder, "rows").glob("*-s*")):
            name, _, seed = path.name.rpartition("-s")
            if name not in places:
                continue
            status = path / "status"
            said = status.read_text().strip() if status.exists() else "begun"
            if said == "done":
                self.rows[name][int(seed)] = Row(path, name, int(seed))
            else:
                self.others[path.name] = said
        self.others = dict(sorted(self.others.items(), key=lambda item: places[item[0].rpartition("-s")[0]]))
        self.rows = {name: dict(sorted(seeds.items())) for name, seeds in self.rows.items() if seeds}

    def against_baseline(self, name, value):
        """[ratio - 1] for each seed that the baseline has too: of value(row) to value(the baseline's row with that seed), where
        both are numbers."""
        found = []
        for seed, row in self.rows[name].items():
            base = self.rows.get(self.baseline, {}).get(seed)
            if base is None:
                continue
            ours, theirs = value(row), value(base)
            if ours is not None and theirs is not None:
                found.append(ours / theirs - 1)
        return found

    def values(self, name, value):
        return [number for number in map(value, self.rows[name].values()) if number is not None]

    def quarters(self):
        """Tokens trained on at 1/4, 1/2, 3/4 and the end: of the evaluations while training, the nearest ones."""
        curves = [row.curve for seeds in self.rows.values() for row in seeds.values() if row.curve]
        if not curves:
            return []
        longest = max(curves, key=max)
        wanted = [max(longest) * part / 4 for part in (1, 2, 3, 4)]
        return list(dict.fromkeys(min(longest, key=lambda tokens: abs(tokens - want)) for want in wanted))


def perplexity(evaluation):
    return None if evaluation is None or evaluation["nll"] is None else evaluation["perplexity"]


def inside(row):
    return perplexity(row.inside)


def outside(row):
    return perplexity(row.outside)


def bits_per_byte(evaluation):
    return None if evaluation is None else evaluation.get("bits_per_byte")


def part(name):
    return lambda row: row.inside.get("parts", {}).get(name)


def of_map(name):
    return lambda row: row.inside.get("code_map", {}).get(name)


def of_band(index, key="perplexity"):
    def value(row):
        bands = row.inside.get("bands", [])
        return bands[index].get(key) if index < len(bands) else None

    return value


def while_training(tokens):
    def value(row):
        return math.exp(row.curve[tokens]) if tokens in row.curve else None

    return value
