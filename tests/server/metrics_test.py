"""Metrics, read by a real Prometheus."""

import json
import math
import socket
import subprocess
import threading
import urllib.parse
import urllib.request

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from liger_api import Client, generate, request
from server_process import ENDLESS_TOKENS, ROOT, ServerProcess, eventually

LATENCIES = [
    "liger_time_to_first_token_seconds", "liger_time_per_output_token_seconds",
    "liger_inter_token_latency_seconds", "liger_e2e_request_latency_seconds",
    "liger_request_queue_time_seconds", "liger_request_prefill_time_seconds",
    "liger_request_decode_time_seconds", "liger_step_seconds", "liger_scheduler_seconds"]


@pytest.fixture(scope="module")
def server(tiny_flags):
    with ServerProcess(*tiny_flags, "--max-slots=4", "--max-swapped=0") as process:
        yield process


def scrape(server) -> str:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as answer:
        return answer.read().decode()


def sample(server, name, **labels) -> float:
    """The sum of the samples of this name that have these labels."""
    return sum(s.value for family in text_string_to_metric_families(scrape(server))
               for s in family.samples
               if s.name == name and labels.items() <= s.labels.items())


def test_requests_are_counted(server):
    client = Client(server.address)
    before = {name: sample(server, name) for name in
              ("liger_prompt_tokens_total", "liger_generation_tokens_total",
               "liger_request_generation_tokens_sum")}
    # Tenants share no snapshots: each prompt is absorbed.
    generate(client, ids=[1, 2, 3], stopping={"max_tokens": 20}, tenant="a")
    first = generate(client, ids=[1, 2, 3], stopping={"max_tokens": 1}, tenant="b").only.ids[0]
    generate(client, ids=[1, 2, 3], stopping={"stop_token_ids": [first]}, tenant="c")
    with pytest.raises(grpc.RpcError):
        client.complete(ids=[1], sampling={"temperature": -1})

    def counted(name):
        return sample(server, name) - before[name]

    # The last numbers may come a moment after the last byte.
    eventually(lambda: counted("liger_request_generation_tokens_sum") == 22)
    assert counted("liger_prompt_tokens_total") == 9
    assert counted("liger_generation_tokens_total") >= 22
    assert sample(server, "liger_request_success_total", finished_reason="length") == 2
    assert sample(server, "liger_request_success_total", finished_reason="stop") == 1
    assert sample(server, "liger_grpc_requests_total", method="Generation/Generate",
                  code="OK") == 3
    assert sample(server, "liger_grpc_requests_total", method="Generation/Complete",
                  code="INVALID_ARGUMENT") == 1
    assert 0 < sample(server, "liger_inter_token_latency_seconds_count") <= 19
    assert sample(server, "liger_slots_capacity") == 4
    assert sample(server, "liger_build_info", backend="cpu", gate="gla") == 1


def test_running_and_waiting(server):
    client = Client(server.address)
    long = request(ids=[1, 2, 3], stopping={"max_tokens": ENDLESS_TOKENS})
    streams = [client.generation.Generate(long) for _ in range(6)]
    eventually(lambda: sample(server, "liger_slots_used") == 4)
    eventually(lambda: sample(server, "liger_num_requests_waiting") == 2)
    assert sample(server, "liger_num_requests_running") == 4
    assert sample(server, "liger_slots_utilization") == 1
    for stream in streams:
        stream.cancel()
    eventually(lambda: sample(server, "liger_slots_used") == 0)
    eventually(lambda: sample(server, "liger_grpc_requests_total", code="CANCELLED") == 6)


def test_latency_buckets_begin_at_100_microseconds(server):
    families = {f.name: f for f in text_string_to_metric_families(scrape(server))}
    for name in LATENCIES:
        bounds = [float(s.labels["le"]) for s in families[name].samples
                  if s.name.endswith("_bucket")]
        assert min(bounds) <= 1e-4, name


def test_promtool_finds_nothing(server):
    done = subprocess.run(["promtool", "check", "metrics"], input=scrape(server), text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def query(server, tmp_path):
    """Asks a real Prometheus that scrapes the server: the values of an expression."""
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
        "scrape_configs:\n"
        f"- {{job_name: liger, static_configs: [{{targets: ['{server.metrics_address}']}}]}}\n")
    address = f"127.0.0.1:{free_port()}"
    with open(tmp_path / "log", "wb") as log:
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path}/prometheus.yml",
             f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={address}"],
            stdout=log, stderr=log)

    def ask(expression):
        url = f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return None  # not up yet
        return [float(series["value"][1]) for series in result]

    try:
        eventually(lambda: ask('up{job="liger"}') == [1.0])
        yield ask
    finally:
        prometheus.kill()
        prometheus.wait()


def test_a_real_prometheus_scrapes_and_answers(server, query):
    generate(Client(server.address), ids=[1, 2, 3], stopping={"max_tokens": 50})
    eventually(lambda: (query("liger_generation_tokens_total") or [0])[0] >= 50)
    for name in LATENCIES:
        quantile = query(f"histogram_quantile(0.99, sum by (le) ({name}_bucket))")
        assert len(quantile) == 1, name


def test_every_panel_of_the_dashboard_has_data(server, query):
    """Under load, each query gives a number: no metric is misspelt, none is missing."""
    client = Client(server.address)
    done = threading.Event()

    def load():
        while not done.is_set():
            generate(client, ids=[1, 2, 3], stopping={"max_tokens": 20})

    thread = threading.Thread(target=load)
    thread.start()
    try:
        dashboard = json.loads((ROOT / "deploy/monitoring/grafana-dashboard.json").read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "5s")
                for variable in ("$job", "$instance"):
                    expression = expression.replace(variable, ".*")
                values = eventually(lambda expression=expression: query(expression), timeout=20)
                eventually(lambda expression=expression: not any(
                    math.isnan(value) for value in query(expression) or [math.nan]), timeout=20)
                assert values, panel["title"]
    finally:
        done.set()
        thread.join()
