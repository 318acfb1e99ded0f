"""launch/lm_eval_vqlm.py answers as lm-evaluation-harness's own Hugging Face model did (tests/lm_eval/goldens.json). Of lm-eval
itself only the names that the script imports are here."""

import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import types
import unittest

from program import PROGRAM, SOURCE_DIR

SOURCE = pathlib.Path(SOURCE_DIR)
sys.path.insert(0, str(SOURCE / "tests" / "lm_eval"))
from models import LENGTH, write_model  # noqa: E402


class Lm:
    """As lm_eval.api.model.LM: the device is read, never set."""

    def __init__(self):
        self._device = None

    @property
    def device(self):
        return self._device


def script():
    """launch/lm_eval_vqlm.py as a module."""
    names = {"__main__": {"cli_evaluate": None}, "api.model": {"LM": Lm}, "api.registry": {"register_model": lambda name: lambda model: model}}
    for name, contents in {"": {}, "api": {}, **names}.items():
        module = types.ModuleType(f"lm_eval.{name}".rstrip("."))
        module.__dict__.update(contents)
        sys.modules[module.__name__] = module
    spec = importlib.util.spec_from_file_location("lm_eval_vqlm", SOURCE / "launch" / "lm_eval_vqlm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Request:
    def __init__(self, arguments):
        self.args = tuple(arguments)


class LmEval(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.module = script()
        cls.goldens = json.loads((SOURCE / "tests/lm_eval/goldens.json").read_text(encoding="utf-8"))
        for head in ("dense", "vq"):
            write_model(cls.folder / head, head)

    def model(self, head, **more):
        return self.module.Vqlm(checkpoint=self.folder / head, program=PROGRAM, device="cpu", batch_size=4, **more)

    def close(self, told, expected, what):
        # Sums in fp32 in other orders, of up to some hundred tokens: tests/lm_eval/compare.py.
        self.assertLess(abs(told - expected), 2e-6 * abs(expected) + 2e-5, what)

    def test_every_answer(self):
        for head in ("dense", "vq"):
            model, tasks = self.model(head), self.goldens[head]
            pairs = [pair for task in ("vqlm_last_word", "vqlm_endings", "vqlm_pairs") for pair in tasks[task]]
            self.assertGreater(len(pairs), 60)
            for (arguments, (score, greedy)), (our_score, our_greedy) in zip(
                    pairs, model.loglikelihood([Request(arguments) for arguments, _ in pairs]), strict=True):
                self.close(our_score, score, (head, arguments))
                self.assertEqual(our_greedy, greedy, (head, arguments))
            texts = tasks["vqlm_whole_text"]
            for (arguments, score), our_score in zip(texts, model.loglikelihood_rolling([Request(arguments) for arguments, _ in texts]), strict=True):
                self.close(our_score, score, (head, arguments))
            prompts = tasks["vqlm_go_on"]
            self.assertEqual(model.generate_until([Request(arguments) for arguments, _ in prompts]), [text for _, text in prompts])

    def test_settings_of_generation(self):
        model = self.model("dense")
        whole = model.generate("The tide was", {"max_new_tokens": 12})
        middle = whole[len(whole) // 2]
        self.assertEqual(model.generate("The tide was", {"max_gen_toks": 12, "max_tokens": 3, "until": middle}), whole.split(middle)[0])
        self.assertEqual(model.generate("The tide was", {"max_gen_toks": 12, "until": [""], "temperature": 2.0, "do_sample": False}), whole)
        self.assertNotEqual(model.generate("The tide was", {"max_gen_toks": 12, "temperature": 2.0, "top_k": 50, "top_p": 0.9}), whole)
        for settings, words in (({"max_gen_toks": 4, "num_beams": 3}, "num_beams"), ({"max_gen_toks": LENGTH}, "leaves no room for a prompt")):
            with self.assertRaisesRegex(self.module.ProgramError, words):
                model.generate("The tide was", settings)

    def test_devices(self):
        def words(device):
            return self.module.Vqlm(checkpoint="a", device=device).on_device

        self.assertEqual((words(None), words("cuda:0"), words("cpu"), words("cuda:1")), ([], [], ["--device", "cpu"], ["--device", "cuda:1"]))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    unittest.main()
