"""The scripts' own options; what they do is run by scripts/test.sh and by hand on a bare machine."""

import json
import subprocess

import pytest

from repository_files import ROOT

WITH_OPTIONS = ["build_image.sh", "install_deps.sh", "quickstart.sh", "test.sh",
                "test_gpu.sh"]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([ROOT / "scripts" / script, *arguments], capture_output=True, text=True,
                          cwd="/", timeout=60)


@pytest.mark.parametrize("script", WITH_OPTIONS)
def test_help_says_how_to_use_it(script):
    done = run(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: scripts/{script}")


@pytest.mark.parametrize("script", WITH_OPTIONS)
def test_an_unknown_option_is_refused(script):
    done = run(script, "--no-such-option")
    assert done.returncode == 2
    assert "Usage" in done.stderr


@pytest.mark.parametrize("port", ["", "x", "65536"])
def test_quickstart_refuses_a_bad_port(port):
    done = run("quickstart.sh", "--port", port)
    assert done.returncode == 2
    assert "--port" in done.stderr


JUNIT = """<testsuite>
  <testcase name="a" status="run"/>
  <testcase name="b" classname="b" status="fail"><failure/><system-out>1 is not 2</system-out></testcase>
  <testcase name="c" classname="folder.file"><error>no such file</error></testcase>
  <testcase name="d" status="notrun"><skipped/></testcase>
</testsuite>"""


def test_report_of_passed_failed_and_skipped(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(JUNIT)
    script = ROOT / "scripts/junit_report.py"
    said = "1 2 1\nFAILED: b\n1 is not 2\nFAILED: folder.file::c\nno such file\n"
    for path, expected in [(report, said), (tmp_path / "missing.xml", "0 0 0\n")]:
        done = subprocess.run(["python3", script, path], capture_output=True, text=True)
        assert done.stdout == expected


STATUS = """Package: libssl3
Status: install ok installed
Architecture: amd64
Version: 3.0.17-1~deb12u2
Description: a library
 with: a second line

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


def test_the_bill_of_materials_lists_what_is_installed():
    done = subprocess.run([ROOT / "scripts/sbom.py", "liger-serve"], input=STATUS,
                          capture_output=True, text=True, check=True)
    bill = json.loads(done.stdout)
    assert bill["spdxVersion"] == "SPDX-2.3"
    packages = {p["name"]: p for p in bill["packages"]}
    assert packages["libssl3"]["versionInfo"] == "3.0.17-1~deb12u2"
    assert packages["libssl3"]["externalRefs"][0]["referenceLocator"].startswith("pkg:deb/debian/")
    assert "gone" not in packages and "nlohmann-json" in packages
    known = {p["SPDXID"] for p in bill["packages"]} | {"SPDXRef-DOCUMENT"}
    assert len(known) == len(bill["packages"]) + 1
    for relation in bill["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= known
