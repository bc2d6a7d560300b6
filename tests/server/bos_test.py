"""What begins a prompt: BOS, where the model's tokenizer puts it before a text."""

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from liger_api import Client, admin, api, generate
from server_process import ServerProcess, tiny_model

TEXT, MORE = "the first text", " and what follows it"


def write_tokenizer(path):
    """Bytes, a merge, and <s> before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(
        vocab={token: i for i, token in enumerate([*alphabet, "th"])}, merges=[("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken("<s>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    tokenizer.save(str(path))
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bos")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return write_tokenizer(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def client(folder, tokenizer):
    with ServerProcess(*tiny_model(folder), "--max-slots=2") as server:
        client = Client(server.address)
        yield client
        client.close()


def ask(client, **fields):
    return generate(client, stopping={"max_tokens": 8, "ignore_eos": True}, **fields)


def test_before_a_prompt_but_not_before_ids(client, tokenizer):
    ids = tokenizer.encode(TEXT).ids
    plain = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert ids == [tokenizer.token_to_id("<s>"), *plain]
    answer = ask(client, prompt=TEXT)
    assert answer.started.prompt_tokens == len(ids)
    assert answer.only.ids == ask(client, ids=ids).only.ids
    assert ask(client, ids=plain).started.prompt_tokens == len(plain)
    assert client.admin.GetModelInfo(admin.GetModelInfoRequest()).bos_token_id == ids[0]


def test_echo_gives_the_tokens_and_the_prompts_own_text(client, tokenizer):
    answer = ask(client, prompt=TEXT, output={"echo": True, "logprobs": True})
    assert answer.only.echo_ids == tokenizer.encode(TEXT).ids
    assert answer.only.text.startswith(TEXT)
    assert len(answer.only.logprobs) == len(answer.only.echo_ids) + len(answer.only.ids)


def test_tokenize_gives_a_part_or_a_prompt(client, tokenizer):
    def tokenize(**fields):
        return list(client.generation.Tokenize(api.TokenizeRequest(**fields)).ids)

    assert tokenize(text=TEXT) == tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert tokenize(text=TEXT, add_special=True) == tokenizer.encode(TEXT).ids
    assert tokenize(text="<s>" + TEXT, parse_special=True,
                    add_special=True) == tokenizer.encode(TEXT).ids


def test_once_in_a_session(client, tokenizer):
    first = ask(client, prompt=TEXT, session_id="s")
    history = tokenizer.encode(TEXT).ids + first.only.ids
    history += tokenizer.encode(MORE, add_special_tokens=False).ids
    second = ask(client, prompt=MORE, session_id="s")
    assert second.started.prompt_tokens == len(history)
    assert second.only.ids == ask(client, ids=history).only.ids
