#!/usr/bin/env python3
"""Compiles kernels that move 8 bf16 at a time to PTX and looks for 16 bytes of global memory that nvcc cut up: accesses
of 4 bytes at one address and 4, 8 and 12 bytes behind it, four times the instructions and, over a warp, four times the
passes over the same lines. No GPU is needed, and results do not show it.

    vector_access_test.py NVCC ROOT
"""

import pathlib
import re
import subprocess
import sys
import tempfile

# Loads and stores in bulk; with branches around them (cross_entropy); through shared memory (attention).
FILES = ["swiglu", "cross_entropy", "attention_forward"]
ENTRY = re.compile(r"\.entry (\w+)")
# Whole numbers of 4 bytes: kernels that do read single floats are none of this test's business.
ACCESS = re.compile(r"\b(ld|st)\.global\.(?:\w+\.)*?(?:[usb]32|v2\.[usb]16)\s.*\[(%rd\d+)(?:\+(-?\d+))?\]")


def pieces(ptx):
    """{(kernel, load or store, address register): offsets of its accesses of 4 bytes}"""
    found, kernel = {}, ""
    for line in ptx.splitlines():
        entry = ENTRY.search(line)
        if entry:
            kernel = entry[1]
        access = ACCESS.search(line)
        if access and ".v4." not in line:
            found.setdefault((kernel, access[1], access[2]), set()).add(int(access[3] or 0))
    return found


def cut_up(ptx):
    return [place for place, offsets in pieces(ptx).items()
            if any({at, at + 4, at + 8, at + 12} <= offsets for at in offsets)]


def main(nvcc, root):
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = {}
        for name in FILES:
            out = pathlib.Path(folder) / f"{name}.ptx"
            jobs[name] = out, subprocess.Popen([nvcc, "-std=c++20", "-arch=compute_80", "-I", root, "-ptx", "-o", out,
                                                pathlib.Path(root) / "core" / "cuda" / f"{name}.cu"])
        for name, (out, job) in jobs.items():
            if job.wait() != 0:
                failures.append(f"{name}.cu: nvcc failed")
                continue
            ptx = out.read_text()
            # What attention reads it reads by asynchronous copies.
            for access in ["st"] if name.startswith("attention") else ["ld", "st"]:
                if f"{access}.global.v4." not in ptx:
                    failures.append(f"{name}.cu: no {access}.global of 16 bytes at all")
            failures += [f"{name}.cu: 16 bytes in four accesses: {access} by {register} in {kernel}"
                         for kernel, access, register in cut_up(ptx)]
    print("\n".join(failures) if failures else "all 16-byte accesses are whole")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
