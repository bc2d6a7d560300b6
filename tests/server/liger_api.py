"""Python stubs of the service, made from proto/ when imported, and short ways to call it."""

import atexit
import pathlib
import shutil
import sys
import tempfile

import grpc
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _generate() -> None:
    out = tempfile.mkdtemp(prefix="liger-stubs-")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    protos = [str(p.relative_to(ROOT / "proto"))
              for folder in ("liger/v1", "google/rpc")
              for p in sorted((ROOT / "proto" / folder).glob("*.proto"))]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}",
                 f"--grpc_python_out={out}", *protos]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed")
    sys.path.insert(0, out)


_generate()

from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from liger.v1 import admin_pb2 as admin  # noqa: E402
from liger.v1 import admin_pb2_grpc as admin_grpc  # noqa: E402
from liger.v1 import generation_pb2 as api  # noqa: E402
from liger.v1 import generation_pb2_grpc as generation_grpc  # noqa: E402
from liger.v1 import sessions_pb2 as sessions  # noqa: E402
from liger.v1 import sessions_pb2_grpc as sessions_grpc  # noqa: E402

TIMEOUT = 120  # seconds; of calls that are to succeed


class Client:
    """One connection with every stub."""

    def __init__(self, address: str, options=(), credentials=None):
        options = [("grpc.max_receive_message_length", -1),
                   ("grpc.use_local_subchannel_pool", 1), *options]
        self.channel = (grpc.insecure_channel(address, options) if credentials is None else
                        grpc.secure_channel(address, credentials, options))
        self.use(self.channel)

    def use(self, channel):
        self.channel = channel
        self.generation = generation_grpc.GenerationStub(self.channel)
        self.admin = admin_grpc.AdminStub(self.channel)
        self.sessions = sessions_grpc.SessionsStub(self.channel)

    def close(self):
        self.channel.close()

    def complete(self, timeout=TIMEOUT, **fields):
        return self.generation.Complete(request(**fields), timeout=timeout)

    def loads(self):
        return self.admin.GetLoads(admin.GetLoadsRequest(), timeout=TIMEOUT)


def request(prompt=None, ids=None, messages=None, sampling=None, stopping=None, output=None,
            **fields) -> api.GenerateRequest:
    """A GenerateRequest from plain values; greedy unless `sampling` says otherwise."""
    message = api.GenerateRequest(
        sampling=api.SamplingParams(**({"temperature": 0} if sampling is None else sampling)),
        stopping=api.StoppingParams(**(stopping or {})),
        output=api.OutputOptions(**(output or {})), **fields)
    if prompt is not None:
        message.prompt = prompt
    if ids is not None:
        message.token_ids.ids.extend(ids)
    if messages is not None:
        for role, content in messages:
            message.messages.messages.add(role=role, content=content)
    return message


class Output:
    """One output of a stream, put together; checks that its deltas follow each other."""

    def __init__(self):
        self.text = ""
        self.ids = []
        self.logprobs = []
        self.echo_ids = []
        self.finished = None

    def add(self, delta):
        assert self.finished is None, "a delta after finished"
        self.text += delta.text
        self.logprobs.extend(delta.logprobs)
        for position, token in enumerate(delta.token_ids, delta.first_token_index):
            target = self.echo_ids if position < 0 else self.ids
            if position >= 0:
                assert position == len(self.ids), "tokens are missing or repeated"
            target.append(token)


class Answer:
    """What a stream said, event by event in the order the service promises."""

    def __init__(self, stream):
        self.started = None
        self.usage = None
        self.outputs = {}
        for message in stream:
            self.add(message)

    def add(self, message):
        assert self.usage is None, "an event after usage"
        kind = message.WhichOneof("event")
        if kind == "started":
            assert self.started is None
            self.started = message.started
        elif kind == "delta":
            self.outputs.setdefault(message.delta.index, Output()).add(message.delta)
        elif kind == "finished":
            output = self.outputs.setdefault(message.finished.index, Output())
            assert output.finished is None
            output.finished = message.finished
        else:
            self.usage = message.usage

    @property
    def only(self) -> Output:
        assert list(self.outputs) == [0]
        return self.outputs[0]


def generate(client: Client, timeout=TIMEOUT, **fields) -> Answer:
    return Answer(client.generation.Generate(request(**fields), timeout=timeout))


def retry_delay(error: grpc.RpcError):
    """The RetryInfo in an error's details, or None."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    return info.retry_delay.seconds
    return None
