"""Checkov's policies over every overlay and the Dockerfile. What does not hold is below, with why."""

import json
import os
import shutil
import subprocess

import pytest
import yaml

from deploy_test import OVERLAYS, render
from repository_files import ROOT

# By check and kind of object.
EXCEPTIONS = {
    ("CKV_K8S_21", None): "no namespace is written in: whoever applies an overlay names one (-n)",
    ("CKV_K8S_43", None): "images are pinned by tag: a digest belongs to who builds or mirrors them",
    ("CKV_K8S_15", None): "a tag is never moved here, and a pod must start where no registry answers",
    ("CKV_K8S_35", "Deployment"): "the store's address is a flag; its password is part of it",
    ("CKV_K8S_35", "StatefulSet"): "redis-cli of the probes reads its password from there",
}


def checkov(*arguments) -> list[dict]:
    """The checks that failed."""
    program = ROOT / ".venv-policy/bin/checkov"
    found = str(program) if program.exists() else shutil.which("checkov")
    assert found, "checkov is missing: scripts/test.sh makes .venv-policy"
    done = subprocess.run(
        [found, *map(str, arguments), "--output=json", "--quiet", "--skip-download"],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "BC_SKIP_MAPPING": "TRUE", "LOG_LEVEL": "ERROR"})
    report = json.loads(done.stdout)
    assert report.get("summary", report)["passed"] > 50, "it has checked nothing"
    return report.get("results", {}).get("failed_checks", [])


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """What fails in any overlay: (check, kind of object)."""
    folder = tmp_path_factory.mktemp("rendered")
    for name in OVERLAYS:
        (folder / f"{name.replace('/', '-')}.yaml").write_text(yaml.safe_dump_all(render(name)))
    return {(check["check_id"], check["resource"].split(".")[0]): check["check_name"]
            for check in checkov(f"--directory={folder}", "--framework=kubernetes")}


def allowed(check, kind) -> bool:
    return bool({(check, None), (check, kind)} & set(EXCEPTIONS))


def test_every_failure_is_explained(failed):
    assert not {key: name for key, name in failed.items() if not allowed(*key)}


def test_every_explanation_is_needed(failed):
    for check, kind in EXCEPTIONS:
        assert any(check == c and kind in (None, k) for c, k in failed), (check, kind)


def test_the_dockerfile():
    assert checkov(f"--file={ROOT}/Dockerfile", "--framework=dockerfile") == []
