"""Checkpoints made wrong on purpose, with hashes that are right: a broken restore that nothing but the comparison of losses can
notice. From docs/checkpoints.md alone, not by the program's own code."""

import ctypes
import json
import re

xxhash = ctypes.CDLL("libxxhash.so.0")  # a library of the program
xxhash.XXH3_64bits.restype = ctypes.c_uint64
xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def xxh3(data):
    return f"{xxhash.XXH3_64bits(data, len(data)):016x}"


def write_manifest(checkpoint, **counts):
    """manifest.json again, with every file as it is now and other counts where given."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest.update(counts)
    for entry in manifest["files"]:
        data = (checkpoint / entry["name"]).read_bytes()
        entry.update(bytes=len(data), xxh3=xxh3(data))
    del manifest["manifest_xxh3"]
    text = json.dumps(manifest, indent=1).removesuffix("\n}")
    path.write_text(f'{text},\n "manifest_xxh3": "{xxh3(text.encode())}"\n}}\n', encoding="utf-8")


def stale_cursor(checkpoint, samples):
    """The samples of the last step come once more."""
    manifest = json.loads((checkpoint / "manifest.json").read_bytes())
    write_manifest(checkpoint, samples=manifest["samples"] - samples)


def exchange(checkpoint, partner):
    """The contents of slice A become those of slice partner(A), for every A for which partner gives a name."""
    for table_path in sorted(checkpoint.glob("rank-*.json")):
        table = json.loads(table_path.read_bytes())
        path = checkpoint / table["file"]
        before = path.read_bytes()
        after = bytearray(before)
        slices = {entry["dataset"]: entry for entry in table["slices"]}
        for name, entry in slices.items():
            source = slices.get(partner(name) or name)
            if source is None or source["count"] != entry["count"]:
                continue
            size = 4  # float32
            for extent in entry["count"]:
                size *= extent
            values = before[source["first_byte"]:source["first_byte"] + size]
            after[entry["first_byte"]:entry["first_byte"] + size] = values
            entry["xxh3"] = xxh3(values)
        path.write_bytes(after)
        table["xxh3"] = xxh3(bytes(after))
        table_path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    write_manifest(checkpoint)


def other_moment(name):
    """m for v and v for m."""
    if match := re.fullmatch(r"optimizer\.([mv])\.(.*)", name):
        return f"optimizer.{'v' if match[1] == 'm' else 'm'}.{match[2]}"
    return None


def second_moment(name):
    """v also where m should be. (v holds no negative numbers, so that nothing becomes NaN.)"""
    return other_moment(name) if name.startswith("optimizer.m.") else None


def other_layer(name):
    """The second moments of one layer's matrices in the other layer and the other way round."""
    if match := re.fullmatch(r"(optimizer\.v\.model\.layers\.)([01])(\..*)", name):
        return f"{match[1]}{1 - int(match[2])}{match[3]}"
    return None


def other_seed(checkpoint, before, after):
    """As if the run had begun with another seed: its random generators and its order of samples are keyed by it."""
    path = checkpoint / "config.toml"
    text = path.read_text(encoding="utf-8")
    changed = re.sub(rf"(?m)^seed = {before}$", f"seed = {after}", text)
    assert changed != text, text
    path.write_text(changed, encoding="utf-8")
    write_manifest(checkpoint)
