"""The image is built from what .dockerignore lets through."""

import re

from repository_files import ROOT


def test_the_image_gets_every_folder_that_is_built():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    built = set(re.findall(r"add_subdirectory\((\w+)", cmake)) - {"tests", "bench"}
    sent = set(re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert built and built <= sent, built - sent
