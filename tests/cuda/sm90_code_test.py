#!/usr/bin/env python3
"""Compiles the kernels for Hopper and reads what ptxas says of them: products that it had to serialise, wgmma fences that it
had to add, registers that did not fit. Results show none of these, and no GPU is needed.

    sm90_code_test.py NVCC ROOT
"""

import pathlib
import re
import subprocess
import sys

SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REMARK = re.compile(r"\(C75\d\d\).*")  # all that ptxas has to say of wgmma and setmaxnreg


def main(nvcc, root):
    failures, kernels = [], 0
    for source in sorted(pathlib.Path(root, "core", "cuda").glob("*_sm90.cu")):
        job = subprocess.run([nvcc, "-std=c++20", "-O3", "-gencode", "arch=compute_90a,code=sm_90a", "-I", root,
                              "-Xptxas", "-v", "-cubin", "-o", "/dev/null", str(source)],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if job.returncode != 0:
            failures.append(f"{source.name}: nvcc failed: {job.stdout}")
            continue
        failures += [f"{source.name}: {remark[0]}" for remark in REMARK.finditer(job.stdout)]
        for frame in SPILLS.finditer(job.stdout):
            kernels += 1
            if any(int(number) > 0 for number in frame.groups()):
                failures.append(f"{source.name}: {frame[0]}")
    if kernels == 0:
        failures.append("no kernel at all")
    print("\n".join(failures) if failures else f"{kernels} kernels: no spills, nothing serialised")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
