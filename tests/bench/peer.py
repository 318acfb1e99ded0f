"""What the peer benchmarks share: the same shapes as `vqlm bench`, measured in PyTorch on the same device, one JSON line
for each variant, with the keys that `vqlm bench --json` writes, so that every figure is a ratio.

Runs with PyTorch 1.13 (no torch.compile, no scaled_dot_product_attention: notices say so) to 2.x, on CUDA and on the
CPU; the CPU is for testing these scripts, not for figures.
"""

import functools
import gc
import inspect
import json
import resource
import statistics
import sys
import time

import torch


@functools.lru_cache(maxsize=None)  # each notice once
def notice(text):
    print(f"peer: {text}", file=sys.stderr, flush=True)


class Device:
    """Where to measure, and its clock: CUDA events on a GPU (work is queued without waiting), else the host's clock."""

    def __init__(self, name, dtype="auto"):
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and not torch.cuda.is_available():
            sys.exit("peer: --device cuda: PyTorch finds no GPU; use --device cpu")
        self.torch = torch.device(name)
        self.cuda = name == "cuda"
        self.dtype_name = {"auto": "bf16" if self.cuda else "f32"}.get(dtype, dtype)
        self.dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[self.dtype_name]

    def description(self):
        if not self.cuda:
            return f"cpu ({torch.get_num_threads()} threads), PyTorch {torch.__version__}"
        return f"cuda:0 {torch.cuda.get_device_name()}, PyTorch {torch.__version__}"

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, begin, end):
        return 1e-3 * begin.elapsed_time(end) if self.cuda else end - begin

    def synchronize(self):
        if self.cuda:
            torch.cuda.synchronize()

    def forget(self):
        """Drops the last variant's memory and compiled code, and begins to measure memory anew."""
        if hasattr(torch, "_dynamo"):
            torch._dynamo.reset()
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory_bytes(self):
        """peak_total: what PyTorch's tensors took at the peak (not its cache). Unknown on the CPU."""
        resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = torch.cuda.max_memory_allocated() if self.cuda else None
        return {"peak_total": peak, "process_resident": resident}


def passes(device, work, repeats, warmup=2):
    """Seconds of each of `repeats` calls of `work`, queued back to back between time marks."""
    for _ in range(warmup):
        work()
    device.synchronize()
    marks = [device.mark()]
    for _ in range(repeats):
        work()
        marks.append(device.mark())
    device.synchronize()
    return [device.seconds(a, b) for a, b in zip(marks, marks[1:])]


def summary(seconds):
    return {"seconds": statistics.median_high(seconds), "seconds_min": min(seconds)}


@functools.lru_cache(maxsize=None)  # once in a process
def matmul_peak(device, seconds=0.5, windows=5):
    """FLOP/s of products of random numbers in the benchmark's dtype: the best mean of five windows. The operands are
    random because a GPU at its power limit multiplies constants 10 % faster than the numbers of a model."""
    size = 8192 if device.cuda else 1024
    a, b = (torch.randn(size, size, device=device.torch, dtype=device.dtype) for _ in range(2))
    out = torch.empty(size, size, device=device.torch, dtype=device.dtype)
    one = min(passes(device, lambda: torch.mm(a, b.t(), out=out), 3))
    count = max(1, round(seconds / windows / one))
    best = 0.0
    for _ in range(windows):
        begin = device.mark()
        for _ in range(count):
            torch.mm(a, b.t(), out=out)
        end = device.mark()
        device.synchronize()
        best = max(best, 2 * size**3 * count / device.seconds(begin, end))
    return best


def compiler(wanted):
    """torch.compile, or the identity with a notice. Returns (function, compiled)."""
    if not wanted:
        return lambda f: f, False
    if not hasattr(torch, "compile"):
        notice(f"PyTorch {torch.__version__} has no torch.compile; measuring eager code")
        return lambda f: f, False
    return torch.compile, True


def cut_cross_entropy(biased):
    """linear_cross_entropy of the package; a RuntimeError is a variant's line of its own (measure_or_report)."""
    try:
        from cut_cross_entropy import linear_cross_entropy
    except ImportError as error:
        raise RuntimeError(f"cut_cross_entropy is not installed ({error})") from error
    if biased and "bias" not in inspect.signature(linear_cross_entropy).parameters:
        raise RuntimeError("this cut_cross_entropy knows no bias; another version does, or compare with --no-bias")
    return linear_cross_entropy


def add_common(parser):
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--dtype", choices=["auto", "bf16", "f32"], default="auto",
                        help="auto: bf16 on CUDA, f32 on the CPU")
    parser.add_argument("--eager", action="store_true", help="no torch.compile")
    parser.add_argument("--like", metavar="FILE", help="take the sizes from this `vqlm bench ... --json` result, and "
                        "print the ratios to it")


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def report(result):
    print(json.dumps(result), flush=True)


def measure_or_report(name, work):
    """Runs work(); a variant that does not fit into memory or does not compile is a line of its own, not the end."""
    try:
        report({"variant": name, **work()})
        return True
    except RuntimeError as error:  # torch.cuda.OutOfMemoryError and the compiler's errors are RuntimeErrors
        report({"variant": name, "error": str(error).splitlines()[0][:300]})
        return False
