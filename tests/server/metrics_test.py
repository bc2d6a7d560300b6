"""Metrics, read by a real Prometheus."""

import json
import math
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import grpc
import pytest
from prometheus_client.openmetrics.parser import \
    text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from liger_api import Client, generate, request
from server_process import ENDLESS_TOKENS, ROOT, ServerProcess, eventually, fetch

LATENCIES = [
    "liger_time_to_first_token_seconds", "liger_time_per_output_token_seconds",
    "liger_inter_token_latency_seconds", "liger_e2e_request_latency_seconds",
    "liger_request_queue_time_seconds", "liger_request_prefill_time_seconds",
    "liger_request_decode_time_seconds", "liger_step_seconds", "liger_scheduler_seconds"]
OF_REQUESTS = LATENCIES[:7]


@pytest.fixture(scope="module")
def server(tiny_flags):
    with ServerProcess(*tiny_flags, "--max-slots=4", "--max-swapped=0") as process:
        yield process


def sample(server, name, **labels) -> float:
    """The sum of the samples of this name that have these labels."""
    return sum(s.value for family in text_string_to_metric_families(fetch(server))
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
    families = {f.name: f for f in text_string_to_metric_families(fetch(server))}
    for name in LATENCIES:
        bounds = [float(s.labels["le"]) for s in families[name].samples
                  if s.name.endswith("_bucket")]
        assert min(bounds) <= 1e-4, name


def test_promtool_finds_nothing(server):
    done = subprocess.run(["promtool", "check", "metrics"], input=fetch(server), text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def open_metrics(server) -> dict:
    text = fetch(server, "application/openmetrics-text")
    return {family.name: family for family in open_metrics_families(text)}


def test_open_metrics_says_the_same(server):
    generate(Client(server.address), ids=[1, 2, 3], stopping={"max_tokens": 20})

    def samples(families):
        number = lambda labels: {k: float(v) if k == "le" else v for k, v in labels.items()}
        return {(s.name, *sorted(number(s.labels).items())): s.value for family in families
                for s in family.samples if s.name.startswith("liger_")}

    def agree():
        one = samples(open_metrics(server).values())
        other = samples(text_string_to_metric_families(fetch(server)))
        # The text has sums to 16 digits.
        return len(one) > 300 and one.keys() == other.keys() and all(
            math.isclose(value, other[key], rel_tol=1e-12) for key, value in one.items())

    eventually(agree, timeout=20)  # the last call's numbers may come between the two


def exemplars(server, name):
    """Those of a histogram: bounds of the bucket, labels and value."""
    lower, found = 0.0, []
    for sample in open_metrics(server)[name].samples:
        if sample.name.endswith("_bucket"):
            upper = float(sample.labels["le"])
            if sample.exemplar:
                found.append((lower, upper, sample.exemplar))
            lower = upper
    return found


def named(server, name, **labels):
    return [e for _, _, e in exemplars(server, name) if labels.items() <= e.labels.items()]


def test_exemplars_name_a_request_and_its_trace(server):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    open_metrics(server)  # from now on each bucket takes a new one
    client = Client(server.address)
    client.generation.Complete(
        request(ids=[1, 2, 3], request_id="the one", stopping={"max_tokens": 20}), timeout=30,
        metadata=[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")])
    line = server.wait_for_event("request", id="the one")
    assert line["trace"] == trace
    for name in OF_REQUESTS:
        assert eventually(lambda name=name: named(server, name, trace_id=trace,
                                                  request_id="the one")), name
        for lower, upper, exemplar in exemplars(server, name):
            assert lower <= exemplar.value <= upper
            assert abs(float(exemplar.timestamp) - time.time()) < 120
    # The log has the same latency.
    (first_token,) = named(server, OF_REQUESTS[0], request_id="the one")
    assert abs(first_token.value * 1000 - line["ttft_ms"]) < 20


def test_ids_that_scrapes_cannot_show(server):
    client = Client(server.address)
    for number, name in enumerate(("zero\0", 'quote"s', "back\\slash", "日本", "x" * 128)):
        trace = f"{0xabc0 + number:032x}"
        open_metrics(server)
        client.generation.Complete(
            request(ids=[1], request_id=name, stopping={"max_tokens": 1}), timeout=30,
            metadata=[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")])
        (found,) = eventually(lambda: named(server, OF_REQUESTS[3], trace_id=trace))
        assert found.labels == {"trace_id": trace}


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
             "--enable-feature=exemplar-storage",
             f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={address}"],
            stdout=log, stderr=log)

    def data(path, **arguments):
        url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(expression):
        try:
            result = data("query", query=expression)["result"]
        except OSError:
            return None  # not up yet
        return [float(series["value"][1]) for series in result]

    def ask_exemplars(expression):
        now = time.time()
        return [exemplar["labels"] for series in
                data("query_exemplars", query=expression, start=now - 600, end=now + 60)
                for exemplar in series["exemplars"]]

    ask.exemplars = ask_exemplars

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


def test_a_real_prometheus_keeps_exemplars(server, query):
    client = Client(server.address)

    def kept():
        generate(client, ids=[1, 2, 3], request_id="kept", stopping={"max_tokens": 20})
        return {"request_id": "kept"} in query.exemplars(f"{OF_REQUESTS[0]}_bucket")

    eventually(kept, every=0.5)


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
