"""What docs/CONVENTIONS.md asks of every file."""

import os
import re
import shutil
import subprocess

import pytest

from repository_files import CPP_SUFFIXES, ROOT, files

MAX_LINES = 600
TEXT_SUFFIXES = CPP_SUFFIXES + (".py", ".sh", ".proto", ".cmake", ".md", ".yaml", ".yml")
# Included in the middle of kernels/cpu/simd.h, once for each instruction set: no header by itself.
TEXTUAL = re.compile(r"kernels/cpu/simd_(scalar|avx2|avx512)\.h")


def relative(path) -> str:
    return str(path.relative_to(ROOT))


def text_files():
    return files(*TEXT_SUFFIXES) + [p for p in files() if p.name == "CMakeLists.txt"]


def scripts():
    return [p for p in files() if p.suffix == ".sh" or p == ROOT / ".ci/run"]


def test_no_file_is_too_long():
    lengths = {relative(p): p.read_text().count("\n") for p in text_files()}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert not long, f"over {MAX_LINES} lines: {long}"


def test_text_is_clean():
    found = []
    for path in text_files():
        text = path.read_text(encoding="utf-8")
        if "\r" in text or re.search(r"[ \t]+$", text, re.MULTILINE):
            found.append(f"{relative(path)}: white space at the end of a line")
        if text and not text.endswith("\n"):
            found.append(f"{relative(path)}: no newline at the end")
    assert not found, "\n" + "\n".join(found)


def test_nothing_is_left_for_later():
    mark = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    found = [f"{relative(path)}:{number}" for path in text_files()
             for number, line in enumerate(path.read_text().splitlines(), 1) if mark.search(line)]
    assert not found, found


def test_header_guards_follow_the_path():
    found = []
    for path in files(".h"):
        if TEXTUAL.fullmatch(relative(path)):
            continue
        guard = "LIGER_" + re.sub(r"[^A-Za-z0-9]", "_", relative(path)).upper() + "_"
        text = path.read_text()
        if f"#ifndef {guard}\n#define {guard}\n" not in text or f"#endif  // {guard}\n" not in text:
            found.append(f"{relative(path)}: guard is not {guard}")
    assert not found, "\n" + "\n".join(found)


def test_cpp_is_formatted():
    clang_format = shutil.which("clang-format")
    assert clang_format, "clang-format is missing: scripts/install_deps.sh --test"
    done = subprocess.run([clang_format, "--dry-run", "-Werror", *map(str, files(*CPP_SUFFIXES))],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def test_scripts_are_executable():
    bad = [relative(p) for p in scripts() if not os.access(p, os.X_OK)]
    assert not bad, bad
    shebangs = ("#!/usr/bin/env bash\n", "#!/bin/sh\n")
    bad = [relative(p) for p in scripts() if not p.read_text().startswith(shebangs)]
    assert not bad, bad


def test_scripts_pass_shellcheck():
    shellcheck = shutil.which("shellcheck")
    assert shellcheck, "shellcheck is missing: scripts/install_deps.sh --test"
    done = subprocess.run([shellcheck, "--severity=warning", *map(str, scripts())], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def anchors(markdown: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", files(".md"), ids=relative)
def test_links_resolve(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)
    assert not broken, broken
