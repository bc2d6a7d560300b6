"""Published chat templates render as Python's jinja2 renders them, for every kind of conversation, and
fail where it fails. Needs the program render_template (in LIGER_BIN_DIR, default build/release/bin)
and the model of the quickstart (LIGER_TEST_MODEL)."""

import json
import os
import pathlib
import subprocess

import gguf
import pytest

from reference import chat_variables, render_all

SOURCE = pathlib.Path(__file__).parents[3]
PROGRAM = pathlib.Path(os.environ.get("LIGER_BIN_DIR", SOURCE / "build/release/bin")) / "render_template"
MODEL = pathlib.Path(
    os.environ.get("LIGER_TEST_MODEL", SOURCE / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf")
)

# Must be among those of the package.
FAMILIES = (
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "meta-llama-Llama-3.3-70B-Instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "google-gemma-2-2b-it",
    "HuggingFaceTB-SmolLM3-3B",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
)


# Puts Markup, which `safe` makes in jinja2, together with text, which jinja2 then escapes as HTML.
MARKUP = "meetkai-functionary-medium-v3.1"


def different(name, template):
    """The first conversation whose text differs, or that only one of the two refuses."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} does not exist")
    names, cases = zip(*chat_variables())
    lines = "".join(json.dumps({"template": template, "variables": case}) + "\n" for case in cases)
    result = subprocess.run([PROGRAM], input=lines, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{name}: {result.stderr}"
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    expected = render_all(template, cases)
    if name in FAMILIES and sum("text" in theirs for theirs in expected) < len(cases) / 4:
        return f"{name}: renders next to nothing"
    for conversation, theirs, ours in zip(names, expected, answers, strict=True):
        if theirs.get("text") != ours.get("text"):
            return f"{name}, {conversation}:\n{theirs}\n{ours}"
    return None


def test_of_many_models(llama_cpp_models):
    templates = {path.stem: path.read_text() for path in (llama_cpp_models / "templates").glob("*.jinja")}
    assert set(FAMILIES) <= set(templates)
    assert len(templates) > 60
    del templates[MARKUP]
    found = [different(name, template) for name, template in sorted(templates.items())]
    assert not any(found), "\n".join(filter(None, found))


def test_of_the_quickstarts_model():
    if not MODEL.exists():
        pytest.skip(f"{MODEL} does not exist")
    template = gguf.GGUFReader(MODEL).fields["tokenizer.chat_template"].contents()
    assert not different(MODEL.name, template)
