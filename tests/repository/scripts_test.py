"""The scripts' own options; what they do is run by scripts/test.sh and by hand on a bare machine."""

import subprocess

import pytest

from repository_files import ROOT

WITH_OPTIONS = ["build_image.sh", "install_deps.sh", "quickstart.sh", "test.sh"]


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
  <testcase name="b" status="fail"><failure/></testcase>
  <testcase name="c"><error/></testcase>
  <testcase name="d" status="notrun"><skipped/></testcase>
</testsuite>"""


def test_totals_of_a_report(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(JUNIT)
    script = ROOT / "scripts/junit_totals.py"
    for path, expected in [(report, "1 2 1\n"), (tmp_path / "missing.xml", "0 0 0\n")]:
        done = subprocess.run(["python3", script, path], capture_output=True, text=True)
        assert done.stdout == expected
