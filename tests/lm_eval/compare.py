#!/usr/bin/env python3
"""lm-evaluation-harness's own Hugging Face model and launch/lm_eval_vqlm.py on the same models and the tasks of this folder, item
by item. Wants lm-eval, PyTorch and transformers; the program is built.

    python3 -m venv ENV && ENV/bin/pip install 'lm-eval[hf]' 'transformers<5' sentencepiece protobuf
    ENV/bin/python tests/lm_eval/compare.py                  # exit code 1 where an answer differs
    ENV/bin/python tests/lm_eval/compare.py --write          # and goldens.json, which tests/launch/lm_eval_test.py reads
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
TASKS = ["vqlm_last_word", "vqlm_endings", "vqlm_pairs", "vqlm_whole_text", "vqlm_go_on"]
# Sums in fp32 in other orders; a text's sum is of up to some thousand tokens.
RELATIVE, ABSOLUTE = 2e-6, 2e-5
os.environ.setdefault("VQLM_PROGRAM", str(SOURCE / "build" / "vqlm"))
os.environ["VQLM_SOURCE_DIR"] = str(SOURCE)
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
for folder in ("launch", "tests/launch", "tests/interop", "tests/lm_eval"):
    sys.path.insert(0, str(SOURCE / folder))


def answers(evaluation):
    """{task: [(arguments, response)]} of all requests, in the order of the tasks' files."""
    told = {}
    for task in TASKS:
        pairs = []
        for sample in sorted(evaluation["samples"][task], key=lambda sample: sample["doc_id"]):
            requests = sample["arguments"]
            requests = [requests[name] for name in sorted(requests)] if isinstance(requests, dict) else requests
            for request, response in zip(requests, sample["resps"], strict=True):
                arguments = [request[name] for name in sorted(request)] if isinstance(request, dict) else request
                pairs.append([list(arguments), response[0] if len(response) == 1 else response])
        told[task] = pairs
    return json.loads(json.dumps(told))  # tuples as lists


def evaluated(model, **arguments):
    import lm_eval
    import lm_eval.models  # which registers them
    import lm_eval.tasks

    manager = lm_eval.tasks.TaskManager(include_path=str(HERE), include_defaults=False)
    return lm_eval.simple_evaluate(model=model, tasks=TASKS, task_manager=manager, log_samples=True, bootstrap_iters=0, **arguments)


def number_of(response):
    """(log-probability or None, the rest)."""
    if isinstance(response, list):
        return float(response[0]), response[1:]
    return (response, None) if isinstance(response, float) else (None, response)


def differences(theirs, ours):
    """What differs, in words, and the largest difference of a log-probability, relative."""
    found, largest = [], 0.0
    for task in TASKS:
        for number, (their, our) in enumerate(zip(theirs[task], ours[task], strict=True)):
            (their_score, their_rest), (our_score, our_rest) = number_of(their[1]), number_of(our[1])
            apart = abs(their_score - our_score) if their_score is not None and our_score is not None else 0.0
            largest = max(largest, apart / abs(their_score) if their_score else 0.0)
            if their[0] != our[0] or their_rest != our_rest or apart > RELATIVE * abs(their_score or 0) + ABSOLUTE:
                found.append(f"{task} {number}: {json.dumps(their)} there, {json.dumps(our[1])} here")
    return found, largest


def compared(name, checkpoint, folder):
    """The same by both; returns lm-eval's own answers and whether they agree."""
    from lm_eval_vqlm import Vqlm

    # Our folders' tokenizers put the token that begins a text there by themselves; lm_eval_vqlm.py leaves it out unless asked.
    arguments = {"pretrained": str(folder), "trust_remote_code": True, "dtype": "float32", "add_bos_token": False}
    theirs = evaluated("hf", model_args=arguments, device="cpu", batch_size=4)
    ours = evaluated(Vqlm(checkpoint=checkpoint, program=os.environ["VQLM_PROGRAM"], device="cpu"))
    found, largest = differences(answers(theirs), answers(ours))
    count = sum(map(len, answers(theirs).values()))
    print(f"{name}: {count} requests, {len(found)} differ, log-probabilities by {largest:.1e} of their value at most")
    for line in found:
        print(f"  {line}")
    for task in TASKS:
        told = [{key: value for key, value in result["results"][task].items() if isinstance(value, float)} for result in (theirs, ours)]
        print(f"  {task}: " + ", ".join(f"{key.split(',')[0]} {value:.6g} and {told[1][key]:.6g}" for key, value in told[0].items()))
    return answers(theirs), not found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="writes goldens.json")
    arguments = parser.parse_args()
    from models import write_model
    from trained import Trained

    os.chdir(HERE)  # the tasks' files are named from here
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update({"HF_DATASETS_CACHE": scratch, "HF_MODULES_CACHE": scratch})
        Trained.setUpClass()
        goldens, agree = {}, True
        for head in ("dense", "vq"):
            write_model(Trained.folder / head / "made", head)
            folder = Trained.folder / head / "hf"
            Trained.succeed("convert", "--from", "hf", "--input", Trained.folder / head / "made", "--to", "hf", "--out", folder)
            goldens[head], same = compared(f"{head}, by formula", folder, folder)
            agree = agree and same
        for name in ("dense", "vq_embedding_mean"):
            checkpoint, folder = Trained.trained(name), Trained.folder / f"{name}-hf"
            Trained.succeed("convert", "--to", "hf", "--checkpoint", checkpoint, "--out", folder)
            agree = compared(f"{name}, trained", checkpoint, folder)[1] and agree
        Trained.doClassCleanups()
    versions = {package: importlib.metadata.version(package) for package in ("lm-eval", "transformers", "torch")}
    print(versions)
    if arguments.write:
        lines = [f"{json.dumps(head)}: {{\n" + ",\n".join(
            f" {json.dumps(task)}: [\n" + ",\n".join("  " + json.dumps(pair, ensure_ascii=False) for pair in pairs) + "]"
            for task, pairs in tasks.items()) + "}" for head, tasks in goldens.items()]
        (HERE / "goldens.json").write_text(f'{{"versions": {json.dumps(versions)},\n' + ",\n".join(lines) + "}\n", encoding="utf-8")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
