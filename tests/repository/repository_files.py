"""The repository's own files, for the checks of this folder."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def files(*suffixes: str) -> list[pathlib.Path]:
    """Files that git tracks or would track, with one of these suffixes (none given: all)."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = {ROOT / name for name in listed.split("\0") if name}
    return sorted(p for p in paths if p.is_file() and (not suffixes or p.suffix in suffixes))


CPP_SUFFIXES = (".h", ".cc", ".cu", ".cuh")
