"""Renders chat templates with Jinja2, set up as transformers sets it up, and writes what comes out.

    pip install jinja2
    python scripts/peers/chat_templates.py tests/golden/chat/cases.json

The templates are of the kinds that models bring along, made for this project.
"""

import json
import sys

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATES = {
    "chatml": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
Help people.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "brackets": """{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim + '\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Turns must alternate.') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + (system_message if loop.index0 == 0 else '') + message['content'].strip() + ' [/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'].strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
""",
    "headers": """{{- bos_token }}
{%- macro header(role) -%}
<|header|>{{ role | upper }}<|end|>

{% endmacro -%}
{% set ns = namespace(turns=0, last='') %}
{% for message in messages %}
  {% if message.role == 'tool' %}{% continue %}{% endif %}
  {% set ns.turns = ns.turns + 1 %}
  {% set ns.last = message.content.split('</think>')[-1].lstrip('\\n') %}
  {{- header(message.role) ~ ns.last -}}
{{ '|' }}
{% endfor %}
{{ ns.turns }} {{ tools is none }} {{ nothing is defined }} {{ messages | length }} {{ messages[-1].content.startswith('H') }}
{% if add_generation_prompt %}{{ header('assistant') }}{% endif %}""",
    "json": """{% for message in messages %}
{{ message | tojson }}
{{ message.content | tojson }}
{{ {'a': [1, 2.5, none, true], 'b': 'ü<&>\\'"'} | tojson(indent=2) }}
{% endfor %}""",
    "filters": """{%- for message in messages -%}
{{ loop.index }}/{{ loop.length }} {{ message['role'] | capitalize }}: {{ message['content'] | replace('o', '0') | trim }}
{%- if not loop.last %}{{ ', ' }}{% else %}{{ '.' }}{% endif -%}
{%- endfor -%}
{{ messages | map(attribute='role') | join('+') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ (messages | first)['content'][:3] }}{{ 'yes' if 'user' in messages[0].values() else 'no' }} {{ messages[0].get('name', 'nobody') }}
""",
}

CONVERSATIONS = [
    [("user", "Hello there")],
    [("system", " Be brief. "), ("user", "How are you?\n"), ("assistant", " Fine, thanks.\n"), ("user", "Good – 日本語 😀")],
    [("user", "One"), ("assistant", "<think>\nhm</think>\n\nTwo"), ("user", "</s> \"quoted\" & 'more'")],
    [("user", "Hi"), ("user", "again")],
    [("user", "")],
]


def main(target):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])

    def raise_exception(message):
        raise ValueError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    cases = []
    for name, source in TEMPLATES.items():
        template = environment.from_string(source)
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            for prompt in (False, True):
                case = {"template": name, "messages": messages, "add_generation_prompt": prompt}
                values = {"bos_token": "<s>", "eos_token": "</s>", "tools": None, "documents": None}
                try:
                    case["text"] = template.render(messages=messages, add_generation_prompt=prompt, **values)
                except ValueError as e:
                    case["raised"] = str(e)
                cases.append(case)
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"templates": TEMPLATES, "cases": cases}, file, ensure_ascii=False, indent=1)
        file.write("\n")


main(sys.argv[1])
