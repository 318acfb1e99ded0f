#!/usr/bin/env python3
"""Checks the rules of the house that a text search can see: which room includes which, which folder may use which
library, no #ifdef for back ends, file lengths, no unfinished work.

    include_arrows_test.py ROOT        names every violation as file:line, exit code 1 where there are any
    include_arrows_test.py --self-test plants one violation of each rule in a temporary tree and expects all of them
"""

import pathlib
import re
import sys
import tempfile

MAX_LINES = 350

# The rooms from the ground up. Each may include itself, the rooms that it names, and what those may include; as it can only
# name rooms above it in this list, no circle is possible.
ROOMS = {
    "core": [],
    "core/cpu": ["core"],
    "core/cuda": ["core"],
    "core/model/head": ["core"],
    "core/model": ["core/model/head"],
    "dist/watch": ["core"],
    "dist": ["dist/watch"],
    "data/files": ["core"],
    "data/hdf5": ["core"],
    "data/tokenizer": ["data/files"],
    "data/shards": ["data/files", "data/hdf5"],
    "data/prepare": ["data/shards", "data/tokenizer"],
    "train/config": ["core"],
    "train/codes": ["core/model/head", "data/shards", "data/tokenizer", "dist"],
    "train/engine": ["core/model", "train/codes", "train/config"],
    "train/checkpoint": ["train/engine"],
    "train/models": ["train/checkpoint"],
    "train/records": ["train/engine"],
    "train/run": ["train/models", "train/records"],
    # What is no training; nothing in the other rooms of train includes it.
    "train/tools/convert": ["train/models"],
    "train/tools/generate": ["train/models"],
    "train/tools/refit": ["train/engine"],
    "train/tools/plan": ["train/engine"],
    "train/tools/score": ["train/engine"],
    "train/tools/samples": ["train/run"],
    "train/tools/bench": ["train/run"],
    "train/tools/selftest": ["core/cpu", "train/run", "train/tools/bench"],
    "launch": ["core/cpu", "core/cuda", "train/records"],
    "launch/commands": ["launch", "data/prepare", "train/tools/convert", "train/tools/generate", "train/tools/plan",
                        "train/tools/refit", "train/tools/samples", "train/tools/score", "train/tools/selftest"],
    "tests": ["launch/commands"],
}


def reach(room, rooms):
    """All rooms that `room` may include."""
    return {room}.union(*(reach(below, rooms) for below in rooms[room]))


def check_rooms(rooms):
    seen = set()
    for room, below in rooms.items():
        assert seen.issuperset(below), f"{room} names {set(below) - seen}, which stand(s) below it in the list"
        seen.add(room)


check_rooms(ROOMS)
MAY_INCLUDE = {room: reach(room, ROOMS) for room in ROOMS}
FOLDERS = sorted({room.split("/")[0] for room in ROOMS})


def room_of(path):
    """The room in which the file lies, or None. A folder of tests/ is part of the room tests, and core/ops of core: ops are
    made of tensors, and a back end takes ops."""
    folder = path.rpartition("/")[0]
    return "tests" if path.startswith("tests/") else "core" if folder == "core/ops" else folder


# library: (its headers, the paths that may include them, besides tests/)
LIBRARIES = {
    "MPI": (r"mpi\.h$", r"dist/[^/]*\.cpp$"),
    "NCCL": (r"nccl.*\.h$", r"dist/[^/]*nccl[^/]*\.cpp$"),
    "HDF5": (r"(hdf5|hdf5_hl|H5\w*)\.h$", r"data/(hdf5|shards)/"),
    "CUDA": (r"(cuda\w*|cublas\w*|cooperative_groups|mma)(\.h|/.*)?$", r"core/cuda/|dist/[^/]*nccl"),
    "oneDNN": (r"(dnnl.*|oneapi/.*)$", r"core/cpu/"),
    "Highway": (r"hwy/", r"core/cpu/"),
    "SentencePiece": (r"sentencepiece", r"data/tokenizer/"),
    "PCRE2": (r"pcre2", r"data/tokenizer/"),
    "utf8proc": (r"utf8proc", r"data/tokenizer/"),
}

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
BACK_END_CONDITION = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif)\b.*(CUDA|NCCL|GPU|OPEN_?MPI|WITH_MPI|USE_MPI)")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


def check_include(path, room, bracket, header):
    """Yields what is wrong with one #include of the file at `path` in `room`."""
    target = header.split("/")[0]
    is_ours = target in FOLDERS
    if is_ours and room in MAY_INCLUDE and room_of(header) not in MAY_INCLUDE[room]:
        yield f'{room}/ may not include "{header}"; it may include {", ".join(sorted(MAY_INCLUDE[room]))}'
    is_library = any(re.match(headers, header) for headers, _ in LIBRARIES.values())  # Highway's own style is "hwy/..."
    if bracket == '"' and not is_ours and not is_library:
        yield f'"{header}" is not named from the repository root, or is a library: then write <{header}>'
    for library, (headers, allowed) in LIBRARIES.items():
        if re.match(headers, header) and room != "tests" and not re.match(allowed, path):
            yield f"<{header}>: {library} belongs to {allowed}"


def check_file(root, file):
    """Yields (line number, message) for every violation in `file`."""
    path = file.relative_to(root).as_posix()
    room = room_of(path)
    if room not in ROOMS:
        yield 1, f"{room}/ is no room of the house; name it and what it may include in tests/house/include_arrows_test.py"
    lines = file.read_text(encoding="utf-8").splitlines()
    if len(lines) > MAX_LINES:
        yield len(lines), f"{len(lines)} lines; cut the file at one of its seams (limit {MAX_LINES})"
    for number, line in enumerate(lines, 1):
        if match := INCLUDE.match(line):
            for message in check_include(path, room, *match.groups()):
                yield number, message
        if BACK_END_CONDITION.match(line) and not path.startswith(("tests/simt/", "core/cuda/")):
            yield number, "a preprocessor condition on a back end; let CMake pick the file instead"
        if UNFINISHED.search(line):
            yield number, "unfinished work; finish it or move it to the plan"


def violations(root):
    """Every violation under `root` as "path:line: message", in path order."""
    found = []
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            if file.suffix in {".h", ".hpp", ".cpp", ".cc", ".cu", ".cuh"} and file.is_file():
                path = file.relative_to(root).as_posix()
                found += [f"{path}:{number}: {message}" for number, message in check_file(root, file)]
    return found


CLEAN = {
    "core/a.h": "#include <vector>\n",
    "core/ops/a.h": '#include "core/a.h"\n',
    "core/cpu/a.cpp": '#include <dnnl.h>\n#include <hwy/highway.h>\n#include "core/ops/a.h"\n',
    "core/cuda/a.cu": "#include <cuda_runtime.h>\n#ifdef __CUDA_ARCH__\n#endif\n",
    "core/model/a.cpp": '#include "core/model/head/a.h"\n',
    "dist/a.cpp": '#include <mpi.h>\n#include "core/a.h"\n',
    "dist/nccl_a.cpp": "#include <nccl.h>\n#include <cuda_runtime.h>\n",
    "data/hdf5/a.h": "#include <hdf5.h>\n",
    "data/tokenizer/a.cpp": "#include <sentencepiece_processor.h>\n",
    "train/codes/a.cpp": '#include "data/shards/a.h"\n#include "dist/a.h"\n#include "core/a.h"\n',
    "train/tools/plan/a.cpp": '#include "train/engine/a.h"\n',
    "launch/commands/a.cpp": '#include "train/run/a.h"\n',
    "tests/core/a_test.cpp": '#include <mpi.h>\n#include "launch/a.h"\n#include "tests/b.h"\n' + "\n" * (MAX_LINES - 3),
}

PLANTED = {
    "core/b.h": '#include "dist/a.h"\n',
    "core/c.cpp": '#include "tests/b.h"\n',
    "core/d.cpp": "#include <hdf5.h>\n",
    "core/e.cpp": "#include <dnnl.h>\n",
    "core/f.cpp": "#include <hwy/highway.h>\n",
    "core/g.cpp": "  #  ifdef VQLM_CUDA\n",
    "core/h.cpp": "#if defined(USE_GPU)\n",
    "core/i.cpp": '#include "a.h"\n',
    "core/model/head/b.cpp": '#include "core/model/transformer.h"\n',
    "dist/b.h": "#include <mpi.h>\n",
    "dist/c.cpp": '#include "data/files/a.h"\n',
    "dist/d.cpp": "#include <nccl.h>\n",
    "data/files/b.cpp": '#include "data/shards/a.h"\n',
    "data/files/c.cpp": "#include <mpi.h>\n",
    "data/shards/b.cpp": '#include "dist/a.h"\n',
    "data/prepare/c.cpp": "#include <H5Fpublic.h>\n",
    "train/config/b.cpp": "#include <mpi.h>\n",
    "train/config/c.cpp": '#include "train/engine/a.h"\n',
    "train/engine/b.cpp": '#include "train/run/a.h"\n',
    "train/engine/c.cpp": "#include <cuda_runtime.h>\n",
    "train/run/b.cpp": '#include "train/tools/plan/a.h"\n',
    "train/run/c.cpp": "#include <cublasLt.h>\n",
    "train/run/d.cpp": '#include "launch/a.h"\n',
    "train/run/e.cpp": "#include <sentencepiece_processor.h>\n",
    "train/new/a.cpp": "int room_without_a_name;\n",
    "launch/b.cpp": "int a;  // " + "TO" + "DO: b\n",
    "launch/c.cpp": "\n" * (MAX_LINES + 1),
    "launch/d.cpp": '#include "launch/commands/a.h"\n',
}


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)

        def write(files):
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text, encoding="utf-8")

        write(CLEAN)
        assert violations(root) == [], violations(root)
        write(PLANTED)
        named = sorted({violation.split(":")[0] for violation in violations(root)})
        assert named == sorted(PLANTED), f"not found or falsely found: {set(named) ^ set(PLANTED)}"
    try:
        check_rooms({"a": ["b"], "b": ["a"]})
    except AssertionError:
        print(f"{len(PLANTED)} planted violations found, and a circle of rooms")
        return 0
    raise AssertionError("a circle of rooms was not found")


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) != 1 or not (pathlib.Path(arguments[0]) / "core").is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    found = violations(pathlib.Path(arguments[0]))
    print("\n".join(found) if found else "the house is in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
