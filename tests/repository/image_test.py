"""The image is built from what .dockerignore lets through."""

import re

from deploy_test import OVERLAYS, render, server_of
from repository_files import ROOT

STAGES = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]


def test_the_image_gets_every_folder_that_is_built():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    built = set(re.findall(r"add_subdirectory\((\w+)", cmake)) - {"tests", "bench"}
    sent = set(re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert built and built <= sent, built - sent


def stage(name: str) -> str:
    (found,) = [s for s in STAGES if re.match(rf"\S+ AS {name}\n", s)]
    return found


def test_bases_are_pinned_by_tag():
    names = {re.match(r"\S+ AS (\S+)", s)[1] for s in STAGES}
    for text in STAGES:
        base = text.split()[0]
        assert base in names or re.fullmatch(r"[\w/.]+:[\w.-]*\d[\w.-]*|debian:bookworm-slim", base), base


def test_overlays_ask_for_images_that_are_built():
    for overlay in OVERLAYS:
        image = server_of(render(overlay))["image"]
        assert stage(image.removeprefix("liger-serve:")), image


def test_the_cuda_image_has_the_toolkits_libraries():
    """Those that the programs load: what CMake links of the toolkit and is not static."""
    linked = {name for folder in ("engine", "kernels/cuda", "server")
              for name in re.findall(r"CUDA::(\w+)", (ROOT / folder / "CMakeLists.txt").read_text())
              if not name.endswith("_static")}
    assert linked == set(re.findall(r"lib64/lib(\w+)\.so", stage("cuda")))


def test_the_results_have_no_compiler():
    for name in ("cpu", "cuda"):
        assert stage(name).startswith("runtime AS ") and "install_deps.sh\n" not in stage(name)
    assert "install_deps.sh --runtime" in stage("runtime")
