#!/usr/bin/env python3
"""Compiles the kernels for Hopper and reads what ptxas says of them, which their objects do not: products that it had to
serialise, wgmma fences that it had to add. Results show none of these, and no GPU is needed. Registers and spills are
machine_code_test.py's.

    sm90_code_test.py NVCC ROOT
"""

import pathlib
import re
import subprocess
import sys

REMARK = re.compile(r"\(C75\d\d\).*")  # all that ptxas has to say of wgmma and setmaxnreg


def main(nvcc, root):
    failures = []
    sources = sorted(pathlib.Path(root, "core", "cuda").glob("*_sm90.cu"))
    for source in sources:
        job = subprocess.run([nvcc, "-std=c++20", "-O3", "-gencode", "arch=compute_90a,code=sm_90a", "-I", root,
                              "-Xptxas", "-v", "-cubin", "-o", "/dev/null", str(source)],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if job.returncode != 0:
            failures.append(f"{source.name}: nvcc failed: {job.stdout}")
        failures += [f"{source.name}: {remark[0]}" for remark in REMARK.finditer(job.stdout)]
    if not sources:
        failures.append("no source at all")
    print("\n".join(failures) if failures else f"{len(sources)} files: nothing serialised")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
