#!/usr/bin/env python3
"""Holds what the kernels' accesses to memory cost against what they had to cost: 32-byte sectors of global memory that a warp
touches, wavefronts of shared memory (bank conflicts), counted by the host executor (tests/simt/access_counts.h) while
accesses/*_cases.cpp run every kernel of core/cuda at a model's widths. A place of the source that costs more than LIMITS fails,
unless accesses/exceptions.txt has it, with a reason; so do an exception that is not needed and a kernel that no case runs.

    accesses_test.py PROGRAM [--list | --write]    cuda_accesses_simt
    accesses_test.py --self-test

--list shows all places that cost more than they had to, worst first. --write brings the exceptions up to date: reasons stay,
what is no longer needed goes, and what is new waits for its reason.
"""

import argparse
import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXCEPTIONS = ROOT / "tests/cuda/accesses/exceptions.txt"
# Actual over ideal. Global memory: rows that do not begin at a sector cost a quarter more at 4 bytes a lane, and no kernel can
# choose where rows begin.
LIMITS = {"shared": 1.0, "global": 1.25}
# A call in these stands for the line that makes it.
TOOLS = ("core/cuda/packs.h", "core/cuda/device_utils.h", "tests/simt/")
# An exception must say what is there to this part of it, or it hides what gets worse.
SLACK = 0.8

Place = collections.namedtuple("Place", "file kernel memory source")  # memory: "shared store"
Cost = collections.namedtuple("Cost", "actual ideal instance where")
Exception_ = collections.namedtuple("Exception_", "most why line")


def ratio(cost):
    return cost.actual / cost.ideal


def symbolize(program, addresses):
    """{address: [(function, file relative to the root, line)]}, innermost first"""
    text = subprocess.run(["addr2line", "-e", program, "-a", "-f", "-i", "-C"], check=True, text=True, stdout=subprocess.PIPE,
                          input="".join(f"{address}\n" for address in addresses)).stdout
    frames, lines = {}, iter(text.splitlines())
    address = None
    for line in lines:
        if re.fullmatch(r"0x[0-9a-f]+", line):
            address = int(line, 16)
            frames[address] = []
            continue
        path, _, number = next(lines).split(" (")[0].rpartition(":")
        found = re.search(r"(?:^|/)((?:core|tests)/[^:]*)$", os.path.normpath(path))
        frames[address].append((line, found.group(1) if found else path, int(number) if number.isdigit() else 0))
    return frames


def own_frame(frames):
    """The innermost that is a kernel's own code and no tool; else the innermost of the project."""
    project = [frame for frame in frames if frame[1].startswith(("core/", "tests/"))] or frames
    return next((frame for frame in project if not frame[1].startswith(TOOLS)), project[0])


def instance_of(function):
    """"vqlm::cuda::(anonymous namespace)::add_kernel<8>(float*, ...)" -> "add_kernel<8>\""""
    name, depth = function.replace("(anonymous namespace)", "_"), 0
    for i, c in enumerate(name):
        depth += {"<": 1, ">": -1}.get(c, 0)
        if c == "(" and depth == 0:
            name = name[:i]
            break
    head, bracket, arguments = name.partition("<")
    return head.split(" ")[-1].split("::")[-1] + bracket + arguments.replace("vqlm::cuda::", "").replace("_::", "")


class Sources:
    def __init__(self, root):
        self.root, self.files = root, {}

    def line(self, file, number):
        if file not in self.files:
            self.files[file] = (self.root / file).read_text().splitlines()
        return re.sub(r"\s*//.*$", "", self.files[file][number - 1]).strip()

    def kernels(self):
        """{(file, kernel)} of core/cuda"""
        pattern = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\(")
        return {(str(path.relative_to(self.root)), name) for path in sorted((self.root / "core/cuda").glob("*.cu"))
                for name in pattern.findall(path.read_text())}


def count(program, capability, folder):
    """The program's lines: (kernel, place, part, bytes, memory, requests, actual, ideal)"""
    path = os.path.join(folder, f"counts-{capability}")
    # Hopper's own kernels are attention's; the others are the same on every device.
    cases = [] if capability == "80" else ["--gtest_filter=*Attention*"]
    environment = dict(os.environ, SIMT_ORDER="forward", SIMT_COMPUTE_CAPABILITY=capability)
    done = subprocess.run([program, path, "--gtest_brief=1", *cases], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environment)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{program} on capability {capability}: exit status {done.returncode}")
    for line in open(path):
        kernel, place, part, size, space, access, requests, actual, ideal = line.split()
        yield (int(kernel, 16), int(place, 16), int(part), int(size), f"{space} {access}", int(requests), int(actual),
               int(ideal))


def worst_costs(lines, frames, sources):
    """{Place: Cost} with the most expensive instance of each place, and the kernels {(file, kernel)} that ran"""
    costs, ran = {}, set()
    for kernel, place, part, size, memory, _, actual, ideal in lines:
        function, file, _ = frames[kernel][-1]
        instance = instance_of(function)
        name = instance.split("<")[0]
        ran.add((file, name))
        _, own_file, number = own_frame(frames[place])
        key = Place(file, name, memory, sources.line(own_file, number))
        cost = Cost(actual, ideal, instance, f"{own_file}:{number}, {size} bytes" + (f" from byte {part} on" if part else ""))
        if key not in costs or ratio(costs[key]) < ratio(cost):
            costs[key] = cost
    return costs, ran


def read_exceptions(text):
    """{Place: Exception_}: an entry's lines are those of entry()"""
    exceptions, lines = {}, [(number, line) for number, line in enumerate(text.splitlines(), 1)
                             if line.strip() and not line.startswith("#")]
    while lines:
        number, line = lines.pop(0)
        fields = line.split(" | ")
        if len(fields) != 4 or not lines or not re.match(r" {4}\S", lines[0][1]):
            sys.exit(f"{EXCEPTIONS}:{number}: not \"file | kernel | memory | most\", and below it the source, by 4 columns in")
        place = Place(*fields[:3], lines.pop(0)[1].strip())
        if place in exceptions:
            sys.exit(f"{EXCEPTIONS}:{number}: is there twice")
        why = []
        while lines and lines[0][1].startswith(" " * 8):
            why.append(lines.pop(0)[1].strip())
        exceptions[place] = Exception_(float(fields[3]), " ".join(why), number)
    return exceptions


def entry(place, most, why):
    return [f"{place.file} | {place.kernel} | {place.memory} | {most:.2f}", f"    {place.source}",
            *(" " * 8 + part for part in textwrap.wrap(why, 120))]


def written(costs, exceptions, header):
    """The exceptions' text for these costs"""
    lines = [header]
    for place, cost in sorted(costs.items()):
        if ratio(cost) > LIMITS[place.memory.split()[0]] + 0.005:
            lines += entry(place, ratio(cost), exceptions[place].why if place in exceptions else "")
    return "\n".join(lines) + "\n"


def failures(costs, ran, kernels, exceptions):
    found = []
    for place, cost in sorted(costs.items()):
        limit = LIMITS[place.memory.split()[0]]
        exception = exceptions.get(place)
        most = exception.most if exception else limit
        line = "\n".join([*entry(place, ratio(cost), ""),
                          f"    {cost.actual} against {cost.ideal} in {cost.instance}, {cost.where}"])
        if ratio(cost) > most + 0.005:
            found.append(f"costs more than {most:.2f} times what it had to:\n{line}")
        elif exception and ratio(cost) <= limit:
            found.append(f"needs no exception any more (line {exception.line}):\n{line}")
        elif exception and ratio(cost) - 1 < SLACK * (most - 1):
            found.append(f"costs less than the exception says, {most:.2f} (line {exception.line}):\n{line}")
    for place, exception in exceptions.items():
        if place not in costs:
            found.append(f"exception for what is not there (line {exception.line}): {' | '.join(place)}")
        if not exception.why:
            found.append(f"exception without a reason (line {exception.line}): {' | '.join(place)}")
    found += [f"no case runs {kernel} of {file}: add one to tests/cuda/accesses" for file, kernel in sorted(kernels - ran)]
    return found


def self_test():
    place = Place("core/cuda/a.cu", "a_kernel", "shared load", "x = tile[i];")
    row = place._replace(memory="global load", source="y = row[i];")
    costs = {place: Cost(64, 32, "a_kernel<8>", "core/cuda/a.cu:7"), row: Cost(5, 4, "a_kernel<8>", "core/cuda/a.cu:8")}
    kernel = {("core/cuda/a.cu", "a_kernel")}

    def messages(text, ran=kernel, costs=costs):
        return failures(costs, ran, kernel, read_exceptions(text))

    said = "core/cuda/a.cu | a_kernel | shared load | {}\n    x = tile[i];\n"
    assert "more than 1.00 times" in messages("")[0] and len(messages("")) == 1
    assert messages(said.format("2.00") + "        once a block\n") == []
    assert "without a reason" in messages(said.format("2.00"))[0]
    assert "more than 1.50" in messages(said.format("1.50") + "        why\n")[0]
    assert "less than the exception" in messages(said.format("3.00") + "        why\n")[0]
    mended = {place: Cost(32, 32, "", ""), row: costs[row]}
    assert "needs no exception" in messages(said.format("2.00") + "        why\n", costs=mended)[0]
    assert "is not there" in messages(said.format("2.00") + "        why\n", costs={row: costs[row]})[0]
    assert "no case runs a_kernel" in messages(said.format("2.00") + "        why\n", ran=set())[0]
    assert "more than 1.25" in messages("", costs={row: Cost(6, 4, "", "")})[0]
    text = written(costs, read_exceptions(said.format("9.00") + "        once a block\n"), "# header")
    assert text == "# header\n" + said.format("2.00") + "        once a block\n" and messages(text) == []
    assert "without a reason" in messages(written(costs, {}, ""))[0]
    names = {"void vqlm::cuda::(anonymous namespace)::add_kernel<8>(float*, int)": "add_kernel<8>",
             "vqlm::cuda::fill_kernel(float*)": "fill_kernel",
             "void vqlm::cuda::members::(anonymous namespace)::score_kernel<(vqlm::cuda::members::Vectors)1, true>(int)":
                 "score_kernel<(members::Vectors)1, true>"}
    for function, name in names.items():
        assert instance_of(function) == name, (function, instance_of(function))
    tool, own, lane = ("load_pack", "core/cuda/packs.h", 3), ("a_kernel", "core/cuda/a.cu", 9), ("x", "/usr/include/y.h", 1)
    assert own_frame([lane, tool, own]) == own and own_frame([tool]) == tool
    assert ("core/cuda/embedding.cu", "sum_pieces_kernel") in Sources(ROOT).kernels()
    print("ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    if not arguments.program:
        parser.error("PROGRAM is missing")
    with tempfile.TemporaryDirectory() as folder:
        lines = [line for capability in ("80", "90") for line in count(arguments.program, capability, folder)]
    frames = symbolize(arguments.program, sorted({hex(address) for line in lines for address in line[:2]}))
    sources = Sources(ROOT)
    costs, ran = worst_costs(lines, frames, sources)
    if arguments.list:
        for place, cost in sorted(costs.items(), key=lambda item: -ratio(item[1])):
            if cost.actual > cost.ideal:
                print(f"{ratio(cost):6.2f}  {cost.actual} / {cost.ideal}  {place.memory}  {cost.instance}\n"
                      f"        {cost.where}: {place.source}")
        return None
    text = EXCEPTIONS.read_text()
    if arguments.write:
        header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
        text = written(costs, read_exceptions(text), header)
        EXCEPTIONS.write_text(text)
    found = failures(costs, ran, sources.kernels(), read_exceptions(text))
    print(f"{len(costs)} places of {len(ran)} kernels")
    return "\n".join(found) if found else None


if __name__ == "__main__":
    sys.exit(main())
