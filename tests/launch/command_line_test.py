"""The command line: help, exit codes, and one-line errors that name the thing and the way out."""

import pathlib
import subprocess
import tempfile
import unittest

from program import SOURCE_DIR, error_lines, run

COMMANDS = ["prepare", "train", "eval", "convert", "codes", "generate", "score", "samples", "replay", "bench", "tune", "plan", "doctor", "selftest", "report"]


class CommandLine(unittest.TestCase):
    def assert_fails(self, result, exit_code, *words):
        """The exit code, and exactly one line on standard error that holds the words."""
        self.assertEqual(result.returncode, exit_code, result.stderr)
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, result.stderr)
        for word in words:
            self.assertIn(word, lines[0])
        return lines[0]

    def test_help_of_every_command_has_examples(self):
        result = run("--help")
        self.assertEqual(result.returncode, 0)
        for command in COMMANDS:
            self.assertIn(command, result.stdout)
            with self.subTest(command=command):
                help_of_command = run(command, "--help")
                self.assertEqual(help_of_command.returncode, 0)
                self.assertIn(f"vqlm {command}", help_of_command.stdout)
                self.assertIn("Example", help_of_command.stdout)
                self.assertEqual(help_of_command.stderr, "")

    def test_help_of_parts_of_commands_ends_with_their_own_examples(self):
        parts = [f"{command} {part}" for command, parts in (("codes", ("make", "refit", "show", "compare")),
                                                           ("bench", ("head", "ops", "attention", "products", "step"))) for part in parts]
        for words in [*COMMANDS, *parts]:
            with self.subTest(words):
                text = run(*words.split(), "--help").stdout.rstrip("\n")
                examples = text.rpartition("Examples:\n")[2].splitlines()
                self.assertTrue(all(line.startswith("  ") for line in examples), text[-400:])
                self.assertTrue(any(f"vqlm {words} " in line + " " for line in examples), text[-400:])

    def test_help_of_train_names_every_key(self):
        text = run("train", "--help").stdout
        for key in ["model.d_model", "head.clusters", "optim.lr", "parallel.tensor", "run.dir"]:
            self.assertIn(key, text)

    def test_version(self):
        result = run("--version")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout, r"^vqlm \d+\.\d+\.\d+( \([0-9a-z-]+\))?\n$")
        self.assertEqual(run("version").stdout, result.stdout)

    def test_help_as_a_word(self):
        self.assertEqual(run("help").stdout, run("--help").stdout)
        self.assertEqual(run("help", "codes", "make").stdout, run("codes", "make", "--help").stdout)

    def test_no_command(self):
        self.assert_fails(run(), 2, "--help")

    def test_unknown_command_names_the_nearest(self):
        self.assert_fails(run("trian"), 2, "trian", "nearest is train")

    def test_unknown_option_names_the_nearest(self):
        self.assert_fails(run("train", "--lr", "3e-4"), 2, "--lr", "--set optim.lr=VALUE")
        self.assert_fails(run("train", "--confg", "a.toml"), 2, "--confg", "nearest is --config")
        self.assert_fails(run("train", "--resum"), 2, "nearest is --resume")
        self.assert_fails(run("--versoin"), 2, "nearest is --version")

    def test_missing_option(self):
        self.assert_fails(run("eval", "--data", "x.h5"), 2, "--checkpoint")

    def test_unknown_key_names_the_nearest(self):
        config = f"{SOURCE_DIR}/configs/smoke.toml"
        self.assert_fails(run("train", "--config", config, "--set", "model.dmodel=3"), 2, "model.dmodel", "model.d_model")

    def test_unknown_key_in_a_file_names_the_line(self):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "a.toml"
            config.write_text("[train]\nstesp = 3\n", encoding="utf-8")
            self.assert_fails(run("train", "--config", config), 2, "a.toml:2", "train.stesp", "train.steps")

    def test_missing_files(self):
        self.assert_fails(run("train", "--config", "/nowhere/a.toml"), 1, "/nowhere/a.toml")
        self.assert_fails(run("report", "/nowhere/run"), 1, "/nowhere/run")
        missing_shards = ["--set", "data.train=/nowhere/train-*.h5"]
        self.assert_fails(run("train", *missing_shards), 1, "/nowhere/train-*.h5")

    def test_standard_output_that_cannot_be_written(self):
        for arguments in [["--help"], ["plan", "--help"], ["plan", "--config", f"{SOURCE_DIR}/configs/smoke.toml", "--vocab", "1000"]]:
            with self.subTest(arguments=arguments):
                self.assert_fails(run(*arguments, shell="exec >/dev/full"), 1, "standard output", "No space left")

    def test_threads_beyond_reason_are_capped(self):
        for count in ["8192", "100000"]:
            tiny = ["--rows", 16, "--width", 32, "--d-ff", 32, "--vocab", 64, "--logit-rows", 16, "--seconds", 0.01, "--threads", 0]
            result = run("bench", "products", "--device", "cpu", *tiny, environment={"OMP_NUM_THREADS": count})
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(f"OMP_NUM_THREADS = {count}: ", result.stderr)

    def test_several_ranks_speak_once_and_end(self):
        result = run("train", "--set", "train.stesp=3", ranks=3)
        self.assert_fails(result, 2, "train.stesp", "train.steps")
        result = run("trian", ranks=2)
        self.assertEqual(len(error_lines(result)), 1, result.stderr)
        self.assertEqual(result.returncode, 2)

    def test_commands_of_one_process_refuse_several(self):
        prepare = run("prepare", "--input", "/nowhere/*.txt", "--out", "/nowhere/out", ranks=2)
        self.assert_fails(prepare, 2, "prepare", "started 2", "--jobs")
        self.assert_fails(run("report", "/nowhere/run", ranks=2), 2, "report", "started 2")

    def test_ranks_that_mpi_does_not_connect(self):
        for variable in ["PMI_SIZE", "SLURM_STEP_NUM_TASKS"]:
            with self.subTest(variable=variable):
                result = run("train", environment={variable: "4"})
                self.assert_fails(result, 1, "started 4 processes", "srun --mpi=pmix", "mpirun")
        one = run("train", "--set", "data.train=/nowhere/train-*.h5", environment={"SLURM_STEP_NUM_TASKS": "1"})
        self.assert_fails(one, 1, "/nowhere/train-*.h5")

    def test_the_launch_script_refuses_what_it_would_ignore(self):
        with tempfile.TemporaryDirectory() as folder:
            hosts = pathlib.Path(folder) / "hosts.txt"
            hosts.write_text("# none yet\n\n", encoding="utf-8")
            for arguments, words in [
                (["-n", "2", "--ranks-per-node", "2", "true"], "--ranks-per-node needs --hosts; on this machine use -n"),
                (["--ranks-per-node", "2", "true"], "--ranks-per-node needs --hosts"),
                (["--hosts", hosts, "--ranks-per-node", "2", "true"], "names no machine"),
                (["--hosts", hosts, "true"], "--ranks-per-node"),
                (["-n", "0", "true"], "-n 0"),
                (["-n", "2"], "no command"),
            ]:
                with self.subTest(arguments=arguments):
                    command = [f"{SOURCE_DIR}/launch/mpirun.sh", *map(str, arguments)]
                    result = subprocess.run(command, capture_output=True, text=True, check=False)
                    self.assertEqual(result.returncode, 2, result.stderr)
                    self.assertIn(words, result.stderr.splitlines()[0])


if __name__ == "__main__":
    unittest.main()
