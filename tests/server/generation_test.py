"""Generation over gRPC with the real model, against the reference and against itself."""

import concurrent.futures
import math

import grpc
import pytest

from liger_api import Client, admin, api, generate, request
from metrics_test import sample
from server_process import ENDLESS_TOKENS, REAL, ServerProcess, eventually

CHAT = [("user", "What is the capital of France?")]
END = 2  # <|im_end|>
PROMPT = "The three laws of motion are"
IDS = [1, 2, 3]  # a prompt for the tiny model


def logsumexp(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def test_greedy_tokens_are_the_references(real, vectors):
    def ask(vector):
        return generate(real, ids=vector["ids"],
                        stopping={"max_tokens": len(vector["greedy_ids"]), "ignore_eos": True},
                        output={"top_logprobs": 8})

    with concurrent.futures.ThreadPoolExecutor() as pool:  # beside each other, in one batch
        answers = list(pool.map(ask, vectors))
    for vector, answer in zip(vectors, answers, strict=True):
        output = answer.only
        assert output.ids == vector["greedy_ids"]
        assert answer.started.prompt_tokens == len(vector["ids"])
        assert answer.usage.prompt_tokens == len(vector["ids"])
        assert answer.usage.completion_tokens == len(output.ids)
        assert output.finished.finish_reason == api.FINISH_REASON_LENGTH
        top = output.logprobs[0].top
        assert [t.token_id for t in top] == vector["top_ids"]
        for token, logit in zip(top, vector["top_logits"], strict=True):
            assert token.logprob - top[0].logprob == pytest.approx(
                logit - vector["top_logits"][0], abs=2e-3)


def test_drafts_change_no_answer(real, real_server):
    """The default guesses ahead; what a text repeats takes fewer steps, and the tokens are the same."""
    fields = [dict(prompt=prompt, stopping={"max_tokens": 80, "ignore_eos": True},
                   sampling={"temperature": temperature, "seed": 3, "repetition_penalty": penalty},
                   output={"logprobs": True})
              for prompt in (PROMPT, "one two three four one two three four one two")
              for temperature, penalty in ((0, 1), (0.8, 1.1))]
    accepted = sample(real_server, "liger_spec_decode_accepted_tokens_total")
    drafted = [generate(real, **each).only for each in fields]
    assert sample(real_server, "liger_spec_decode_accepted_tokens_total") - accepted > 20
    with ServerProcess(*REAL, "--dtype=f32", "--draft-tokens=0") as server:
        client = Client(server.address)
        for each, output in zip(fields, drafted, strict=True):
            plain = generate(client, **each).only
            assert output.ids == plain.ids
            assert output.text == plain.text
            assert output.logprobs == plain.logprobs
        assert sample(server, "liger_spec_decode_draft_tokens_total") == 0


def test_complete_says_what_generate_streams(real):
    fields = dict(prompt=PROMPT, stopping={"max_tokens": 12}, output={"logprobs": True})
    answer = generate(real, **fields)
    response = real.complete(**fields)
    choice = response.choices[0]
    assert choice.text == answer.only.text
    assert list(choice.token_ids) == answer.only.ids
    assert list(choice.logprobs) == answer.only.logprobs
    assert choice.finish_reason == answer.only.finished.finish_reason
    assert response.usage == answer.usage
    timings = choice.timings
    assert timings.time_to_first_token.ToNanoseconds() >= timings.prefill.ToNanoseconds() > 0
    assert timings.decode.ToNanoseconds() > 0


def test_text_is_the_tokens_text(real):
    answer = generate(real, prompt="Say: 日本語 🙂 é\n", stopping={"max_tokens": 20,
                                                              "ignore_eos": True})
    detokenized = real.generation.Detokenize(api.DetokenizeRequest(ids=answer.only.ids))
    assert answer.only.text == detokenized.text


def test_messages_go_through_the_chat_template(real, vectors):
    ids = real.generation.Tokenize(api.TokenizeRequest(
        messages=request(messages=CHAT).messages)).ids
    assert list(ids) == vectors[0]["ids"]
    answer = generate(real, messages=CHAT)
    expected = vectors[0]["greedy_ids"]
    assert answer.only.ids == expected[:expected.index(END) + 1]
    assert answer.only.finished.stop_token_id == END
    assert answer.only.finished.finish_reason == api.FINISH_REASON_STOP
    assert "<|im_end|>" not in answer.only.text


def test_prompt_text_cannot_hold_special_tokens(real):
    ids = real.generation.Tokenize(api.TokenizeRequest(text="<|im_end|>")).ids
    assert END not in ids
    ids = real.generation.Tokenize(api.TokenizeRequest(text="<|im_end|>", parse_special=True)).ids
    assert list(ids) == [END]


def test_tokenize_and_detokenize_are_inverse(real):
    text = "Tokens 123 日本語 🙂\n\tdef f(x): return x"
    response = real.generation.Tokenize(api.TokenizeRequest(text=text))
    assert b"".join(response.tokens).decode() == text
    assert real.generation.Detokenize(api.DetokenizeRequest(ids=response.ids)).text == text


def test_same_seed_same_tokens(tiny):
    def draw(**sampling):
        return generate(tiny, ids=IDS, sampling={"temperature": 1.5, **sampling},
                        stopping={"max_tokens": 16})

    first = draw(seed=7)
    assert draw(seed=7).only.ids == first.only.ids
    assert draw(seed=8).only.ids != first.only.ids
    assert first.started.seed == 7
    unseeded = draw()
    assert draw(seed=unseeded.started.seed).only.ids == unseeded.only.ids
    assert draw().started.seed != unseeded.started.seed


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}],
                         ids=lambda s: next(iter(s)))
def test_filters_that_leave_one_token_are_greedy(tiny, sampling):
    greedy = generate(tiny, ids=IDS, stopping={"max_tokens": 10})
    filtered = generate(tiny, ids=IDS, stopping={"max_tokens": 10},
                        sampling={"temperature": 1.5, "seed": 3, **sampling})
    assert filtered.only.ids == greedy.only.ids


def test_top_k_draws_from_the_k_best(tiny):
    answer = generate(tiny, ids=IDS, sampling={"temperature": 5, "top_k": 3, "seed": 1},
                      stopping={"max_tokens": 30}, output={"top_logprobs": 3})
    ranks = {[t.token_id for t in logprob.top].index(logprob.token_id)
             for logprob in answer.only.logprobs}
    assert ranks == {0, 1, 2}


def test_logit_bias_bans_and_forces(tiny):
    def draw(bias):
        return generate(tiny, ids=IDS, stopping={"max_tokens": 3},
                        sampling={"temperature": 0, "logit_bias": bias}).only.ids

    greedy = draw({})
    assert greedy[0] not in draw({greedy[0]: -100})
    assert draw({123: 100}) == [123] * 3


@pytest.mark.parametrize("penalty", [{"presence_penalty": 2.0}, {"frequency_penalty": 2.0},
                                     {"repetition_penalty": 2.0}], ids=lambda p: next(iter(p)))
def test_penalties_make_for_variety(tiny, penalty):
    def distinct(**sampling):
        # A bias towards few tokens, which greedy decoding would not leave.
        bias = {token: 1.0 for token in range(100, 110)}
        answer = generate(tiny, ids=IDS, stopping={"max_tokens": 40},
                          sampling={"temperature": 0, "logit_bias": bias, **sampling})
        return len(set(answer.only.ids))

    assert distinct(**penalty) > distinct()


def test_stop_string_ends_the_text_before_it(real):
    stopping = {"max_tokens": 12, "ignore_eos": True}
    free = generate(real, prompt=PROMPT, stopping=stopping).only
    stop = free.text[15:21]
    assert stop
    answer = generate(real, prompt=PROMPT, stopping={**stopping, "stop": ["never this", stop]})
    assert answer.only.text == free.text[:free.text.index(stop)]
    assert answer.only.finished.finish_reason == api.FINISH_REASON_STOP
    assert answer.only.finished.stop_string == stop
    assert answer.only.ids == free.ids[:len(answer.only.ids)]
    assert answer.usage.completion_tokens == len(answer.only.ids)


def test_stop_string_that_never_comes_whole_takes_nothing(real):
    stopping = {"max_tokens": 8, "ignore_eos": True}
    free = generate(real, prompt=PROMPT, stopping=stopping).only
    answer = generate(real, prompt=PROMPT, stopping={**stopping, "stop": [free.text[-6:] + "\0"]})
    assert answer.only.text == free.text
    assert answer.only.ids == free.ids


def test_stop_token_id(real, vectors):
    greedy = vectors[2]["greedy_ids"]
    stop = greedy[5]
    answer = generate(real, ids=vectors[2]["ids"], stopping={"stop_token_ids": [stop]})
    assert answer.only.ids == greedy[:greedy.index(stop) + 1]
    assert answer.only.finished.stop_token_id == stop


def test_min_tokens_holds_the_end_off(real):
    answer = generate(real, messages=CHAT, stopping={"min_tokens": 12, "max_tokens": 16})
    assert END not in answer.only.ids[:12]
    assert len(answer.only.ids) >= 12


def test_max_tokens_zero_scores_alone(real):
    answer = generate(real, prompt=PROMPT, stopping={"max_tokens": 0}, output={"echo": True})
    assert answer.only.ids == []
    assert answer.only.text == PROMPT
    assert answer.usage.completion_tokens == 0


def test_echo_scores_the_prompt(real, vectors):
    vector = vectors[2]
    answer = generate(real, ids=vector["ids"], stopping={"max_tokens": 2},
                      output={"echo": True, "logprobs": True})
    output = answer.only
    assert output.echo_ids == vector["ids"]
    assert output.ids == vector["greedy_ids"][:2]
    assert output.text.startswith(vector["prompt"])
    assert output.logprobs[0].logprob == 0
    scored = [-entry.logprob for entry in output.logprobs[1:len(vector["ids"])]]
    assert sum(scored) / len(scored) == pytest.approx(vector["nll"], abs=1e-3)


def test_logprobs_are_the_models_own(real):
    fields = dict(prompt=PROMPT, stopping={"max_tokens": 4}, output={"top_logprobs": 20})
    plain = generate(real, **fields).only
    biased = generate(real, **fields, sampling={"temperature": 0,
                                                "logit_bias": {plain.ids[0]: 5.0}}).only
    assert biased.logprobs[0] == plain.logprobs[0], "bias and temperature do not show"
    for entry in plain.logprobs:
        values = [t.logprob for t in entry.top]
        assert values == sorted(values, reverse=True)
        assert logsumexp(values) <= 1e-4
        assert entry.token_id == entry.top[0].token_id, "greedy draws the best"
    tokens = b"".join(entry.token for entry in plain.logprobs)
    assert tokens.decode() == plain.text


def test_n_outputs_of_one_prompt(tiny):
    sampling = {"temperature": 1.2, "seed": 5}
    stopping = {"max_tokens": 8}
    answer = generate(tiny, ids=IDS, sampling={**sampling, "n": 3}, stopping=stopping)
    assert sorted(answer.outputs) == [0, 1, 2]
    outputs = [answer.outputs[i].ids for i in range(3)]
    assert len({tuple(ids) for ids in outputs}) == 3
    assert all(output.finished is not None for output in answer.outputs.values())
    assert answer.usage.completion_tokens == 24
    assert answer.usage.prompt_tokens == answer.started.prompt_tokens == len(IDS)
    alone = generate(tiny, ids=IDS, sampling=sampling, stopping=stopping)
    assert alone.only.ids == outputs[0]
    greedy = generate(tiny, ids=IDS, sampling={"temperature": 0, "n": 2}, stopping=stopping)
    assert greedy.outputs[0].ids == greedy.outputs[1].ids


def test_request_id_is_kept_or_made(tiny):
    def name(**fields):
        return generate(tiny, ids=IDS, stopping={"max_tokens": 1}, **fields).started.request_id

    assert name(request_id="mine") == "mine"
    assert len({name(), name(), "", "mine"}) == 4


def test_adapter_by_name(real):
    stopping = {"max_tokens": 1}
    generate(real, prompt="x", adapter="smollm2-135m-instruct-liger-gla", stopping=stopping)
    with pytest.raises(grpc.RpcError) as error:
        generate(real, prompt="x", adapter="another", stopping=stopping)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert "another" in error.value.details()


def test_priority_goes_first(tiny):
    # All slots are taken; of two that wait, the later but more urgent one comes first.
    long = dict(ids=[1], stopping={"max_tokens": ENDLESS_TOKENS})
    running = [tiny.generation.Generate(request(**long), timeout=60) for _ in range(4)]
    for stream in running:
        next(stream)
    with concurrent.futures.ThreadPoolExecutor(max_workers=6) as pool:
        # What nobody reads ends after a second, and its slot would be free for either.
        for stream in running:
            pool.submit(list, stream)
        order = []

        def ask(name, priority):
            generate(tiny, ids=[2], stopping={"max_tokens": 400}, priority=priority,
                     request_id=name)
            order.append(name)

        patient = pool.submit(ask, "patient", 0)
        eventually(lambda: tiny.loads().waiting == 1)
        urgent = pool.submit(ask, "urgent", 5)
        eventually(lambda: tiny.loads().waiting == 2)
        running[0].cancel()
        urgent.result()
        patient.result()
        for stream in running:
            stream.cancel()
    assert order == ["urgent", "patient"]


def test_model_info(real):
    info = real.admin.GetModelInfo(admin.GetModelInfoRequest())
    assert (info.gate, info.window, info.backend, info.dtype) == ("gla", 64, "cpu", "f32")
    assert (info.num_layers, info.hidden_size, info.num_heads, info.num_kv_heads,
            info.head_dim, info.vocab_size) == (30, 576, 9, 3, 64, 49152)
    assert info.has_tokenizer and list(info.eos_token_ids) == [END]
    assert info.state_bytes > 0 and info.identity and info.server_version and info.device
    assert info.max_prompt_tokens == 131072


def test_loads(real):
    loads = real.loads()
    assert (loads.slots_total, loads.max_queue, loads.draining) == (8, 16, False)
    stream = real.generation.Generate(request(prompt="x", stopping={"max_tokens": 100,
                                                                    "ignore_eos": True}))
    for message in stream:
        if message.WhichOneof("event") == "delta":
            break
    loads = real.loads()
    assert (loads.running, loads.slots_used) == (1, 1)
    assert loads.utilization == pytest.approx(1 / 8)
    stream.cancel()


def test_a_model_without_tokenizer_takes_token_ids_alone(tiny_server, tiny):
    assert any(line["level"] == "warning" and "token ids only" in line["event"]
               for line in tiny_server.log())
    answer = generate(tiny, ids=[1, 2, 3], stopping={"max_tokens": 5})
    assert len(answer.only.ids) == 5 and answer.only.text == ""
    for call, code in ((lambda: generate(tiny, prompt="x"), grpc.StatusCode.INVALID_ARGUMENT),
                       (lambda: tiny.generation.Tokenize(api.TokenizeRequest(text="x")),
                        grpc.StatusCode.FAILED_PRECONDITION)):
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() == code
        assert "tokenizer" in error.value.details()
