"""Recording and alert rules, each shown to speak and to be silent, and the dashboard's form."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from repository_files import ROOT

FILE = ROOT / "deploy/k8s/components/monitoring/prometheusrule.yaml"
DASHBOARD = ROOT / "deploy/monitoring/grafana-dashboard.json"
SPEC = yaml.safe_load(FILE.read_text())["spec"]
ALERTS = {rule["alert"]: rule for group in SPEC["groups"] for rule in group["rules"]
          if "alert" in rule}
RECORDS = {rule["record"]: rule for group in SPEC["groups"] for rule in group["rules"]
           if "record" in rule}
ON = {"job": "liger-serve", "instance": "a"}


def series(name, values, **labels):
    text = ",".join(f'{k}="{v}"' for k, v in {**ON, **labels}.items())
    return {"series": f"{name}{{{text}}}", "values": values}


def calls(code, values):
    return series("liger_grpc_requests_total", values, method="Generation/Generate", code=code)


def slow(name, seconds):
    """A histogram all of whose observations are of `seconds`."""
    bounds = [1, 5, 10, 25, 50]
    return [series(f"{name}_bucket", "0+60x40" if bound >= seconds else "0x40", le=str(bound))
            for bound in bounds] + [series(f"{name}_bucket", "0+60x40", le="+Inf")]


def restarts(values):
    return {"series": "kube_pod_container_status_restarts_total"
                      '{namespace="default",pod="liger-serve-5d8f6c9b7-x2k4p",container="server"}',
            "values": values}


# For each alert: what makes it fire (by minute 30), and what must not.
CASES = {
    "LigerDown": ([series("up", "1 0x40")], [series("up", "1x20 0x20")]),
    "LigerStepsFail": ([series("liger_step_failures_total", "0x27 1x20")],
                       [series("liger_step_failures_total", "3x40")]),
    "LigerStalled": (
        [series("liger_num_requests_running", "2x40"), series("liger_steps_total", "7x40")],
        [series("liger_num_requests_running", "2x40"), series("liger_steps_total", "0+9x40")]),
    "LigerErrors": ([calls("OK", "0+100x40"), calls("INTERNAL", "0+5x40")],
                    [calls("OK", "0+100x40"), calls("CANCELLED", "0+50x40")]),
    "LigerRejects": ([calls("OK", "0+100x40"), calls("RESOURCE_EXHAUSTED", "0+20x40")],
                     [calls("OK", "0+100x40"), calls("RESOURCE_EXHAUSTED", "0+1x40")]),
    "LigerSlotsFull": (
        [series("liger_slots_used", "16x40"), series("liger_slots_capacity", "16x40")],
        [series("liger_slots_used", "12x40"), series("liger_slots_capacity", "16x40")]),
    "LigerQueueSlow": (slow("liger_request_queue_time_seconds", 20),
                       slow("liger_request_queue_time_seconds", 4)),
    "LigerRestarts": ([restarts("0x9 1x9 2x9 3x20")], [restarts("0x9 1x9 2x20")]),
    "LigerDrainsForLong": ([series("liger_draining", "1x40")],
                           [series("liger_draining", "0x28 1x12")]),
    "LigerCertificateExpires": (
        [series("liger_certificate_expiry_timestamp_seconds", "500000x40")],
        [series("liger_certificate_expiry_timestamp_seconds", "700000x40")]),
    "LigerReloadFails": (
        [series("liger_config_refused", "0x28 1x12", what="api keys")],
        [series("liger_config_refused", "0x10 1x10 0x20", what="api keys")]),
    "LigerKeysRefused": (
        [series("liger_calls_refused_total", "0+120x40", reason="unknown key")],
        [series("liger_calls_refused_total", "0+120x40", reason="tenant limit")]),
    "LigerStoreFails": ([series("liger_state_store_failures_total", "0x18 0+1x22")],
                        [series("liger_state_store_failures_total", "7x40")]),
    "LigerSessionsUnsaved": ([series("liger_state_store_unsaved_sessions", "3x40")],
                             [series("liger_state_store_unsaved_sessions", "0x24 3x3 0x13")]),
    "LigerSessionsEvicted": ([series("liger_sessions_evicted_total", "0x20 2x20")],
                             [series("liger_sessions_evicted_total", "0x20 2x20"),
                              series("liger_state_store_saves_total", "5x40")]),
}

# For each record: its input, and its value at minute 30.
RECORD_CASES = {
    "liger:generation_tokens:rate1m": ([series("liger_generation_tokens_total", "0+120x40")], 2),
    "liger:prompt_tokens:rate1m": ([series("liger_prompt_tokens_total", "0+60x40")], 1),
    "liger:time_to_first_token_seconds:p99_5m":
        (slow("liger_time_to_first_token_seconds", 3), 1 + 4 * 0.99),
    "liger:inter_token_latency_seconds:p99_5m":
        (slow("liger_inter_token_latency_seconds", 3), 1 + 4 * 0.99),
    "liger:request_queue_time_seconds:p99_5m":
        (slow("liger_request_queue_time_seconds", 3), 1 + 4 * 0.99),
    "liger:errors:ratio_rate5m": ([calls("OK", "0+90x40"), calls("INTERNAL", "0+10x40")], 0.1),
    "liger:rejections:ratio_rate5m":
        ([calls("OK", "0+75x40"), calls("RESOURCE_EXHAUSTED", "0+25x40")], 0.25),
    "liger:slots:utilization":
        ([series("liger_slots_used", "4x40"), series("liger_slots_capacity", "16x40")], 0.25),
}


def promtool(*arguments) -> subprocess.CompletedProcess:
    tool = shutil.which("promtool")
    assert tool, "promtool is missing: scripts/install_deps.sh --test"
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def check(tmp_path):
    """Runs one test of promtool's over the rules."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(SPEC))

    def run(**test):
        (tmp_path / "test.yaml").write_text(yaml.safe_dump({
            "rule_files": ["rules.yaml"], "evaluation_interval": "1m",
            "tests": [{"interval": "1m", **test}]}))
        return promtool("test", "rules", tmp_path / "test.yaml")

    return run


def silent_or(check, alert, data):
    """promtool's answer to: nothing of this alert fires."""
    return check(input_series=data, alert_rule_test=[
        {"eval_time": "30m", "alertname": alert, "exp_alerts": []}])


def test_rules_are_valid(tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(SPEC))
    done = promtool("check", "rules", tmp_path / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_case():
    assert set(CASES) == set(ALERTS)
    assert set(RECORD_CASES) == set(RECORDS)


@pytest.mark.parametrize("alert", CASES)
def test_alerts(check, alert):
    fires, silent = CASES[alert]
    done = silent_or(check, alert, silent)
    assert done.returncode == 0, done.stdout + done.stderr
    done = silent_or(check, alert, fires)
    assert done.returncode != 0, "it did not fire"
    assert f"alertname=\"{alert}\"" in (done.stdout + done.stderr).replace("'", '"')


def test_no_server_at_all_is_down(check):
    """Where there is no target, nothing is `up`."""
    others = [{"series": 'up{job="other",instance="b"}', "values": "1x40"}]
    rule = ALERTS["LigerDown"]
    done = check(input_series=others, alert_rule_test=[{
        "eval_time": "30m", "alertname": "LigerDown", "exp_alerts": [{
            "exp_labels": rule["labels"],
            "exp_annotations": {**rule["annotations"],
                                "summary": "there is no liger-server to scrape"}}]}])
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_know_the_deployment():
    deployment = yaml.safe_load((ROOT / "deploy/k8s/base/deployment.yaml").read_text())
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    probe = server["startupProbe"]
    loading = probe["periodSeconds"] * probe["failureThreshold"]
    assert int(ALERTS["LigerDown"]["for"].removesuffix("m")) * 60 > loading
    labels = dict(re.findall(r'(\w+)=~?"(.*?)"', ALERTS["LigerRestarts"]["expr"]))
    assert labels["container"] == server["name"]
    assert re.fullmatch(labels["pod"], f"{deployment['metadata']['name']}-5d8f6c9b7-x2k4p")


@pytest.mark.parametrize("record", RECORD_CASES)
def test_records(check, record):
    data, value = RECORD_CASES[record]
    labels = "{" + ", ".join(
        f'{k}="{v}"' for k, v in sorted({**ON, "__name__": record}.items())
        if k != "instance" or "instance" in RECORDS[record]["expr"]) + "}"
    done = check(input_series=data, promql_expr_test=[
        {"expr": record, "eval_time": "30m", "exp_samples": [{"labels": labels, "value": value}]}])
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook():
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs/OPERATIONS.md").read_text(), re.MULTILINE)
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["runbook"] == f"docs/OPERATIONS.md#{name.lower()}"
        assert name in headings, name


def test_the_dashboard_is_one():
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 10
    variables = {v["name"] for v in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables
