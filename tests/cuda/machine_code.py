"""What nvcc made of the kernels: resources and instructions, read from the objects of the build by NVIDIA's cuobjdump and
nvdisasm, and the occupancy that follows. No GPU is needed."""

import collections
import concurrent.futures
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile

WARP = 32
# Of a multiprocessor: registers come in units of 256 a warp, shared memory in units of 128 bytes, and each block takes 1 KiB of
# it (CUDA C++ Programming Guide 13.0, "Compute Capabilities"; the occupancy calculator's tables).
WARPS, BLOCKS, REGISTERS, RESERVED = 64, 32, 65536, 1024
SHARED = {"sm_80": 164 * 1024, "sm_90a": 228 * 1024}
SHOWS_RESERVED = {"sm_90a"}  # cuobjdump adds what a block takes anyway to what a kernel has

# A launch that stands for a kernel's: threads, where the kernel does not bound them, and bytes of dynamic shared memory.
# The first pattern that matches counts; others have the bound's threads, or 256, and no dynamic memory.
LAUNCHES = [
    (r"attention_forward_sm90.*<64", 384, 83016), (r"attention_forward_sm90.*<128", 384, 164936),
    (r"key_gradient_sm90.*<64", 384, 67624), (r"key_gradient_sm90.*<128", 384, 133160),
    (r"query_gradient_sm90.*<64", 384, 101416), (r"query_gradient_sm90.*<128", 384, 199720),
    (r"attention_forward.*<32", 128, 24 << 10), (r"attention_forward.*<64", 128, 48 << 10),
    (r"attention_forward.*<128", 128, 96 << 10),
    (r"key_gradient.*<32", 128, 24832), (r"key_gradient.*<64", 128, 49664), (r"key_gradient.*<128", 128, 99328),
    (r"query_gradient.*<32", 128, 33 << 10), (r"query_gradient.*<64", 128, 65 << 10),
    (r"query_gradient.*<128", 128, 98816),
    (r"^(score|hidden)_kernel", 128, 72 << 10), (r"^codebook_kernel.*1>", 256, 40 << 10),
    (r"^codebook_kernel.*2>", 512, 48 << 10), (r"^own_vector_kernel", 128, 48 << 10),
    (r"^rmsnorm_.*<3", 128, 768 * 4), (r"^rmsnorm_.*<4, \(RowOwner\)0", 128, 1024 * 4),
    (r"^rmsnorm_.*RowOwner\)1", 64, 2048 * 4),
    (r"^rmsnorm_backward_by_element", 256, 768 * 4), (r"^rope_kernel", 256, 2 << 10),
    (r"partial_sums_kernel|sort_scan|scan_kernel", 1024, 0),
    (r"cross_entropy_kernel<RegisterRow<1024, 2>, \(BiasPlace\)3", 1024, 16384 * 8),
    (r"cross_entropy_kernel<RegisterRow<1024, 4>, \(BiasPlace\)3", 1024, 20736 * 8),
    (r"cross_entropy_kernel<RegisterRow<512, 4>, \(BiasPlace\)1", 512, 16384 * 4),
    (r"cross_entropy_kernel<RegisterRow<512, 7>, \(BiasPlace\)1", 512, 28672 * 4),
    (r"cross_entropy_kernel<RegisterRow<1024, 4>, \(BiasPlace\)1", 1024, 32768 * 4),
    (r"cross_entropy_kernel<RegisterRow<1024, 7>, \(BiasPlace\)1", 1024, 40960 * 4),
    (r"cross_entropy_kernel<SharedRow", 512, 65536 * 2),
]


class Missing(Exception):
    """A tool that is not here; says how to get it."""


def tools(nvcc, folder):
    """cuobjdump and nvdisasm: the toolkit's, those in `folder` (tests/cuda/get_disassembler.sh), or those in PATH."""
    found = []
    for name in ("cuobjdump", "nvdisasm"):
        places = [pathlib.Path(nvcc).resolve().parent / name, *pathlib.Path(folder).glob(f"**/bin/{name}")]
        place = next((str(p) for p in places if p.exists()), None) or shutil.which(name)
        if place is None:
            raise Missing(f"no {name} beside {nvcc}, in {folder} or in PATH: tests/cuda/get_disassembler.sh installs it")
        found.append(place)
    return found


def toolkit(nvcc):
    """nvcc's version, "13.0"."""
    words = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    return re.search(r"release (\d+\.\d+)", words)[1]


def demangled(symbols):
    """{symbol: name without the project's namespaces and without parameters}"""
    lines = subprocess.run(["c++filt", "-p"], input="\n".join(symbols), check=True, capture_output=True, text=True).stdout
    name = lambda line: line.replace("vqlm::cuda::", "").replace("(anonymous namespace)::", "").replace("members::", "")
    return {symbol: name(line) for symbol, line in zip(symbols, lines.splitlines())}


def max_threads(cubin):
    """{symbol: threads of __launch_bounds__}, from the cubin's sections .nv.info.SYMBOL: records of a format and an attribute
    (a byte each), and 2 bytes, which are the length of what follows where the format is 4."""
    section_table, = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3a)
    # name, type, flags, address, offset, size of each section
    sections = [struct.unpack_from("<IIQQQQ", cubin, section_table + i * size) for i in range(count)]
    found = {}
    for name, _, _, _, offset, length in sections:
        begin = sections[names][4] + name
        text = cubin[begin:cubin.index(b"\0", begin)].decode()
        if not text.startswith(".nv.info."):
            continue
        at = offset
        while at < offset + length:
            form, attribute, value = struct.unpack_from("<BBH", cubin, at)
            at += 4
            if form != 4:
                continue
            if attribute == 5:  # EIATTR_MAX_THREADS
                found[text[len(".nv.info."):]] = struct.unpack_from("<I", cubin, at)[0]
            at += value
    return found


INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.M)


def listings(sass):
    """{symbol: its lines}"""
    parts = re.split(r"^\.text\.(\S+):$", sass, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def instructions(sass):
    """{symbol: its instructions in the order of addresses, without operands}"""
    return {symbol: INSTRUCTION.findall(text) for symbol, text in listings(sass).items()}


PROMISES = "14GridDependency"  # in the symbol of a kernel with such a parameter (core/cuda/launch.h)
WAIT, TRIGGER = "ACQBULK", "PREEXIT"  # griddepcontrol.wait and .launch_dependents
# What must not stand in front of the wait: accesses to global memory, generic ones, copies by asynchronous units, ends.
NOT_BEFORE_WAIT = re.compile(
    r"(LDG|STG|LD|ST|ATOM|ATOMG|RED|REDG|LDGSTS|UBLKCP|UBLKRED|UTMA\w+|EXIT|RET|CALL|BRX|JMP|JMX)(\.|$)")


def wait_problems(arch, symbol, listing):
    """What is wrong with a kernel's wait for earlier kernels: where it promises one, each thread comes to it first of all, and
    where it does not, or the chip knows none, there is none."""
    ops = INSTRUCTION.findall(listing)
    if PROMISES not in symbol or arch == "sm_80":
        return [f"{op} in a kernel without a GridDependency, or for {arch}" for op in (WAIT, TRIGGER) if op in ops]
    if ops.count(WAIT) != 1 or TRIGGER not in ops:
        return [f"{ops.count(WAIT)} times {WAIT}, {ops.count(TRIGGER)} times {TRIGGER}, of which one each is meant"]
    head = listing[:re.search(rf"\s{WAIT}\b", listing).start()]
    problems = [f"{op} in front of {WAIT}" for op in INSTRUCTION.findall(head) if NOT_BEFORE_WAIT.match(op)]
    if re.search(rf"@!?U?P\w+\s+{WAIT}\b", listing):
        problems.append(f"{WAIT} for some threads only")
    labels = set(re.findall(r"^(\.L_\w+):", head, re.M))
    problems += [f"a branch past {WAIT}, to {target}" for target in re.findall(r"\bBRA\b[^;]*`\((\.L_\w+)\)", head)
                 if target not in labels]
    return problems


RESOURCES = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def occupancy(arch, threads, registers, shared):
    """Blocks that run at once on a multiprocessor, and their warps."""
    warps = -(-threads // WARP)
    per_warp = -(-registers * WARP // 256) * 256
    of_shared = -(-(shared + RESERVED) // 128) * 128
    blocks = min(BLOCKS, WARPS // warps, REGISTERS // per_warp // 4 * 4 // warps, SHARED[arch] // of_shared)
    return blocks, blocks * warps


Kernel = collections.namedtuple("Kernel", "arch file name threads registers static dynamic stack blocks warps hmma hgmma "
                                          "load16 load store16 store local")


def kernel(arch, file, name, bound, resources, ops):
    registers, stack, static, _ = resources
    static = max(static - RESERVED, 0) if arch in SHOWS_RESERVED else static
    launch = next((entry[1:] for entry in LAUNCHES if re.search(entry[0], name)), (bound or 256, 0))
    blocks, warps = occupancy(arch, launch[0], registers, static + launch[1])
    count = lambda pattern: sum(re.match(pattern, op) is not None for op in ops)
    load16, store16 = count(r"LDG\..*\.128"), count(r"STG\..*\.128")
    return Kernel(arch, file, name, launch[0], registers, static, launch[1], stack, blocks, warps, count(r"HMMA"),
                  count(r"HGMMA"), load16, count(r"LDG\.") - load16, store16, count(r"STG\.") - store16,
                  count(r"(LDL|STL)(\.|$)"))


def read_object(path, cuobjdump, nvdisasm):
    """[(Kernel, its instructions, what is wrong with its wait)] of an object of nvcc."""
    file = pathlib.Path(path).name.removesuffix(".o")
    with tempfile.TemporaryDirectory() as folder:
        def run(*words):
            environment = {**os.environ, "PATH": f"{pathlib.Path(nvdisasm).parent}:{os.environ['PATH']}"}
            return subprocess.run(words, check=True, capture_output=True, text=True, cwd=folder, env=environment).stdout
        run(cuobjdump, "--extract-elf", "all", str(pathlib.Path(path).resolve()))
        found = []
        for cubin in sorted(pathlib.Path(folder).glob("*.cubin")):
            arch = re.search(r"\.(sm_\w+)\.cubin$", cubin.name)[1]
            if arch not in SHARED:
                continue
            resources = {m[1]: tuple(map(int, m.groups()[1:]))
                         for m in RESOURCES.finditer(run(cuobjdump, "--dump-resource-usage", str(cubin)))}
            sass = run(nvdisasm, "-c", str(cubin))
            lines = listings(sass)
            code = {s: ops for s, ops in instructions(sass).items() if s in resources}
            names, bounds = demangled(sorted(code)), max_threads(cubin.read_bytes())
            found += [(kernel(arch, file, names[s], bounds.get(s), resources[s], code[s]), code[s],
                       wait_problems(arch, s, lines[s])) for s in sorted(code)]
        return found


def read_objects(paths, cuobjdump, nvdisasm):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(lambda path: read_object(path, cuobjdump, nvdisasm), paths)
        return [entry for part in parts for entry in part]
