"""The job on Kubernetes (launch/k8s/mpijob.yaml), as far as it can be tried without a cluster: its YAML, read here and by
kubectl where that is installed; that it agrees with itself and with the image; its launcher's script, run with stand-ins."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(os.environ["VQLM_SOURCE_DIR"])
JOB = ROOT / "launch/k8s/mpijob.yaml"


class Reader:
    """The part of YAML that the file uses: mappings and lists by indentation, plain and quoted scalars, `|`."""

    def __init__(self, text):
        self.raw = text.splitlines()
        self.lines = [re.sub(r"(^|\s+)#.*$", "", line) for line in self.raw]
        self.at = 0

    def skip_blank(self):
        while self.at < len(self.lines) and not self.lines[self.at].strip():
            self.at += 1
        return self.at < len(self.lines)

    def indent(self):
        line = self.lines[self.at]
        assert "\t" not in line, f"line {self.at + 1}: a tab"
        return len(line) - len(line.lstrip())

    def block(self):
        """The mapping or list that begins at this line."""
        indent = self.indent()
        is_list = self.lines[self.at].lstrip().startswith("- ")
        made = [] if is_list else {}
        while self.skip_blank() and self.indent() == indent and self.lines[self.at].lstrip().startswith("- ") == is_list:
            if is_list:
                self.lines[self.at] = self.lines[self.at].replace("- ", "  ", 1)
                item = self.lines[self.at].strip()
                made.append(self.block() if re.match(r"[\w./-]+:( |$)", item) else self.scalar(item, indent))
                continue
            key, colon, value = self.lines[self.at].strip().partition(":")
            assert colon and key not in made, f"line {self.at + 1}: no key, or one that is there twice: {self.lines[self.at]}"
            if value:
                made[key] = self.scalar(value.strip(), indent)
            else:
                self.at += 1
                assert self.skip_blank() and self.indent() > indent, f"line {self.at}: {key} has no value"
                made[key] = self.block()
        assert not self.skip_blank() or self.indent() <= indent, f"line {self.at + 1}: deeper than what it belongs to"
        return made

    def scalar(self, text, indent):
        self.at += 1
        if text == "|":
            first = self.at
            while self.at < len(self.raw) and re.match(rf"\s*$| {{{indent + 1}}}", self.raw[self.at]):
                self.at += 1
            kept = self.raw[first : self.at]
            margin = len(kept[0]) - len(kept[0].lstrip())
            return "\n".join(line[margin:] for line in kept).rstrip("\n") + "\n"
        if quoted := re.fullmatch(r'"([^"\\]*)"', text):
            return quoted.group(1)
        assert not re.match(r"""['"\[{&*!>%@`]""", text), f"line {self.at}: not of the part of YAML that is read here: {text}"
        return int(text) if re.fullmatch(r"\d+", text) else text


def read_job():
    reader = Reader(JOB.read_text(encoding="utf-8"))
    assert reader.skip_blank()
    job = reader.block()
    assert not reader.skip_blank(), f"line {reader.at + 1}: not read"
    return job


def setting(path, name):
    """The value behind the first word `name` of a file of words."""
    return re.search(rf"^\s*{name}\s+(\S+)", (ROOT / path).read_text(encoding="utf-8"), re.M).group(1)


class Job(unittest.TestCase):
    def setUp(self):
        self.job = read_job()
        replicas = self.job["spec"]["mpiReplicaSpecs"]
        self.launcher = replicas["Launcher"]["template"]["spec"]
        self.worker = replicas["Worker"]["template"]["spec"]
        self.environment = {entry["name"]: entry["value"] for entry in self.launcher["containers"][0]["env"]}

    @unittest.skipUnless(shutil.which("kubectl"), "needs kubectl")
    def test_kubectl_reads_the_same(self):
        words = ["kubectl", "annotate", "--local", "-f", JOB, "-o", "json", "read-by=kubectl"]
        read = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60,
                              env={**os.environ, "KUBECONFIG": os.devnull})
        self.assertEqual(read.returncode, 0, read.stderr)
        there = json.loads(read.stdout)
        self.assertEqual(there["metadata"].pop("annotations"), {"read-by": "kubectl"})
        self.assertEqual(there, self.job)

    def test_every_mount_has_its_volume(self):
        for pod in (self.launcher, self.worker):
            mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
            self.assertEqual(mounts, {volume["name"] for volume in pod["volumes"]})
        claims = [pod["volumes"][0]["persistentVolumeClaim"] for pod in (self.launcher, self.worker)]
        self.assertEqual(claims[0], claims[1])

    def test_ranks_are_gpus_and_slots(self):
        ranks = int(self.environment["RANKS"])
        self.assertEqual(self.job["spec"]["slotsPerWorker"], ranks)
        resources = self.worker["containers"][0]["resources"]
        self.assertEqual(resources["limits"]["nvidia.com/gpu"], ranks)
        self.assertEqual(int(resources["requests"]["cpu"]), ranks * int(self.environment["OMP_NUM_THREADS"]))

    def test_it_agrees_with_the_image(self):
        container = self.worker["containers"][0]
        recipe = (ROOT / "Containerfile").read_text(encoding="utf-8")
        self.assertEqual(container["image"], self.launcher["containers"][0]["image"])
        self.assertIn(f"COPY launch/container/sshd_config {container['command'][-1]}\n", recipe)
        port = container["readinessProbe"]["tcpSocket"]["port"]
        for path in ("launch/container/sshd_config", "launch/container/ssh_config"):
            self.assertEqual(int(setting(path, "Port")), port, path)
        self.assertEqual(int(setting("Containerfile", "EXPOSE")), port)
        keys = self.job["spec"]["sshAuthMountPath"]
        self.assertEqual(setting("launch/container/sshd_config", "HostKey"), f"{keys}/id_rsa")
        user, home = setting("Containerfile", "USER"), os.path.dirname(keys)
        self.assertEqual(home, f"/home/{user}")
        for pod in (self.launcher, self.worker):
            self.assertIn(f"--uid {pod['containers'][0]['securityContext']['runAsUser']} ", recipe)
            self.assertIn(f"\nWORKDIR {pod['containers'][0]['workingDir']}\n", recipe)
        config = self.environment["CONFIG"].removeprefix("/usr/local/share/vqlm/")
        self.assertTrue((ROOT / config).is_file(), config)
        (pre_stop,) = container["lifecycle"]["preStop"]["exec"]["command"]
        self.assertIn(f"COPY launch/container/stop_ranks.sh {pre_stop}\n", recipe)

    def start(self, doctor):
        """The launcher's script with mpirun.sh that says its words, and fails for doctor where told."""
        container = self.launcher["containers"][0]
        with tempfile.TemporaryDirectory() as folder:
            stand_in = pathlib.Path(folder) / "mpirun.sh"
            stand_in.write_text(f"""#!/usr/bin/env bash
                printf '%s\\n' "$*"
                if [[ "$*" == *" doctor "* ]]; then exit {doctor}; fi
                exit 75
                """, encoding="utf-8")
            stand_in.chmod(0o755)
            environment = {**os.environ, **self.environment, "PATH": f"{folder}:{os.environ['PATH']}"}
            return subprocess.run([*container["command"], *container["args"]], capture_output=True, text=True, check=False,
                                  timeout=20, cwd=folder, env=environment)

    def test_doctor_comes_first_and_training_ends_the_pod_with_its_own_code(self):
        started = self.start(doctor=0)
        self.assertEqual(started.returncode, 75, started.stderr)
        doctor, train = started.stdout.splitlines()
        ranks = "--hosts /etc/mpi/hostfile --ranks-per-node 8 --oversubscribe "
        shards = self.environment["SHARDS"]
        self.assertEqual(doctor, f"{ranks}vqlm doctor --device cuda --data {shards}/train-*.h5")
        config = self.environment["CONFIG"]
        self.assertTrue(train.startswith(f"{ranks}vqlm train --config {config} --device cuda --resume=auto "), train)
        self.assertIn(f"--set run.dir={self.environment['RUN']} --set data.train={shards}/train-*.h5 ", train)

    def test_no_training_where_doctor_fails(self):
        started = self.start(doctor=1)
        self.assertEqual(started.returncode, 1)
        self.assertEqual(len(started.stdout.splitlines()), 1)

    def test_a_worker_that_goes_stops_its_ranks_and_nothing_else(self):
        """In a process namespace of its own, so that no other vqlm of this machine is stopped."""
        alone = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--pid", "--fork", "--mount-proc"]
        if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest("needs namespaces of processes")
        with tempfile.TemporaryDirectory() as folder:
            # The rank answers late, as one that saves does, and its parent never asks for its end.
            script = f"""cd {folder}
                cp "$(command -v bash)" vqlm; cp "$(command -v sleep)" other
                (./vqlm -c 'trap "sleep 1; echo saved; exit 75" USR1; while :; do sleep 0.1; done' & exec ./other 30) & other=$!
                sleep 0.3
                timeout 20 {ROOT}/launch/container/stop_ranks.sh; echo "returned $?"
                kill $other && echo "other left"
                {ROOT}/launch/container/stop_ranks.sh; echo "without ranks $?" """
            done = subprocess.run([*alone, "bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
        words = ["saved", "returned 0", "other left", "without ranks 0"]
        self.assertEqual(done.stdout.splitlines(), words, done.stderr)


if __name__ == "__main__":
    unittest.main()
