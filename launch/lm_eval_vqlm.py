#!/usr/bin/env python3
"""lm-evaluation-harness (PyPI's lm-eval) with vqlm's models: `vqlm score` gives the log-probabilities, `vqlm generate` the
text. The arguments are those of the lm_eval command, with the model "vqlm":

    pip install lm-eval
    launch/lm_eval_vqlm.py --model vqlm --model_args checkpoint=runs/a --tasks lambada_openai,hellaswag

Model arguments: checkpoint (a run, a checkpoint or a Hugging Face folder), program (the checkout's build/vqlm, or the installed one, unless
said), ranks (1: how many mpirun starts), device, batch, context (tokens of a sample), begin (1: the token that begins a
text stands before every context, as in training; lm-eval's Hugging Face model does so where the tokenizer does by
itself, and not with add_bos_token=False; the default here is 0).
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval's words for one thing, the first wins
ROOT = pathlib.Path(__file__).resolve().parent.parent


class ProgramError(Exception):
    """What the program said when it failed, in one line."""


def run(command, given=None):
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ProgramError((result.stderr.strip().splitlines() or [f"{command[0]}: exit code {result.returncode}"])[-1])
    return result.stdout


@register_model("vqlm")
class Vqlm(LM):
    def __init__(self, checkpoint, program=None, ranks=1, device=None, batch=None, context=None, begin=0, batch_size=None,
                 max_batch_size=None):
        """batch_size and max_batch_size are lm-eval's own words for what `batch` says here, and are not read."""
        super().__init__()
        self.checkpoint = str(checkpoint)
        built = ROOT / "build" / "vqlm"
        self.program = str(program or (built if built.exists() else "vqlm"))
        self.launcher = [str(ROOT / "launch" / "mpirun.sh"), "-n", str(ranks)] if int(ranks) > 1 else []
        # lm-eval says cuda:0 where nobody said anything, and its Hugging Face model then takes a CPU where there is no GPU, as the
        # program does by itself. Another GPU is chosen by CUDA_VISIBLE_DEVICES. `device` itself is a property of LM.
        self.on_device = ["--device", str(device)] if device and device != "cuda:0" else []
        self.begin = bool(int(begin))
        self.context = ["--context", str(context)] if context else []
        self.options = [*self.on_device, *self.context, *(["--batch", str(batch)] if batch else []), *(["--begin"] if self.begin else [])]

    def score(self, lines):
        """The program's answer to each line."""
        if not lines:
            return []
        with tempfile.TemporaryDirectory() as folder:
            asked, told = pathlib.Path(folder, "requests.jsonl"), pathlib.Path(folder, "scores.jsonl")
            asked.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            run([*self.launcher, self.program, "score", "--checkpoint", self.checkpoint, "--input", str(asked), "--out", str(told), *self.options])
            return [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]

    def loglikelihood(self, requests, disable_tqdm=False):
        scores = self.score([{"context": request.args[0], "continuation": request.args[1]} for request in requests])
        return [(score["logprob"], score["greedy"]) for score in scores]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return [score["logprob"] for score in self.score([{"text": request.args[0]} for request in requests])]

    def generate_until(self, requests, disable_tqdm=False):
        return [self.generate(*request.args) for request in requests]

    def generate(self, context, settings):
        settings = dict(settings)
        until = settings.pop("until", None) or []
        stops = [until] if isinstance(until, str) else until
        words = ["--json", "--cut-prompt", *([] if self.begin else ["--no-begin"])]
        do_sample = settings.pop("do_sample", None)
        temperature = float(settings.pop("temperature", 0.0) or 0.0)
        words += ["--temperature", str(0.0 if do_sample is False else temperature)]
        lengths = [settings.pop(name, None) for name in LENGTHS]
        words += ["--max-tokens", str(next((length for length in lengths if length is not None), 256))]
        for name in ("top_p", "top_k"):
            if settings.get(name) is not None:
                words += ["--" + name.replace("_", "-"), str(settings[name])]
            settings.pop(name, None)
        if settings:
            raise ProgramError(f"generation_kwargs: {', '.join(sorted(settings))}: vqlm generate has no such option; take it out of the task")
        # By standard input, which has no limit of length; its last line end is not the prompt's.
        told = json.loads(run([self.program, "generate", "--checkpoint", self.checkpoint, *self.on_device, *self.context, *words], context + "\n"))
        text = told["samples"][0]["text"]
        return text[: min([at for at in map(text.find, filter(None, stops)) if at >= 0], default=len(text))]


if __name__ == "__main__":
    try:
        cli_evaluate()
    except ProgramError as error:
        sys.exit(f"lm_eval_vqlm.py: {error}")
