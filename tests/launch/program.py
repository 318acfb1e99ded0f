"""Running vqlm from tests: alone or under mpirun, with its exit code and its words."""

import os
import subprocess

PROGRAM = os.environ["VQLM_PROGRAM"]
SOURCE_DIR = os.environ["VQLM_SOURCE_DIR"]


def run(*arguments, ranks=0, cwd=None, timeout=120, environment=None, shell=None):
    """ranks = 0: without mpirun; environment: variables to add; shell: bash code that each rank runs first. Returns subprocess.CompletedProcess with text output."""
    command = [PROGRAM, *map(str, arguments)]
    if shell:
        command = ["bash", "-c", shell + '; exec "$0" "$@"', *command]
    if ranks:
        command = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", "--timeout", str(timeout), *command]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=timeout + 10, check=False)


def error_lines(result):
    """The program's own error lines; mpirun adds remarks of its own around them."""
    return [line for line in result.stderr.splitlines() if "vqlm: error: " in line]
