"""TLS and mutual TLS on both ports that have it, and files that change under a running server."""

import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import grpc
import pytest

from certificates import Authority, install
from liger_api import Client, generate, request
from server_process import BINARIES, ENDLESS_TOKENS, ServerProcess, eventually

ANSWER = dict(ids=[1, 2, 3], stopping={"max_tokens": 5})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder):
    return Authority(folder)


@pytest.fixture(scope="module")
def client_pair(authority):
    return authority.sign("client")


@pytest.fixture(scope="module")
def server(tiny_flags, folder, authority):
    flags = install(authority.sign("server"), folder)
    with ServerProcess(*tiny_flags, *flags, "--metrics-tls=server") as process:
        yield process


@pytest.fixture(scope="module")
def mutual(tiny_flags, folder, authority):
    certificate, key = authority.sign("mutual")
    with ServerProcess(*tiny_flags, f"--tls-cert={certificate}", f"--tls-key={key}",
                       f"--tls-client-ca={authority.certificate}",
                       "--metrics-tls=mutual") as process:
        yield process


def credentials(authority, pair=None):
    root = authority.certificate.read_bytes()
    if pair is None:
        return grpc.ssl_channel_credentials(root)
    return grpc.ssl_channel_credentials(root, pair[1].read_bytes(), pair[0].read_bytes())


def secure(server, authority, pair=None) -> Client:
    return Client(server.address, credentials=credentials(authority, pair))


def refused(client) -> str:
    with pytest.raises(grpc.RpcError) as error:
        generate(client, timeout=10, **ANSWER)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    return error.value.details()


def shown_certificate(address: str) -> str:
    host, port = address.rsplit(":", 1)
    return ssl.get_server_certificate((host, int(port)), timeout=10)


def scrape(server, authority, pair=None) -> str:
    context = ssl.create_default_context(cafile=authority.certificate)
    if pair is not None:
        context.load_cert_chain(*pair)
    with urllib.request.urlopen(f"https://{server.metrics_address}/metrics", context=context,
                                timeout=10) as answer:
        return answer.read().decode()


def grpcurl(*arguments) -> subprocess.CompletedProcess:
    tool = pathlib.Path(sys.executable).parent / "grpcurl"
    return subprocess.run([str(tool), *arguments], capture_output=True, text=True, timeout=60)


def test_tls(server, authority):
    assert len(generate(secure(server, authority), **ANSWER).only.ids) == 5


def test_plaintext_and_strangers_are_refused(server, folder):
    refused(Client(server.address))
    other = Authority(folder, "other")
    assert "CERTIFICATE_VERIFY_FAILED" in refused(secure(server, other))


def test_old_protocols_are_refused(server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    for address in (server.address, server.metrics_address):
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain)


def test_mutual_tls(mutual, authority, client_pair, folder):
    assert len(generate(secure(mutual, authority, client_pair), **ANSWER).only.ids) == 5
    refused(secure(mutual, authority))
    stranger = Authority(folder, "stranger").sign("stranger-client")
    refused(secure(mutual, authority, stranger))


def test_metrics(server, mutual, authority, client_pair):
    assert "liger_slots_capacity" in scrape(server, authority)
    assert "liger_certificate_expiry_timestamp_seconds" in scrape(mutual, authority, client_pair)
    with pytest.raises((urllib.error.URLError, OSError)):
        scrape(mutual, authority)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10)


def test_grpcurl(server, mutual, authority, client_pair):
    trust = f"-cacert={authority.certificate}"
    call = ("-d", '{"token_ids": {"ids": [1]}, "stopping": {"max_tokens": 3}}')
    method = "liger.v1.Generation/Complete"
    assert grpcurl(trust, *call, server.address, method).returncode == 0
    assert grpcurl("-plaintext", *call, server.address, method).returncode != 0
    assert grpcurl(trust, f"-cert={client_pair[0]}", f"-key={client_pair[1]}", *call,
                   mutual.address, method).returncode == 0
    assert grpcurl(trust, *call, mutual.address, method).returncode != 0


def test_liger_client(server, mutual, authority, client_pair):
    def client(*arguments):
        return subprocess.run([BINARIES / "liger-client", *arguments, "info"],
                              capture_output=True, text=True, timeout=60)

    trust = f"--tls-ca={authority.certificate}"
    assert client(f"--server={server.address}", trust).returncode == 0
    assert client(f"--server={server.address}").returncode == 3
    shown = (f"--tls-cert={client_pair[0]}", f"--tls-key={client_pair[1]}")
    assert client(f"--server={mutual.address}", trust, *shown).returncode == 0
    assert client(f"--server={mutual.address}", trust).returncode == 3
    assert "--tls-ca" in client(f"--server={server.address}", "--tls-ca=/nowhere").stderr


def test_health_stays_plaintext(mutual):
    done = grpcurl("-plaintext", mutual.health_address, "grpc.health.v1.Health/Check")
    assert '"SERVING"' in done.stdout, done.stderr


def test_reload(server, authority, folder):
    old = shown_certificate(server.address)
    running = secure(server, authority)
    stream = running.generation.Generate(request(ids=[5], stopping={"max_tokens": ENDLESS_TOKENS}))
    next(stream)
    install(authority.sign("renewed"), folder)
    server.signal(signal.SIGHUP)
    server.wait_for_event("reloaded", what="certificates")
    new = shown_certificate(server.address)
    assert new != old
    assert shown_certificate(server.metrics_address) == new
    assert len(generate(secure(server, authority), **ANSWER).only.ids) == 5
    next(stream)  # what ran goes on
    stream.cancel()


@pytest.mark.parametrize("kind", ["rubbish", "missing", "another key", "expired"])
def test_a_bad_reload_keeps_the_old_files(server, authority, folder, kind):
    good = authority.sign(f"good-{kind}".replace(" ", "-"))
    install(good, folder)
    server.signal(signal.SIGHUP)
    before = (folder / "tls.crt").read_text().strip()
    eventually(lambda: shown_certificate(server.address).strip() == before, timeout=30)
    known = len([1 for line in server.log() if line["event"] == "reload failed"])
    if kind == "rubbish":
        (folder / "tls.crt").write_text("no certificate")
    elif kind == "missing":
        (folder / "tls.key").unlink()
    elif kind == "another key":
        (folder / "tls.key").write_bytes(authority.sign("another")[1].read_bytes())
    else:
        install(authority.sign("expired", days=-1), folder)
    server.signal(signal.SIGHUP)
    eventually(lambda: len([1 for line in server.log()
                            if line["event"] == "reload failed"]) > known, timeout=20)
    assert shown_certificate(server.address).strip() == before
    assert len(generate(secure(server, authority), **ANSWER).only.ids) == 5
    page = scrape(server, authority)
    assert 'liger_config_reloads_total{result="failure",what="certificates"}' in page
    assert 'liger_config_refused{what="certificates"} 1' in page


def test_bad_files_at_the_start_are_named(tiny_flags, authority, folder):
    certificate, key = authority.sign("old", days=-1)
    for flags, words in [
            ((f"--tls-cert={certificate}", f"--tls-key={key}"), "expired"),
            (("--tls-cert=/nowhere", f"--tls-key={key}"), "--tls-cert: cannot read /nowhere"),
            ((f"--tls-cert={authority.certificate}", f"--tls-key={key}"), "is not the key of")]:
        server = ServerProcess(*tiny_flags, *flags).start()
        assert server.wait() == 1
        assert words in server.wait_for_event("cannot start")["message"]
