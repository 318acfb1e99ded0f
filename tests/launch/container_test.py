"""The images' recipes (Containerfile, launch/container), as far as they can be tried without a registry: what they copy
exists and is enough to configure and install, what they install exists and covers the program's libraries, their ssh
configurations take hosts with the job's own key alone."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

from program import PROGRAM, SOURCE_DIR

ROOT = pathlib.Path(SOURCE_DIR)
CONTAINER = ROOT / "launch/container"
LIBRARY_PACKAGES = CONTAINER / "library_packages.sh"


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def joined(text):
    """Without comments, with lines that end in a backslash put together."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\\\n", " ", "\n".join(lines))


def copied_sources():
    """(source, destination) of every COPY from the build context."""
    pairs = []
    for line in joined(read("Containerfile")).splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--"):
            pairs += [(source, words[-1]) for source in words[1:-1]]
    return pairs


def run(*command, environment=None, cwd=None):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=cwd,
                          env={**os.environ, **(environment or {})})


def libraries():
    """Paths of the shared libraries of the program, as the loader finds them."""
    found = run("ldd", PROGRAM).stdout
    return re.findall(r"=> (/\S+)", found)


class Sources(unittest.TestCase):
    def test_all_that_is_copied_exists(self):
        sources = copied_sources()
        self.assertGreater(len(sources), 10)
        definition = read("launch/container/vqlm.def")
        of_apptainer = re.findall(r"^ {4}(\S+) /src/(\S+)$", definition, re.M)
        self.assertEqual([source for source, _ in of_apptainer], [name for _, name in of_apptainer])
        for source in [source for source, _ in sources] + [source for source, _ in of_apptainer]:
            self.assertTrue((ROOT / source).exists(), f"{source} is copied into an image and does not exist")
        whole = {source for source, target in sources if target in (".", "./", source)}
        self.assertEqual(whole, {source for source, _ in of_apptainer}, "the two recipes copy other sources")

    def test_nothing_that_is_copied_is_ignored(self):
        ignored = {line for line in read(".containerignore").splitlines() if line and not line.startswith("#")}
        self.assertFalse(ignored & {source.split("/")[0] for source, _ in copied_sources()})
        self.assertIn(".git", ignored)

    @unittest.skipUnless(shutil.which("cmake") and shutil.which("ninja"), "needs cmake and ninja")
    def test_what_is_copied_is_enough_to_configure_and_install(self):
        with tempfile.TemporaryDirectory() as folder:
            here = pathlib.Path(folder)
            for source, target in copied_sources():
                if target not in (".", "./", source):
                    continue  # the run stage's
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, here / source)
                else:
                    shutil.copy(ROOT / source, here / source)
            made = run("cmake", "--preset", "release", "-DVQLM_TESTS=OFF", "-DVQLM_CUDA=OFF", cwd=here)
            self.assertEqual(made.returncode, 0, made.stderr)
            script = (here / "build/cmake_install.cmake").read_text(encoding="utf-8")
            installed = [path for path in re.findall(rf'"({re.escape(str(here))}/[^"]+)"', script)
                         if not path.startswith(f"{here}/build/") or "/compressed/" in path]
            self.assertGreater(len(installed), 8)
            for path in installed:
                self.assertTrue(os.path.exists(path), f"{path} would be installed and is not copied")


class Packages(unittest.TestCase):
    @unittest.skipUnless(shutil.which("apt-cache"), "needs apt")
    def test_packages_that_are_installed_by_name_exist(self):
        if run("apt-cache", "show", "openssh-client").returncode != 0:
            self.skipTest("apt has no lists here")
        for recipe in ("Containerfile", "launch/container/vqlm.def"):
            words = re.search(r"--no-install-recommends([^&\n]*)", joined(read(recipe))).group(1).split()
            self.assertIn("openmpi-bin", words)
            for package in words:
                known = run("apt-cache", "show", package).returncode == 0
                self.assertTrue(known, f"{recipe} installs {package}, which apt does not know")

    @unittest.skipUnless(shutil.which("dpkg"), "needs dpkg")
    def test_packages_of_the_run_stage_hold_every_library(self):
        paths = libraries()
        self.assertTrue(any("libmpi" in path for path in paths), paths)
        if any(not path.startswith(("/lib", "/usr/lib")) for path in paths):
            self.skipTest("this build takes libraries from outside of the distribution")
        listed = run(str(LIBRARY_PACKAGES), PROGRAM)
        self.assertEqual(listed.returncode, 0, listed.stderr)
        packages = listed.stdout.split()
        self.assertEqual(packages, sorted(set(packages)))
        # dpkg's own list of what they hold, not the search that the script did.
        held = {os.path.realpath(path) for path in run("dpkg", "-L", *packages).stdout.splitlines() if ".so" in path}
        for path in paths:
            self.assertIn(os.path.realpath(path), held, f"no package of {packages} holds {path}")

    @unittest.skipUnless(shutil.which("dpkg"), "needs dpkg")
    def test_a_library_of_no_package_is_refused_by_name(self):
        path = next(path for path in libraries() if "libhdf5" in path)
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / os.path.basename(path)
            shutil.copy(path, copy)
            refused = run(str(LIBRARY_PACKAGES), PROGRAM, environment={"LD_LIBRARY_PATH": folder})
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"no package holds {copy}", refused.stderr)

    def test_no_program_is_bad_usage(self):
        self.assertEqual(run(str(LIBRARY_PACKAGES)).returncode, 2)


@unittest.skipUnless(shutil.which("buildah"), "needs buildah")
class Stages(unittest.TestCase):
    def first_image(self, *arguments):
        """buildah's words about the first image, which it may not fetch."""
        with tempfile.TemporaryDirectory() as folder:
            none = pathlib.Path(folder) / "registries.conf"
            none.write_text("", encoding="utf-8")
            store = ["--storage-driver", "vfs", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
            context = ["-f", str(ROOT / "Containerfile"), str(CONTAINER)]
            tried = run("buildah", *store, "build", "--isolation", "chroot", "--pull-never", *arguments, *context,
                        environment={"CONTAINERS_REGISTRIES_CONF": str(none)})
            self.assertNotEqual(tried.returncode, 0)
            return tried.stdout + tried.stderr

    def test_buildah_reads_the_recipe_and_takes_the_image_of_the_variant(self):
        cuda = ("--build-arg", "CUDA=12.9.1")
        self.assertIn("FROM debian:bookworm-slim AS build", self.first_image())
        self.assertIn("FROM nvidia/cuda:12.9.1-devel-ubuntu24.04 AS build", self.first_image(*cuda))
        self.assertIn("FROM mirror/cuda:12.9.1-devel", self.first_image(*cuda, "--build-arg", "CUDA_IMAGE=mirror/cuda"))


@unittest.skipUnless(shutil.which("ssh") and os.path.exists("/usr/sbin/sshd"), "needs ssh and sshd")
class Ssh(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for keys in ("job", "stranger"):
            (self.path / keys).mkdir()
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.path / keys / "id_rsa"))

    def answer(self, host_key):
        """ssh with the job's keys to a server whose host key is of the pair `host_key` and which admits the job's key."""
        job = self.path / "job"
        server = read("launch/container/sshd_config").replace("Port 2222", f"Port {self.port}\nListenAddress 127.0.0.1")
        server = server.replace("/home/vqlm/.ssh", str(self.path / host_key)) + f"AuthorizedKeysFile {job}/id_rsa.pub\n"
        client = read("launch/container/ssh_config").replace("Port 2222", f"Port {self.port}").replace("%d/.ssh", str(job))
        client += f"IdentityFile {job}/id_rsa\nIdentitiesOnly yes\nBatchMode yes\n"
        (self.path / "sshd_config").write_text(server, encoding="utf-8")
        (self.path / "ssh_config").write_text(client, encoding="utf-8")
        command = ["/usr/sbin/sshd", "-De", "-f", str(self.path / "sshd_config")]
        if os.geteuid() == 0 and not os.path.isdir("/run/sshd"):
            # As root it asks for that folder, which its service would make.
            make = 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", make, "sh", *command]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
            try:
                first = daemon.stderr.readline()
                if "unshare" in first:
                    self.skipTest(first)
                self.assertIn("listening", first)
                return run("ssh", "-F", str(self.path / "ssh_config"), "127.0.0.1", "echo hello")
            finally:
                daemon.terminate()

    def test_a_host_with_the_jobs_key_is_taken_and_no_other(self):
        taken = self.answer("job")
        self.assertEqual((taken.returncode, taken.stdout), (0, "hello\n"), taken.stderr)
        refused = self.answer("stranger")
        self.assertEqual(refused.returncode, 255)
        self.assertIn("Host key verification failed", refused.stderr)


if __name__ == "__main__":
    unittest.main()
