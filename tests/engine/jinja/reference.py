"""Python's jinja2, set up as Hugging Face transformers does for chat templates, and what the tests
put through it."""

import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what a model is trained on: it renders as its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_body")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def make_environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


ENVIRONMENT = make_environment()


def render_all(template, cases):
    """For each of the variables {"text": ...}, or {"error": ...} where jinja2 raises anything."""
    answers = []
    for variables in cases:
        try:
            if not isinstance(template, jinja2.Template):
                template = ENVIRONMENT.from_string(template)
            answers.append({"text": template.render(**variables)})
        except Exception as error:  # of whatever kind: the template did it
            answers.append({"error": f"{type(error).__name__}: {error}"})
    return answers


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Says \"how\" it <is> & 'was' \u2600",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city"},
                    "days": {"type": "integer", "default": 3},
                    "unit": {"type": "string", "enum": ["c", "f"]},
                    "at": {"type": "array", "items": {"type": "number"}},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "noop",
            "description": "",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]


def message(role, content, **more):
    return {"role": role, "content": content, **more}


CALL = message(
    "assistant",
    "",
    tool_calls=[
        {
            "type": "function",
            "id": "abcdef123",
            "function": {
                "name": "get_weather",
                "arguments": {"city": "Paris", "days": 2, "f": 1.5, "n": None, "b": True, "l": ["x", "\u00e9"]},
            },
        }
    ],
)
ANSWER = message("tool", '{"t": 21}', name="get_weather", tool_call_id="abcdef123")

CONVERSATIONS = {
    "user": [message("user", "Hi")],
    "system": [message("system", "Be brief."), message("user", "Hi  ")],
    "turns": [
        message("system", "  S\n"),
        message("user", "  one\n"),
        message("assistant", "<think>\nhm\n</think>\n\nBonjour \u00e9 \U0001f44d  "),
        message("user", "two"),
        message("assistant", "deux"),
        message("user", "three"),
    ],
    "tool": [message("user", "w?"), CALL, ANSWER, message("assistant", "21"), message("user", "thanks")],
    "tool last": [message("system", "sys"), message("user", "w?"), CALL, ANSWER],
    "two tools": [message("user", "w?"), CALL, ANSWER, ANSWER],
    "reasoning": [
        message("user", "q"),
        message("assistant", "ans", reasoning_content="because"),
        message("user", "q2"),
    ],
    "unknown role": [message("foo", "x")],
    "none": [],
    "assistant first": [message("assistant", "x"), message("user", "y")],
    "parts": [message("user", [{"type": "text", "text": "hello"}])],
}


def chat_variables():
    """(name, variables) of everything a chat template may be asked for."""
    for name, messages in CONVERSATIONS.items():
        for tools in (None, TOOLS):
            for prompt in (True, False):
                for more in ({}, {"enable_thinking": False}):
                    yield f"{name}, tools: {tools is not None}, prompt: {prompt}, {more}", {
                        "messages": messages,
                        "tools": tools,
                        "documents": None,
                        "add_generation_prompt": prompt,
                        "bos_token": "<s>",
                        "eos_token": "</s>",
                        "unk_token": "<unk>",
                        "pad_token": "<pad>",
                        **more,
                    }
