"""What is refused, over the wire: the status, the field and its limit. Each field's own table is in
request_validation_test.cc."""

import math

import grpc
import pytest

from liger_api import Client, admin, api, generate

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def refusal(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


@pytest.mark.parametrize("fields, said", [
    ({"sampling": {"temperature": math.nan}}, "sampling.temperature"),
    ({"sampling": {"top_p": -0.5}}, "(0, 1]"),
    ({"sampling": {"top_k": -3}}, "sampling.top_k"),
    ({"sampling": {"frequency_penalty": math.inf}}, "[-2, 2]"),
    ({"sampling": {"logit_bias": {49152: 1.0}}}, "49152"),
    ({"sampling": {"n": 9}}, "[1, 8]"),
    ({"stopping": {"max_tokens": 1 << 30}}, "stopping.max_tokens"),
    ({"stopping": {"stop": ["x"] * 5000}}, "limit is 64"),
    ({"stopping": {"stop": ["x" * 100000]}}, "512"),
    ({"stopping": {"stop_token_ids": [-1]}}, "[0, 49151]"),
    ({"output": {"top_logprobs": 21}}, "[0, 20]"),
    ({"prompt": ""}, "prompt is empty"),
    ({"prompt": None}, "input is not set"),
    ({"prompt": None, "ids": []}, "token_ids is empty"),
    ({"prompt": None, "ids": [49152]}, "token_ids.ids[0]"),
    ({"prompt": None, "messages": [("robot", "hi")]}, "messages[0].role"),
    ({"prompt": "word " * 140000}, "limit is 131072"),
    ({"request_id": "x" * 129}, "limit is 128"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_invalid_argument_names_field_and_limit(real, fields, said):
    fields = {"prompt": "x", **fields}
    for call in (lambda: generate(real, **fields), lambda: real.complete(**fields)):
        error = refusal(call)
        assert error.code() == INVALID
        assert said in error.details()


@pytest.mark.parametrize("field, value", [
    ("json_schema", "{}"), ("regex", "a"), ("grammar", "a")])
def test_fields_of_later_features_are_refused_by_name(real, field, value):
    error = refusal(lambda: generate(real, prompt="x", **{field: value}))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert field in error.details()


def test_n_with_a_session_is_invalid(real):
    error = refusal(lambda: generate(real, prompt="x", session_id="s", sampling={"n": 2}))
    assert error.code() == INVALID
    assert "sampling.n" in error.details()


@pytest.mark.parametrize("call", [
    lambda c: c.admin.LoadAdapter(admin.LoadAdapterRequest()),
    lambda c: c.admin.UnloadAdapter(admin.UnloadAdapterRequest()),
    lambda c: c.admin.ListAdapters(admin.ListAdaptersRequest()),
], ids=["LoadAdapter", "UnloadAdapter", "ListAdapters"])
def test_what_is_not_offered_says_so(tiny, call):
    error = refusal(lambda: call(tiny))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "not offered" in error.details()


def test_tokenize_limits(real):
    tokenize = real.generation.Tokenize
    assert refusal(lambda: tokenize(api.TokenizeRequest())).code() == INVALID
    error = refusal(lambda: tokenize(api.TokenizeRequest(text="x" * ((1 << 20) + 1))))
    assert error.code() == INVALID and "1048576" in error.details()
    error = refusal(lambda: real.generation.Detokenize(api.DetokenizeRequest(ids=[1, -1])))
    assert error.code() == INVALID and "ids[1]" in error.details()


def test_a_request_id_that_is_too_long_reaches_neither_log_nor_metadata(tiny_server):
    client = Client(tiny_server.address)
    error = refusal(lambda: generate(client, ids=[1], request_id="x" * 100000))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "request_id" in error.details()
    (made_up,) = (value for key, value in error.trailing_metadata() if key == "x-request-id")
    tiny_server.wait_for_event("request", id=made_up)
    assert all(len(line.get("id", "")) < 200 for line in tiny_server.log())


def test_a_refused_request_leaves_nothing_behind(real):
    refusal(lambda: generate(real, prompt="x", sampling={"temperature": -1}))
    loads = real.loads()
    assert (loads.running, loads.waiting, loads.slots_used) == (0, 0, 0)
