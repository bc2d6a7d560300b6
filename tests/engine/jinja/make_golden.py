"""Writes testdata/golden.json: what Python's jinja2 makes of templates that use the constructs of chat
templates, one by one. template_test.cc compares.

    python tests/engine/jinja/make_golden.py
"""

import json
import pathlib

import jinja2

from reference import CONVERSATIONS, TOOLS, render_all

VARIABLES = {
    "messages": CONVERSATIONS["turns"],
    "tools": TOOLS,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "n": 3,
    "f": 2.5,
    "s": "  Hello, W\u00f6rld \u65e5\u672c \U0001f44d\n",
    "l": [3, 1, 2],
    "d": {"b": 1, "a": [1, "x", None, True], "items": "i"},
    "no": None,
    "e": [],
}

TEMPLATES = {
    # Values as text.
    "values": "{{ n }} {{ f }} {{ 1e20 }} {{ 1e-7 }} {{ 1/3 }} {{ 10/2 }} {{ no }} {{ true }} {{ missing }}",
    "lists": "{{ l }} {{ d }} {{ (1,) }} {{ (1, 'a\"b') }} {{ ['it\\'s', \"\\n\\t\\\\\", 'é\u200b'] }} {{ {} }} {{ [] }}",
    "strings": r"{{ 'a\nb\x41\u00e9\'\"\\' }}{{ 'one' 'two' }}{{ '%}' ~ '}}' }}",
    # Operators.
    "arithmetic": "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7.5 // 2 }} {{ -n }} {{ 2 * 3 + 4 }} {{ 2 ~ 3 * 2 }}",
    "precedence": "{{ -1 | abs }} {{ 2 + 3 | string | length }} {{ not true or true }} {{ 1 if false else 2 if false else 3 }} {{ 'x' if false }}",
    "comparison": "{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ 1 != '1' }} {{ [1, 2] == [1, 2] }} {{ 3 >= 3 }} {{ true == 1 }} {{ {'a': 1} == {'a': 1.0} }}",
    "membership": "{{ 'W' in s }} {{ 2 in l }} {{ 'a' in d }} {{ 'q' not in d }} {{ 1 in missing }} {{ not 4 in l }}",
    "repeat": "{{ 'ab' * 3 }} {{ [0] * 2 }} {{ 'a' ~ 1 ~ none }} {{ [1] + [2] }} {{ (1,) + (2,) }}",
    "logic": "{{ 0 or 'x' }} {{ 'a' and 'b' }} {{ '' or none }} {{ missing or 'd' }}",
    # Items, slices, attributes.
    "items": "{{ messages[0].role }} {{ messages[-1]['content'] }} {{ d['items'] }} {{ d.a.3 }} {{ s[2] }} {{ l[9] }} {{ messages[0].nothing }}",
    "slices": "{{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ s[2:7] }} {{ s[::-1] }} {{ l[5:] }} {{ messages[1:]|length }} {{ 'abcdef'[1:5:2] }} {{ 'abc'[-2:] }}",
    "unicode": "{{ s|length }} {{ s[14] }} {{ s|upper }} {{ s|trim|lower }} {{ '\u00e9COLE'|capitalize }} {{ s.strip().split(' ') }}",
    # Tags and white space.
    "loops": "{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}",
    "loop variables": "{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{% for y in e %}{% else %}!{% endfor %}{% endfor %}",
    "loop filter": "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{{ m.content }}{% endfor %}",
    "loop controls": "{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "unpacking": "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% for k in d %}{{ k }}{% endfor %}{% for (k, v) in d|items %}{{ k }}{% endfor %}",
    "scopes": "{% set x = 1 %}{% for i in l %}{{ x }}{% set x = i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}{% with x = 5, y = x %}{{ x }}{{ y }}{% endwith %}{{ x }}",
    "namespace": "{% set ns = namespace(n=0, found=false) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }} {{ ns.found }} {{ ns.missing is defined }}",
    "set block": "{% set x %}a{{ n }}b{% endset %}[{{ x }}]{% set y | upper | trim %} q {% endset %}[{{ y }}]",
    "macros": "{% macro m(a, b='B', c=none) %}{{ a }}{{ b }}{{ c }}{% if a == 1 %}{{ m(2) }}{% endif %}{% endmacro %}{{ m(1) }}|{{ m('x', c=3) }}|{{ m() }}{{ m(b='q')|length }}",
    "macro scope": "{% macro show() %}{{ later }}{{ n }}{% endmacro %}{% set later = 'L' %}{{ show() }}{% for n in [7] %}{{ show() }}{% endfor %}",
    "call block": "{% macro box(t) %}<{{ t }}:{{ caller() }}>{% endmacro %}{% call box('x') %}in{{ n }}{% endcall %}",
    "filter block": "{% filter upper|trim %} abc {{ n }} {% endfilter %}|",
    "generation": "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
    "trim and lstrip": "a\n  {% if true %}\n  b\n  {% endif %}\nc\n    {# comment #}\n  {{ n }}\n{%- if true -%}\n x \n{%- endif %}\nd\n",
    "signs": "  {%+ if true %}  x\n{% endif +%}\ny {{- n -}} z\n\n  {%- set q = 1 -%}  \n w{#- c -#} v {%+ if true +%}\n k{% endif %}",
    "raw": "{% raw %}{{ not }} {% this %}{% endraw %}\n x{%- raw -%}  {{ y }}  {%- endraw -%}  z",
    "line ends": "a\r\nb\r{% if true %}\r\nc{% endif %}\r\n",
    "last line end": "x\n\n",
    "inline after text": "text {% if true %}\nkept{% endif %}\n  \t{% set z = 1 %}tail",
    # Filters.
    "text filters": "{{ s|trim }}|{{ 'aXbX'|replace('X', '-') }}|{{ 'hello wORLD-x'|title }}|{{ '<a&\"\\'>'|e }}|{{ 'xxaxx'|trim('x') }}|{{ 5|string ~ 'x' }}",
    "indent": "{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb\n'|indent('> ', blank=true) }}",
    "default": "{{ missing|default('d') }}{{ ''|default('e') }}{{ ''|default('f', true) }}{{ no|d('g', boolean=true) }}{{ missing.x|default('h') if missing else 'i' }}",
    "sequences": "{{ l|sort }} {{ l|sort(reverse=true) }} {{ l|first }} {{ l|last }} {{ l|max }} {{ l|min }} {{ l|sum }} {{ l|reverse|list }} {{ ['b', 'A', 'c']|sort|join(',') }} {{ [1, 1, 2]|unique|list }} {{ l|length }} {{ d|count }} {{ 'abc'|list }} {{ 'abc'|last }}",
    "map and select": "{{ messages|map(attribute='role')|join(',') }} {{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list }} {{ messages|rejectattr('role', 'in', ['user', 'system'])|list|length }} {{ ['a', '', 'b']|select|list }} {{ [1, 2, 3]|reject('odd')|list }} {{ ['a']|map('upper')|list }} {{ no|selectattr('x')|list }}",
    "dictsort": "{{ {'b': 1, 'C': 0, 'a': 2}|dictsort }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }}",
    "numbers": "{{ '42'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.9|int }} {{ '1.5'|float }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ -3|abs }} {{ 7|float }}",
    "tojson": "{{ d|tojson }} {{ tools|tojson(indent=2) }} {{ 'é<>&\"\\n\u2028'|tojson }} {{ [1.0, 1e30, none, true]|tojson }} {{ d|tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }} {{ {}|tojson(indent=4) }} {{ {1: 2, none: 3}|tojson }}",
    # Tests.
    "tests": "{{ n is number }}{{ n is integer }}{{ f is float }}{{ s is string }}{{ d is mapping }}{{ l is iterable }}{{ l is sequence }}{{ d is sequence }}{{ no is none }}{{ true is boolean }}{{ missing is defined }}{{ missing is undefined }}{{ n is odd }}{{ n is divisibleby 3 }}{{ n is not even }}{{ 'a' is in ['a'] }}{{ 1 is eq 1 }}{{ false is false }}{{ 'A' is upper }}{{ none is sameas none }}{{ n is string or n is number }}",
    # Methods.
    "methods": "{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1)[0] }} {{ 'xaxx'.strip('x') }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }} {{ 'abcabc'.find('ca') }} {{ 'aaa'.rfind('aa') }} {{ 'banana'.count('an') }} {{ '-'.join(['a', 'b']) }} {{ 'x'.upper() }} {{ 'hello wORLD'.title() }} {{ 'a\nb'.splitlines() }} {{ '{} {1} {x}'.format(1, 2, x=3) if false else '{}-{}'.format(1, 'b') }} {{ 'abc'.removeprefix('a') }} {{ '12'.isdigit() }} {{ 'a-b'.replace('-', '', 1) }}",
    "dict methods": "{{ d.get('a') }} {{ d.get('z', 5) }} {{ d.keys()|list }} {{ d.values()|list }} {{ d.items()|length }} {{ d.get('z') is none }}",
    "think": "{% set c = messages[2].content %}{{ c.split('</think>')[-1].lstrip('\\n') }}|{{ c.split('<think>')[-1].split('</think>')[0].strip('\\n') }}",
    "range": "{{ range(3)|list }} {{ range(1, 7, 2)|list }} {{ range(3, 0, -1)|list }} {{ range(messages|length - 1, -1, -1)|list }}",
    # Whole chat templates in the style of published ones.
    "instructions": "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim + '\\n\\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.first %}{% set content = system + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + content | trim + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content | trim + eos_token }}{% endif %}{% endfor %}",
    "roles in tags": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    # Errors.
    "error: raised": "{{ raise_exception('no ' ~ n) }}",
    "error: undefined attribute": "a\n{{ missing.x }}",
    "error: undefined sum": "{{ 'a' + missing }}",
    "error: kinds": "{{ 'a' + 1 }}",
    "error: order": "{{ [1, 'a']|sort }}",
    "error: division": "{{ 1 / 0 }}",
    "error: iteration": "{% for x in 5 %}{% endfor %}",
    "error: call": "{{ n() }}",
    "error: change": "{{ l.append(1) }}",
    "error: filter": "{{ n|nonesuch }}",
    "error: end": "{% if true %}",
    "error: tag": "{% nonesuch %}",
    "error: bracket": "{{ (1 }}",
    "error: string": "{{ 'abc }}",
    "error: tag end": "x {{ n ",
    "error: length": "{{ n|length }}",
    "error: json": "{{ missing|tojson }}",
    "error: unpack": "{% set a, b = [1] %}",
    "error: argument": "{{ 'a'|replace('b') }}",
}


def main():
    cases = [
        {"name": name, "template": template, **render_all(template, [VARIABLES])[0]}
        for name, template in TEMPLATES.items()
    ]
    for case in cases:
        assert case["name"].startswith("error") == ("error" in case), case
    golden = {"jinja2": jinja2.__version__, "variables": VARIABLES, "cases": cases}
    path = pathlib.Path(__file__).parent / "testdata" / "golden.json"
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
