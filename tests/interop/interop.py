"""What the tests with transformers share. Importing it goes on in the environment of setup.sh, or skips the test."""

import os
import pathlib
import subprocess
import sys

ENVIRONMENT = pathlib.Path(os.environ["VQLM_INTEROP"])
if not (ENVIRONMENT / "installed").exists():
    print(f"skipped: no environment in {ENVIRONMENT}; tests/interop/setup.sh {ENVIRONMENT} makes it (PyTorch, transformers)")
    sys.exit(77)
if pathlib.Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
    python = ENVIRONMENT / "bin" / "python"
    os.execv(python, [str(python), "-B", *sys.argv])

sys.path.insert(0, os.path.join(os.environ["VQLM_SOURCE_DIR"], "tests", "launch"))
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may come from elsewhere
os.environ["HF_HOME"] = str(ENVIRONMENT / "cache")  # where transformers copies modules of a model

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)


def log_probs(model, ids, scratch):
    """Our log-probabilities (rows, length, V) of ids (rows, length) under a checkpoint or Hugging Face folder."""
    ids = np.ascontiguousarray(ids, dtype=np.int32)
    ids.tofile(scratch / "ids.bin")
    command = [os.environ["VQLM_LOG_PROBS"], model, scratch / "ids.bin", ids.shape[0], scratch / "out.bin"]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    return np.fromfile(scratch / "out.bin", dtype=np.float32).reshape(*ids.shape, -1)


def their_log_probs(model, ids):
    """The same of a transformers model, computed in float32."""
    with torch.no_grad():
        logits = model(torch.tensor(np.asarray(ids), dtype=torch.long)).logits.float()
    return torch.log_softmax(logits, -1).numpy()


def load(folder):
    """A folder as transformers loads it, values as stored, computing in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, torch_dtype=torch.float32, local_files_only=True)
    return model.eval()
