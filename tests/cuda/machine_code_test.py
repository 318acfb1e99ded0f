#!/usr/bin/env python3
"""Holds what nvcc made of the kernels against a table that is committed (machine_code/nvcc-VERSION.txt), and against rules
that hold whatever the table says: no kernel spills, RMSNorm asks for a whole row before it computes with it, and kernels that
promise to wait for earlier ones (GridDependency) do so on sm_90a before they touch global memory, on every path. Another
version of nvcc than a table's makes other code, rightly: then the test says so and is skipped (exit code 77).

    machine_code_test.py --nvcc NVCC [--tools FOLDER] [--write] OBJECT...    objects of nvcc, of the build
    machine_code_test.py --self-test

--write makes the table anew from objects for all of its architectures. What a change of the table means is its reader's to
judge: fewer warps at once, a 16-byte access that became four, tensor instructions that went missing.
"""

import argparse
import pathlib
import sys
import time

import machine_code as code

TABLES = pathlib.Path(__file__).resolve().parent / "machine_code"
HEADER = ("# What nvcc makes of core/cuda: registers a thread, bytes of shared memory, of stack, blocks and warps at once on a\n"
          "# multiprocessor (computed for the launch in machine_code.py), tensor instructions, accesses to global memory of 16\n"
          "# bytes and of other sizes, accesses to local memory. Written by tests/cuda/machine_code_test.py --write.\n")
# Accesses to local memory that are there: most a kernel may have, and why. One that has none any more leaves the list.
SINCOS = "the slow path of sincosf, for angles that no position has"
ONE_SPILL = "one register of 255, once"
LOCAL_MEMORY = {
    ("sm_80", "rope_kernel<1>"): (5, SINCOS), ("sm_80", "rope_kernel<8>"): (5, SINCOS),
    ("sm_90a", "rope_kernel<1>"): (5, SINCOS), ("sm_90a", "rope_kernel<8>"): (5, SINCOS),
    ("sm_80", "key_gradient_kernel<64, true>"): (2, ONE_SPILL), ("sm_80", "key_gradient_kernel<128, true>"): (2, ONE_SPILL),
    ("sm_90a", "key_gradient_kernel<64, true>"): (2, ONE_SPILL),
    ("sm_90a", "key_gradient_kernel<128, true>"): (2, ONE_SPILL),
    ("sm_80", "decode_kernel<64, 2>"): (2, ONE_SPILL), ("sm_80", "decode_kernel<128, 2>"): (2, ONE_SPILL),
    ("sm_90a", "attention_forward_kernel<128, true>"): (42, "documents' masks beside 128 columns: to be mended"),
}


def line_of(kernel):
    return "  ".join(f"{field}" if name == "name" else f"{name} {field}" if isinstance(field, int) else field
                     for name, field in zip(kernel._fields, kernel))


def key_of(line):
    return tuple(line.split("  ")[:3])


def broken_rules(kernels):
    """What is wrong whatever the table says; kernels: [(Kernel, instructions, problems of its wait)]"""
    failures = []
    for kernel, ops, wait_problems in kernels:
        where = f"{kernel.arch} {kernel.file} {kernel.name}"
        failures += [f"{where}: {problem}" for problem in wait_problems]
        most, _ = LOCAL_MEMORY.get((kernel.arch, kernel.name), (0, ""))
        if kernel.local > most or (kernel.stack and not most):
            failures.append(f"{where}: {kernel.stack} bytes of stack, {kernel.local} accesses to local memory: it spills")
        if most and not kernel.local:
            failures.append(f"{where}: no longer uses local memory: take it out of LOCAL_MEMORY")
        if kernel.name.startswith(("rmsnorm_forward_kernel<", "rmsnorm_backward_kernel<")):
            failures += [f"{where}: {problem}" for problem in late_loads(ops)]
    return failures


def late_loads(ops):
    """Of a kernel that is to load a row before it computes: loads behind the first product behind the first 16-byte load."""
    first = next((i for i, op in enumerate(ops) if op.startswith("LDG") and ".128" in op), None)
    if first is None:
        return ["no load of 16 bytes"]
    product = next((i for i in range(first, len(ops)) if ops[i].startswith(("FFMA", "FMUL"))), len(ops))
    late = sum(op.startswith("LDG") for op in ops[product:])
    return [f"{late} loads of global memory come after the row's first product"] if late else []


def differences(lines, table, archs):
    """Between the lines of these objects and the table's for their architectures."""
    found, expected = ({key_of(line): line for line in some if key_of(line)[0] in archs} for some in (lines, table))
    failures = [f"not in the table: {found[key]}" for key in found.keys() - expected.keys()]
    failures += [f"only in the table: {expected[key]}" for key in expected.keys() - found.keys()]
    for key in found.keys() & expected.keys():
        if found[key] == expected[key]:
            continue
        was, now = (dict(part.rsplit(" ", 1) for part in line.split("  ")[3:]) for line in (expected[key], found[key]))
        changed = ", ".join(f"{name} {was[name]} -> {now[name]}" for name in now if was.get(name) != now[name])
        failures.append(f"{' '.join(key)}: {changed}")
    return sorted(failures)


def check(options):
    begin = time.monotonic()
    version = code.toolkit(options.nvcc)
    path = TABLES / f"nvcc-{version}.txt"
    if not options.write and not path.exists():
        others = ", ".join(sorted(p.stem for p in TABLES.glob("*.txt")))
        raise code.Missing(f"{options.nvcc} is of CUDA {version}, and the tables are of {others}; --write makes one")
    objects = sorted(o for o in options.objects if o.endswith(".cu.o"))
    if not objects:
        sys.exit("machine code: no objects of .cu files given")
    kernels = code.read_objects(objects, *code.tools(options.nvcc, options.tools))
    lines = [line_of(kernel) for kernel, _, _ in kernels]
    keys = [key_of(line) for line in lines]
    failures = broken_rules(kernels)
    failures += [f"two kernels of one name: {key}" for key in sorted(set(keys)) if keys.count(key) > 1]
    archs = sorted({key[0] for key in keys})
    if options.write:
        if archs != sorted(code.SHARED):
            sys.exit(f"machine code: the table is of {sorted(code.SHARED)}, and the objects are of {archs}")
        path.write_text(HEADER + "".join(f"{line}\n" for line in sorted(lines)))
    else:
        failures += differences(lines, [l for l in path.read_text().splitlines() if not l.startswith("#")], archs)
    print("\n".join(failures))
    print(f"machine code: {len(lines)} kernels of {len(objects)} files for {', '.join(archs)}, nvcc {version}, "
          f"{time.monotonic() - begin:.0f} s: {len(failures)} things to look at"
          + ("; if the change is meant, --write makes the table anew" if failures and not options.write else ""))
    return 1 if failures else 0


def self_test_waits(good):
    """Plants one fault of each kind in the code of a kernel that waits."""
    symbol = "_ZN4vqlm4cuda10add_kernelENS0_14GridDependencyEPf"

    def said(*lines, symbol=symbol, arch="sm_90a"):
        text = "".join(line + ":\n" if line.startswith(".L") else f"        /*0010*/         {line} ;\n" for line in lines)
        return "; ".join(code.wait_problems(arch, symbol, text))

    wait, load = ("LDC R1, c[0x0][0x28]", "ACQBULK", "PREEXIT"), "LDG.E R2, desc[UR4][R2.64]"
    assert said(*wait, load, "EXIT") == ""
    assert said("STS [R3], R4", "@P0 BRA `(.L_x_1)", "SYNCS.EXCH.64 URZ, [UR4], UR6", ".L_x_1", *wait, load) == ""
    assert "LDG.E in front" in said(load, *wait)
    assert "ST.E in front" in said("ST.E [R2.64], R0", *wait)
    assert "UTMALDG.4D in front" in said("UTMALDG.4D [UR8], [UR4]", *wait)
    assert "EXIT in front" in said("@P0 EXIT", *wait)
    assert "past ACQBULK, to .L_x_2" in said("@!P0 BRA `(.L_x_2)", *wait, ".L_x_2", load)
    assert "some threads only" in said("@P1 ACQBULK", "PREEXIT", load)
    assert "0 times ACQBULK" in said("PREEXIT", load) and "0 times PREEXIT" in said("ACQBULK", load)
    assert said(load, symbol="_Z10add_kernelPf") == "" and "without a Grid" in said(*wait, symbol="_Z10add_kernelPf")
    assert said(load, arch="sm_80") == "" and "for sm_80" in said(*wait, load, arch="sm_80")
    assert broken_rules([(good, [], ["LDG.E in front of ACQBULK"])]) == ["sm_80 a.cu k: LDG.E in front of ACQBULK"]


def self_test():
    """Plants one fault of each kind."""
    # 43,690 registers for 4 warps of 168: 12 warps; 100 KiB of shared memory: one block on sm_80, two on sm_90.
    assert code.occupancy("sm_90a", 128, 168, 0) == (3, 12)
    assert code.occupancy("sm_80", 128, 32, 100 << 10) == (1, 4)
    assert code.occupancy("sm_90a", 128, 32, 100 << 10) == (2, 8)
    assert code.occupancy("sm_80", 32, 50, 128) == (32, 32)
    assert code.occupancy("sm_80", 1024, 32, 4096) == (2, 64)
    sass = (".text.k:\n        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;\n"
            "        /*0010*/               @P0 FFMA R1, R2, R3, R4 ;\n        /*0020*/              @!P1 STL [R1], R2 ;\n")
    ops = code.instructions(sass)["k"]
    assert ops == ["LDG.E.128", "FFMA", "STL"], ops
    good = code.kernel("sm_80", "a.cu", "k", 128, (32, 0, 0, 0), ["LDG.E.128", "LDG.E", "FFMA", "HMMA.16816.F32"])
    assert (good.load16, good.load, good.hmma, good.local) == (1, 1, 1, 0)
    assert broken_rules([(good, [], [])]) == []
    assert "spills" in broken_rules([(good._replace(local=1), [], [])])[0]
    assert "spills" in broken_rules([(good._replace(stack=8), [], [])])[0]
    known = good._replace(arch="sm_80", name="rope_kernel<8>", local=5, stack=32)
    assert broken_rules([(known, [], [])]) == []
    assert "spills" in broken_rules([(known._replace(local=6), [], [])])[0]
    assert "no longer" in broken_rules([(known._replace(local=0, stack=0), [], [])])[0]
    norm = good._replace(name="rmsnorm_forward_kernel<3, (RowOwner)0, true>")
    assert broken_rules([(norm, ["LDG.E", "FMUL", "LDG.E.128", "LDG.E.128", "FADD", "FFMA", "STG.E.128"], [])]) == []
    assert "1 loads" in broken_rules([(norm, ["LDG.E.128", "FFMA", "LDG.E.128"], [])])[0]
    assert "no load" in broken_rules([(norm, ["LDG.E", "FFMA"], [])])[0]
    self_test_waits(good)
    line = line_of(good)
    assert differences([line], [line], {"sm_80"}) == []
    assert differences([line], [line, line_of(good._replace(arch="sm_90a"))], {"sm_80"}) == []
    assert differences([line], [], {"sm_80"})[0].startswith("not in the table")
    assert differences([], [line], {"sm_80"})[0].startswith("only in the table")
    assert differences([line], [line_of(good._replace(load16=2))], {"sm_80"}) == ["sm_80 a.cu k: load16 2 -> 1"]
    print("machine code: the self-test found every planted fault")
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--tools", default="build/disassembler")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("objects", nargs="*")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    try:
        return check(options)
    except code.Missing as missing:
        print(f"machine code: skipped: {missing}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
