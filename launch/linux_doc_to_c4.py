#!/usr/bin/env python3
"""Writes the kernel documentation of the linux-doc package in C4's format: gzip files of one JSON object a line
with "text", "timestamp" and "url". A document is one .rst or .txt file; translations are left out, for C4 is English.

    launch/linux_doc_to_c4.py /usr/share/doc/linux-doc-6.1/Documentation demo/text
"""

import argparse
import datetime
import gzip
import json
import os
import pathlib
import sys

FILES = 4  # enough for four ranks or threads to read at once
SHORTEST = 200  # characters: shorter files are tables of contents


def documents(source: pathlib.Path):
    """(path, text) of every document, in the order of their paths."""
    for path in sorted(source.rglob("*")):
        name = path.name.removesuffix(".gz")
        if not name.endswith((".rst", ".txt")) or not path.is_file():
            continue
        if "translations" in path.relative_to(source).parts:
            continue
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        try:
            text = data.decode("utf-8").strip()
        except UnicodeDecodeError:
            print(f"linux_doc_to_c4: {path}: not UTF-8, left out", file=sys.stderr)
            continue
        if len(text) >= SHORTEST:
            yield path.relative_to(source).with_name(name), path.stat().st_mtime, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help="the Documentation folder")
    parser.add_argument("out", type=pathlib.Path, help="folder for c4-train.*.json.gz")
    arguments = parser.parse_args()
    if not arguments.source.is_dir():
        sys.exit(f"linux_doc_to_c4: {arguments.source}: no such folder; install the package linux-doc")

    arguments.out.mkdir(parents=True, exist_ok=True)
    names = [arguments.out / f"c4-train.{i:05}-of-{FILES:05}.json.gz" for i in range(FILES)]
    temporary = [name.with_suffix(".tmp") for name in names]
    # mtime=0: the same documentation gives the same bytes, so that prepared shards stay valid.
    handles = [gzip.GzipFile(name, "wb", compresslevel=6, mtime=0) for name in temporary]
    count = characters = 0
    for path, modified, text in documents(arguments.source):
        timestamp = datetime.datetime.fromtimestamp(modified, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = {"text": text, "timestamp": timestamp, "url": f"https://docs.kernel.org/{path.with_suffix('.html')}"}
        handles[count % FILES].write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        count += 1
        characters += len(text)
    for handle in handles:
        handle.close()
    if count == 0:
        sys.exit(f"linux_doc_to_c4: {arguments.source}: no .rst or .txt documents in it")
    for before, after in zip(temporary, names):
        os.replace(before, after)
    print(f"linux_doc_to_c4: {count} documents, {characters / 1e6:.1f} million characters in {arguments.out}")


if __name__ == "__main__":
    main()
