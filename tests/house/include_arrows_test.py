#!/usr/bin/env python3
"""Checks the rules of the house that a text search can see: who includes whom, which folder may use which library,
no #ifdef for back ends, file lengths, no unfinished work.

    include_arrows_test.py ROOT        names every violation as file:line, exit code 1 where there are any
    include_arrows_test.py --self-test plants one violation of each rule in a temporary tree and expects all of them
"""

import pathlib
import re
import sys
import tempfile

MAX_LINES = 350

# launch -> train -> data, dist -> core
MAY_INCLUDE = {
    "core": {"core"},
    "dist": {"dist", "core"},
    "data": {"data", "core"},
    "train": {"train", "data", "dist", "core"},
    "launch": {"launch", "train", "data", "dist", "core"},
    "tests": {"tests", "launch", "train", "data", "dist", "core"},
}

# library: (its headers, the paths that may include them, besides tests/)
LIBRARIES = {
    "MPI": (r"mpi\.h$", r"dist/[^/]*\.cpp$"),
    "NCCL": (r"nccl.*\.h$", r"dist/[^/]*nccl[^/]*\.cpp$"),
    "HDF5": (r"(hdf5|hdf5_hl|H5\w*)\.h$", r"data/"),
    "CUDA": (r"(cuda\w*|cublas\w*|cooperative_groups|mma)(\.h|/.*)?$", r"core/cuda/|dist/[^/]*nccl"),
    "oneDNN": (r"(dnnl.*|oneapi/.*)$", r"core/cpu/"),
    "Highway": (r"hwy/", r"core/cpu/"),
    "SentencePiece": (r"sentencepiece", r"data/"),
}

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
BACK_END_CONDITION = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif)\b.*(CUDA|NCCL|GPU|OPEN_?MPI|WITH_MPI|USE_MPI)")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


def check_include(path, folder, bracket, header):
    """Yields what is wrong with one #include of the file at `path` in `folder`."""
    target = header.split("/")[0]
    if target in MAY_INCLUDE and target not in MAY_INCLUDE[folder]:
        yield f'{folder}/ may not include "{header}"; it may include {", ".join(sorted(MAY_INCLUDE[folder]))}'
    is_library = any(re.match(headers, header) for headers, _ in LIBRARIES.values())  # Highway's own style is "hwy/..."
    if bracket == '"' and target not in MAY_INCLUDE and not is_library:
        yield f'"{header}" is not named from the repository root, or is a library: then write <{header}>'
    for library, (headers, allowed) in LIBRARIES.items():
        if re.match(headers, header) and folder != "tests" and not re.match(allowed, path):
            yield f"<{header}>: {library} belongs to {allowed}"


def check_file(root, file):
    """Yields (line number, message) for every violation in `file`."""
    path = file.relative_to(root).as_posix()
    folder = path.split("/")[0]
    lines = file.read_text(encoding="utf-8").splitlines()
    if len(lines) > MAX_LINES:
        yield len(lines), f"{len(lines)} lines; cut the file at one of its seams (limit {MAX_LINES})"
    for number, line in enumerate(lines, 1):
        if match := INCLUDE.match(line):
            for message in check_include(path, folder, *match.groups()):
                yield number, message
        if BACK_END_CONDITION.match(line) and not path.startswith(("tests/simt/", "core/cuda/")):
            yield number, "a preprocessor condition on a back end; let CMake pick the file instead"
        if UNFINISHED.search(line):
            yield number, "unfinished work; finish it or move it to the plan"


def violations(root):
    """Every violation under `root` as "path:line: message", in path order."""
    found = []
    for folder in MAY_INCLUDE:
        for file in sorted((root / folder).rglob("*")):
            if file.suffix in {".h", ".hpp", ".cpp", ".cc", ".cu", ".cuh"} and file.is_file():
                path = file.relative_to(root).as_posix()
                found += [f"{path}:{number}: {message}" for number, message in check_file(root, file)]
    return found


CLEAN = {
    "core/a.h": "#include <vector>\n",
    "core/cpu/a.cpp": '#include <dnnl.h>\n#include <hwy/highway.h>\n#include "core/a.h"\n',
    "core/cuda/a.cu": "#include <cuda_runtime.h>\n#ifdef __CUDA_ARCH__\n#endif\n",
    "dist/a.cpp": '#include <mpi.h>\n#include "core/a.h"\n',
    "dist/nccl_a.cpp": "#include <nccl.h>\n#include <cuda_runtime.h>\n",
    "data/a.h": "#include <hdf5.h>\n",
    "train/a.cpp": '#include "data/a.h"\n#include "dist/a.h"\n#include "core/a.h"\n',
    "launch/a.cpp": '#include "train/a.h"\n',
    "tests/a_test.cpp": '#include <mpi.h>\n#include "launch/a.h"\n#include "tests/b.h"\n' + "\n" * (MAX_LINES - 3),
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
    "dist/b.h": "#include <mpi.h>\n",
    "dist/c.cpp": '#include "data/a.h"\n',
    "dist/d.cpp": "#include <nccl.h>\n",
    "data/b.cpp": '#include "dist/a.h"\n',
    "data/c.cpp": "#include <mpi.h>\n",
    "train/b.cpp": "#include <mpi.h>\n",
    "train/c.cpp": "#include <H5Fpublic.h>\n",
    "train/d.cpp": "#include <cuda_runtime.h>\n",
    "train/e.cpp": "#include <cublasLt.h>\n",
    "train/f.cpp": '#include "launch/a.h"\n',
    "train/g.cpp": "#include <sentencepiece_processor.h>\n",
    "launch/b.cpp": "int a;  // " + "TO" + "DO: b\n",
    "launch/c.cpp": "\n" * (MAX_LINES + 1),
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
    print(f"{len(PLANTED)} planted violations found")
    return 0


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
