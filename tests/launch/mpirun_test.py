"""launch/mpirun.sh: what it hands to each MPI, what reaches the ranks, and what it refuses before anything starts."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from program import SOURCE_DIR

SCRIPT = f"{SOURCE_DIR}/launch/mpirun.sh"
# A mpirun that says which one it is, then its own words and the variables that it would hand on, one a line.
RECORDER = """#!/bin/bash
if [ "$1" = --version ]; then echo "$RECORDED_VERSION"; exit; fi
printf 'word %s\\n' "$@"
compgen -e | while read -r name; do printf 'variable %s=%s\\n' "$name" "${!name}"; done
while [ $# -gt 0 ]; do if [ "$1" = -f ]; then sed 's/^/host /' "$2"; fi; shift; done
"""
VERSIONS = {"openmpi4": "mpirun (Open MPI) 4.1.4", "openmpi5": "mpirun (Open MPI) 5.0.7", "mpich": "HYDRA build details:"}


class Mpirun(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        (self.folder / "recorder").write_text(RECORDER)
        (self.folder / "recorder").chmod(0o755)
        # A machine without ssh to others: what asks for a host's cores gets no answer.
        (self.folder / "ssh").write_text("#!/bin/sh\nexit 255\n")
        (self.folder / "ssh").chmod(0o755)
        self.cores = int(subprocess.run(["env", "-u", "OMP_NUM_THREADS", "nproc"], capture_output=True, text=True,
                                        check=True).stdout)

    def start(self, *words, **environment):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_MCA", "PRTE_MCA", "SLURM"))}
        path = {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        return subprocess.run([SCRIPT, *map(str, words)], env={**clean, **path, **environment}, capture_output=True,
                              text=True, timeout=60, check=False)

    def recorded(self, version, *words, **environment):
        """(words, variables, lines of the host file) as the mpirun of that version gets them."""
        result = self.start(*words, VQLM_MPIRUN=f"{self.folder}/recorder", RECORDED_VERSION=VERSIONS[version], **environment)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stderr)
        told = {"word": [], "variable": [], "host": []}
        for line in result.stdout.splitlines():
            kind, _, text = line.partition(" ")
            if kind in told:
                told[kind].append(text)
        return told["word"], dict(text.split("=", 1) for text in told["variable"]), told["host"]

    def hosts(self, *lines):
        (self.folder / "hosts.txt").write_text("".join(f"{line}\n" for line in lines))
        return self.folder / "hosts.txt"

    def assert_has(self, words, *expected):
        """`expected` stand side by side in words."""
        self.assertIn(list(expected), [words[at:at + len(expected)] for at in range(len(words))], words)

    def refused(self, *words, says, **environment):
        result = self.start(*words, **environment)
        self.assertEqual((result.returncode, len(result.stderr.splitlines())), (2, 1), result.stderr)
        for text in says:
            self.assertIn(text, result.stderr)

    def test_open_mpi_4_over_hosts(self):
        hosts = self.hosts("h1 slots=2  # the first", "", "# none", "h2")
        words, variables, _ = self.recorded("openmpi4", "--hosts", hosts, "--ranks-per-node", "1", "--interface",
                                            "10.1.0.0/16,eth1",
                                            "--rank-logs", "logs", "--mpirun-option", "--report-bindings", "vqlm", "train")
        self.assert_has(words, "-n", "2", "--hostfile", str(hosts))
        self.assert_has(words, "--map-by", f"ppr:1:node:PE={self.cores}", "--bind-to", "core")
        self.assert_has(words, "--output-filename", "logs")
        self.assertEqual(words[-3:], ["--report-bindings", "vqlm", "train"])
        expected = {"OMPI_MCA_btl_tcp_if_include": "10.1.0.0/16,eth1", "OMPI_MCA_oob_tcp_if_include": "10.1.0.0/16,eth1",
                    "VQLM_INTERFACE": "10.1.0.0/16,eth1", "OMPI_MCA_oob_tcp_keepalive_time": "10",
                    "OMPI_MCA_oob_tcp_keepalive_intvl": "5", "OMPI_MCA_oob_tcp_keepalive_probes": "3",
                    "OMPI_MCA_plm_rsh_args": "-o ConnectTimeout=10", "OMPI_MCA_btl_tcp_links": "2"}
        self.assertEqual({name: variables.get(name) for name in expected}, expected)
        self.assert_has(words, "-x", "VQLM_INTERFACE")

    def test_open_mpi_5_has_other_names(self):
        words, variables, _ = self.recorded("openmpi5", "--hosts", self.hosts("h1", "h2"), "--ranks-per-node", "1",
                                            "--interface", "eth0",
                                            "--rank-logs", "logs", "true")
        self.assertEqual(words[-3:], ["logs", "PMIX_RANK", "true"])  # a shell around it keeps the logs
        expected = {"OMPI_MCA_btl_tcp_if_include": "eth0", "PRTE_MCA_prte_if_include": "eth0",
                    "PRTE_MCA_oob_tcp_keepalive_time": "10",
                    "PRTE_MCA_oob_tcp_keepalive_intvl": "5", "PRTE_MCA_oob_tcp_keepalive_probes": "3",
                    "PRTE_MCA_plm_ssh_args": "-o ConnectTimeout=10", "OMPI_MCA_oob_tcp_keepalive_time": None}
        self.assertEqual({name: variables.get(name) for name in expected}, expected)
        words, _, _ = self.recorded("openmpi5", "-n", "2", "true")
        self.assert_has(words, "--map-by", ":OVERSUBSCRIBE")
        self.assertNotIn("--oversubscribe", words)

    def test_mpich_has_other_options(self):
        hosts = self.hosts("h1 slots=8  # the first", "h2")
        words, variables, lines = self.recorded("mpich", "--hosts", hosts, "--ranks-per-node", "1", "--interface", "eth0",
                                                "--mpirun-option", "-prepend-rank", "vqlm", "train")
        self.assert_has(words, "-n", "2")
        self.assert_has(words, "-ppn", "1", "-bind-to", f"core:{self.cores}")
        self.assert_has(words, "-iface", "eth0")
        self.assertEqual(words[-3:], ["-prepend-rank", "vqlm", "train"])
        self.assertEqual(lines, ["h1:1", "h2:1"])
        self.assertFalse(pathlib.Path(words[words.index("-f") + 1]).exists(), "the temporary host file stays")
        self.assertEqual((variables["HYDRA_LAUNCHER_EXTRA_ARGS"], variables["VQLM_INTERFACE"]),
                         ("-o ConnectTimeout=10", "eth0"))
        self.assertFalse([word for word in words if word in ("-x", "--mca", "--bind-to")], words)

    def test_what_the_caller_exports_stays(self):
        own = {"OMPI_MCA_oob_tcp_keepalive_time": "60", "OMPI_MCA_plm_rsh_args": "-p 2222", "OMPI_MCA_btl_tcp_links": "1",
               "OMP_NUM_THREADS": "7"}
        words, variables, _ = self.recorded("openmpi4", "--hosts", self.hosts("h1", "h2"), "--ranks-per-node", "1", "true",
                                            **own)
        self.assertEqual({name: variables[name] for name in own}, own)
        _, variables, _ = self.recorded("openmpi4", "-n", "2", "true", OMPI_MCA_plm_rsh_agent="rsh")
        self.assertNotIn("OMPI_MCA_plm_rsh_args", variables)  # rsh knows no ConnectTimeout
        self.assertNotIn("OMPI_MCA_btl_tcp_links", variables)  # one host

    def test_fewer_ranks_than_places(self):
        words, _, _ = self.recorded("openmpi4", "-n", "3", "--hosts", self.hosts("h1", "h2"), "--ranks-per-node", "2",
                                    "--oversubscribe", "true")
        self.assert_has(words, "-n", "3", "--hostfile", str(self.folder / "hosts.txt"))
        self.assert_has(words, "--bind-to", "none", "--map-by", "ppr:2:node", "--oversubscribe")

    def test_variables_reach_the_ranks(self):
        prints = ["bash", "-c", 'echo "$OWN|$GIVEN|$NCCL_DEBUG|$VQLM_INTERFACE|$OTHER"']
        launch = ["-n", "2", "--env", "OWN", "--env", "GIVEN=a b;c", *prints]
        for mpi in ("mpirun", "mpirun.mpich"):
            with self.subTest(mpi):
                if shutil.which(mpi) is None:
                    self.skipTest(f"no {mpi} here")
                result = self.start(*launch, VQLM_MPIRUN=mpi, OWN="1", NCCL_DEBUG="INFO", VQLM_INTERFACE="lo")
                self.assertEqual(result.returncode, 0, result.stderr)
                lines = result.stdout.splitlines()
                self.assertEqual(lines, ["1|a b;c|INFO|lo|"] * 2)

    def test_each_rank_has_a_log(self):
        for mpi in ("mpirun", "mpirun.mpich"):
            with self.subTest(mpi):
                if shutil.which(mpi) is None:
                    self.skipTest(f"no {mpi} here")
                version = subprocess.run([mpi, "--version"], capture_output=True, text=True).stdout
                names = "1/rank.{}" if "(Open MPI) 4" in version else "rank.{}"
                logs = self.folder / mpi
                says = 'rank=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}; echo "out $rank"; echo "err $rank" >&2; exit 3'
                result = self.start("-n", "2", "--rank-logs", logs, "bash", "-c", says, VQLM_MPIRUN=mpi)
                self.assertEqual(result.returncode, 3, result.stderr)
                self.assertEqual(sorted(result.stdout.split("\n")), ["", "out 0", "out 1"])
                for rank in range(2):
                    folder = logs / names.format(rank)
                    self.assertEqual((folder / "stdout").read_text(), f"out {rank}\n")
                    self.assertEqual((folder / "stderr").read_text(), f"err {rank}\n")
                    self.assertIn(f"err {rank}\n", result.stderr)

    def test_a_signal_reaches_the_ranks_of_mpich(self):
        if shutil.which("mpirun.mpich") is None:
            self.skipTest("no mpirun.mpich here")
        waits = 'trap "exit 75" USR1; echo ready; for i in $(seq 300); do sleep 0.1; done'
        # "train": what is stopped then, for mpirun.mpich may lose the exit code.
        for command, code in ((["bash", "-c", waits, "train"], 75), (["bash", "-c", "echo ready; exec sleep 30"], 143)):
            with subprocess.Popen([SCRIPT, "-n", "2", *command], env={**os.environ, "VQLM_MPIRUN": "mpirun.mpich"},
                                  stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True) as process:
                self.assertEqual([process.stdout.readline() for _ in range(2)], ["ready\n"] * 2)
                process.terminate()
                self.assertEqual(process.wait(timeout=30), code)

    def test_errors_name_the_value_and_the_way_out(self):
        hosts = self.hosts("h1 slots=1", "h2")
        many = self.cores + 1
        self.refused("-n", "2", "--env", "NOT_SET_HERE", "true", says=["NOT_SET_HERE", "--env NOT_SET_HERE=VALUE"])
        self.refused("-n", "2", "--env", "A*", "true", says=["A*", "no name of a variable"], AB="1")
        self.refused("-n", "2", "--interface", "eth0;rm", "true", says=["eth0;rm", "10.1.0.0/16"])
        self.refused("-n", "2", "--interface", "10.1.0.0/16", "true", says=["10.1.0.0/16", "eth0"],
                     VQLM_MPIRUN=f"{self.folder}/recorder",
                     RECORDED_VERSION=VERSIONS["mpich"])
        self.refused("-n", "2", "--report-bindings", "true", says=["--report-bindings", "--help"])
        self.refused("-n", "2", "true", says=["no-such-mpirun", "VQLM_MPIRUN"], VQLM_MPIRUN="no-such-mpirun")
        self.refused("-n", "2", "true", says=["OMPI_MCA_mca_base_env_list", "--env"], OMPI_MCA_mca_base_env_list="A")
        self.refused("--hosts", hosts, "--ranks-per-node", "2", "true",
                     says=["--ranks-per-node 2", "h1", "slots=1", "--oversubscribe"])
        self.refused("--hosts", self.hosts("h1"), "--ranks-per-node", many, "true",
                     says=[f"--ranks-per-node {many}", f"{self.cores} cores", "--oversubscribe"])
        self.refused("--hosts", self.hosts("h1 slots=x"), "--ranks-per-node", "1", "true", says=["hosts.txt", "h1 slots=x"])
        self.refused("--hosts", self.hosts("# none"), "--ranks-per-node", "1", "true", says=["hosts.txt", "one name a line"])
        self.refused("-n", "3", "--hosts", self.hosts("h1", "h2"), "--ranks-per-node", "1", "true", says=["-n 3", "room for 2"])
        self.refused("-n", "2", "--ranks-per-node", "2", "true", says=["--hosts"])
        self.refused("-n", "0", "true", says=["-n 0"])
        self.refused("-n", "2", "--spare-hosts", hosts, "true", says=["--restarts"])
        self.refused("-n", "2", "--restarts", "2", "--spare-hosts", hosts, "true", says=["--hosts"])
        self.refused("-n", "2", "--restarts", "none", "true", says=["--restarts none"])
        self.refused("-n", says=["-n needs a value"])

    def test_a_smaller_machine_starts_ranks_on_larger_ones(self):
        (self.folder / "ssh").write_text(f"#!/bin/sh\necho {4 * self.cores}\n")
        words, _, _ = self.recorded("openmpi4", "--hosts", self.hosts("h1"), "--ranks-per-node", 2 * self.cores, "true")
        self.assert_has(words, "--map-by", f"ppr:{2 * self.cores}:node:PE=2")


if __name__ == "__main__":
    unittest.main()
