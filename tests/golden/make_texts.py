"""Writes texts/: two small tokenizers, and what transformers makes of texts and conversations with them.

Run by hand with the versions below; the results are committed. The format is in README.md.
"""

import json
import pathlib

import tokenizers
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

assert transformers.__version__ == "5.23.0", transformers.__version__

HERE = pathlib.Path(__file__).parent / "texts"
CORPUS = [
    "The kettle boils quickly and the handle stays cool.",
    "I returned the kettle after a week; the lid would not close.",
    "Ein schöner Kessel, würde ich wieder kaufen.",
    "Цена хорошая, чайник кипит быстро.",
    "这个水壶很好，烧水很快。",
    "It isn't cheap, but it's worth $49.90!\n\n\tIndented text, 12345 numbers.",
] * 4
TEXTS = [
    "",
    "The kettle boils.",
    "  two spaces, a tab\tand\na line",
    "schöner Kessel",
    "Цена 49.90 $ 😀 waves 👋🏽 至",
    "<|im_start|>user\nhi<|im_end|>",
    "don't IT'S e\u0301 \u00a0 \u200b\r\n",
]
SPECIAL = ["<|bos|>", "<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]

CHATML = """{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

HEADERS = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string + "\\n" }}
{%- if tools is not none %}
    {{- "Functions:\\n\\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one tool call at once") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

INSTRUCT = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% if message['role'] == 'user' %}\
{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}\
{{ ' ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}"""

THINKING = """{%- macro wrapped(role, text) -%}
<{{ role }}>{{ text }}</{{ role }}>
{%- endmacro -%}
{%- set ns = namespace(last=-1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if not ns.found and message.role == "user" %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
        {%- set ns.found = true %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {% generation %}
{%- if loop.index0 > ns.last and thought %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {% endgeneration %}
    {%- elif message.role.startswith("sys") %}
        {{- wrapped(message.role, content|upper) }}
    {%- else %}
        {{- wrapped(message.role, content) }}
    {%- endif %}
    {%- for key, value in message.items() if key not in ["role", "content"] %}
        {{- key ~ '=' ~ value ~ ';' }}
    {%- endfor %}
{%- endfor %}
{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}
    {{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
"""


def said(*turns):
    return [{"role": role, "content": content} for role, content in turns]


PLAIN = said(("user", "Is it good?"), ("assistant", "It is. 😀"), ("user", "Why?"), ("assistant", "It boils <quickly> & well."))
SYSTEM = said(("system", "  Be short. "), *[(m["role"], m["content"]) for m in PLAIN[:3]])
TOOLS = [{"type": "function", "function": {"name": "price", "description": "It's <the> price & \"more\" é",
          "parameters": {"type": "object", "properties": {"item": {"type": "string"}, "n": {"type": "number", "default": 1.5}},
                         "required": [], "x": None, "y": True, "z": {}}}}]
CALLS = PLAIN[:1] + [
    {"role": "assistant", "tool_calls": [{"function": {"name": "price", "arguments": {"item": "a\\u003c'\"", "n": 3}}}]},
    {"role": "tool", "content": {"price": 49.9, "in": ["EUR", None]}},
    {"role": "user", "content": "thanks\n"},
]
THOUGHTS = said(("system", "sys"), ("user", "a"), ("assistant", "<think>\nold\n</think>\n\nb"), ("user", "c"),
                ("assistant", "<think>\nnew\n</think>\n\nd")) + [{"role": "user", "content": "e", "flag": True, "none": None, "n": 2, "f": 2.0, "reasoning": "r"}]

CASES = [
    ("chatml", CHATML, PLAIN, {}, False),
    ("chatml", CHATML, SYSTEM, {}, True),
    ("chatml", CHATML, said(("assistant", "")), {}, True),
    ("headers", HEADERS, PLAIN, {}, True),
    ("headers", HEADERS, SYSTEM, {"date_string": "1 Jan 2026"}, False),
    ("headers", HEADERS, CALLS, {"tools": TOOLS}, True),
    ("instruct", INSTRUCT, PLAIN, {}, False),
    ("thinking", THINKING, THOUGHTS, {}, False),
    ("thinking", THINKING, THOUGHTS, {"enable_thinking": False}, True),
]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, min_frequency=2, show_progress=False, special_tokens=SPECIAL,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    return tokenizer


def pieces():
    """As Llama 2's: words begin with U+2581, unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    bytes_ = [AddedToken(f"<0x{byte:02X}>", special=False, normalized=False) for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, min_frequency=2, show_progress=False, limit_alphabet=60,
                                  special_tokens=["<unk>", "<s>", "</s>"] + bytes_)
    tokenizer.train_from_iterator([text[:60] for text in CORPUS], trainer)
    # The trainer makes every given token special; the byte tokens must be plain ones.
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = saved["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(saved))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def encodings(wrapped):
    rows = []
    for text in TEXTS:
        ids = wrapped.encode(text, add_special_tokens=False)
        rows.append({"text": text, "ids": ids, "with_special": wrapped.encode(text),
                     "decoded": wrapped.decode(ids, clean_up_tokenization_spaces=False),
                     "decoded_without_special": wrapped.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)})
    return rows


def chat(wrapped, name, template, messages, variables, prompt):
    case = {"name": name, "messages": messages, "variables": variables, "add_generation_prompt": prompt}
    named = [{key: value for key, value in message.items() if value is not None} for message in messages]
    texts, spans = render_jinja_template(
        [named], tools=variables.get("tools"), chat_template=template, return_assistant_tokens_mask=True,
        add_generation_prompt=prompt, **wrapped.special_tokens_map, **{k: v for k, v in variables.items() if k != "tools"})
    assert texts[0] == wrapped.apply_chat_template(messages, chat_template=template, add_generation_prompt=prompt, tokenize=False, **variables)
    case |= {"text": texts[0], "assistant": [texts[0][start:end] for start, end in spans[0]]}
    out = wrapped.apply_chat_template(messages, chat_template=template, add_generation_prompt=prompt, return_dict=True,
                                      return_assistant_tokens_mask=True, **variables)
    return case | {"ids": out["input_ids"], "assistant_mask": out["assistant_masks"]}


def main():
    names = {"bytes": dict(bos_token="<|bos|>", eos_token="<|eos|>", pad_token="<|pad|>"),
             "pieces": dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")}
    for name, make in [("bytes", byte_level), ("pieces", pieces)]:
        wrapped = PreTrainedTokenizerFast(tokenizer_object=make(), **names[name])
        wrapped.save_pretrained(HERE / name)
        write(HERE / name / "encodings.json", encodings(wrapped))
        if name == "bytes":
            write(HERE / "chats.json", {"templates": {case[0]: case[1] for case in CASES}, "cases": [chat(wrapped, *case) for case in CASES]})


def write(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


main()
