"""A real liger-server, started on free ports."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = ROOT / os.environ.get("LIGER_BIN_DIR", "build/release/bin")
MODEL = pathlib.Path(os.environ.get(
    "LIGER_TEST_MODEL", ROOT / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
ADAPTER = ROOT / "models/smollm2-135m-instruct-liger-gla"

# The most that may be asked for: a stream that ends by nothing but what a test does to it.
ENDLESS_TOKENS = 1 << 24

# A model that answers nonsense at once: for what does not depend on the weights.
TINY_CONFIG = {
    "model_type": "liger_gla", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
}
REAL = (f"--model={MODEL}", f"--adapter={ADAPTER}")


def tiny_model(folder: pathlib.Path) -> tuple[str, ...]:
    """Flags that serve a tiny random model (without a tokenizer) from `folder`."""
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG))
    return (f"--model={folder}", "--random-weights=1", f"--max-output-tokens={ENDLESS_TOKENS}")


class ServerProcess:
    """Started by `with` or start(); stopped at the latest when the block ends."""

    def __init__(self, *flags: str, env=None):
        self.command = [str(BINARIES / "liger-server"), "--listen=127.0.0.1:0",
                        "--health-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0",
                        "--log-format=json", *flags]
        self.env = {**os.environ, **(env or {})}
        self.log_file = tempfile.NamedTemporaryFile("rb", prefix="liger-server-", suffix=".log")
        self.process = None

    def __enter__(self):
        try:
            return self.start().wait_until_serving()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_):
        self.kill()

    def start(self):
        with open(self.log_file.name, "wb") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)
        return self

    def log_text(self) -> str:
        return pathlib.Path(self.log_file.name).read_text(errors="replace")

    def log(self) -> list[dict]:
        lines = self.log_text().split("\n")[:-1]  # the last line may be half there
        return [json.loads(line) for line in lines if line.startswith("{")]

    def wait_for_event(self, event: str, timeout=120, **fields) -> dict:
        """The first log line of this event with these fields."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.process.poll() is not None
            for line in self.log():
                if line["event"] == event and fields.items() <= line.items():
                    return line
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"no '{event}' {fields} in the log:\n{self.log_text()}")
            time.sleep(0.01)

    def wait_until_serving(self):
        """Sets address, and where they are served health_address and metrics_address."""
        self.address = self.wait_for_event("serving")["address"]
        for line in self.log():
            if line["event"] == "health listening":
                self.health_address = line["address"]
            elif line["event"] == "metrics listening":
                self.metrics_address = f"127.0.0.1:{line['port']}"
        return self

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout=60) -> int:
        return self.process.wait(timeout)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def resident_bytes(self) -> int:
        pages = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def fetch(server, accept="text/plain") -> str:
    """What /metrics answers."""
    asked = urllib.request.Request(f"http://{server.metrics_address}/metrics",
                                   headers={"Accept": accept})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith(accept)
        return answer.read().decode()


def eventually(condition, timeout=60, every=0.02):
    """Waits until condition() is true and returns what it returned."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(every)
