#!/usr/bin/env python3
"""Drives a served model with the clients that people use, and answers a file of requests.

    python3 tools/clients.py MODEL [--metallic PATH]

Needs the packages openai, anthropic, ollama and langchain-openai. Starts `metallic serve`, and checks what each client
makes of its answers: whole, streamed, cut, stopped, refused and given up. At temperature 0 all must say what `metallic run`
says. Models are pulled from a server on this machine in the place of Hugging Face.
"""

import argparse
import hashlib
import json
import os
import re
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import anthropic
import ollama
import openai
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

BINARY = Path(__file__).resolve().parent.parent / "target/release/metallic"
QUESTION = "What is the capital of France?"
N_TOKENS = 24


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "is_large": {"type": "boolean"}},
    "required": ["city", "is_large"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}

# The model's own template, with tools as Hermes's has them.
TEMPLATE = """{% if tools %}<|im_start|>system
You call functions: {{ tools | tojson }} Write <tool_call>
{"name": ..., "arguments": ...}
</tool_call><|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
UNITS = ["celsius", "fahrenheit"]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": UNITS}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TIME = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}
TIME["additionalProperties"] = False
FUNCTIONS = {"weather": WEATHER, "time": TIME}


def check_call(name, arguments):
    """That a call keeps to the schema of a tool."""
    assert arguments.keys() == FUNCTIONS[name]["properties"].keys(), (name, arguments)
    assert arguments.get("unit", "celsius") in UNITS and arguments.get("zone", "UTC") in ["UTC", "CET"], arguments


def check_form(text):
    """That a text keeps to the schema."""
    value = json.loads(text)
    assert value.keys() == {"city", "is_large"} and isinstance(value["is_large"], bool), text


class Server:
    """A server for as long as a `with` lasts, of a model that it calls `served`, or of none."""

    def __init__(self, metallic, model, *flags, **env):
        command = [metallic, "serve", "--port", "0", "-c", "1024", *flags]
        command += [model, "--alias", "served"] if model else []
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **env})

    def __enter__(self):
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(r"serving .+ at (http://\S+)/v1", line):
                self.url = found[1]
                return self
        raise SystemExit("the server did not start: " + "".join(said))

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=40)


class Hub:
    """A server in the place of Hugging Face for as long as a `with` lasts, with one file, which comes in a second and a half."""

    def __init__(self, name, content):
        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                is_here = self.path.endswith(f"/{name}")
                begin = int(re.sub(r"\D", "", self.headers["range"] or "0"))
                self.send_response(404 if not is_here else 206 if self.command == "GET" else 200)
                self.send_header("x-linked-size", len(content))
                self.send_header("x-linked-etag", hashlib.sha256(content).hexdigest())
                self.send_header("content-range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
                self.send_header("content-length", len(content) - begin if is_here else 0)
                self.end_headers()
                step = len(content) // 10 + 1
                for at in range(begin, len(content), step) if is_here and self.command == "GET" else []:
                    self.wfile.write(content[at : at + step])
                    time.sleep(0.15)

            do_GET = do_HEAD = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def post(url, body):
    """What a path answers, as JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))


# Tokens of SmolLM2 that no text has.
INFILL = {"pre": 3, "suf": 5, "mid": 6}


def with_infill_tokens(model):
    """A model whose metadata says which tokens fill in. What is added keeps the tensors aligned."""
    entries = b""
    for name, token in INFILL.items():
        key = f"tokenizer.ggml.fim_{name}_token_id".encode()
        entries += struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, token)
    key = b"a"
    rest = -(len(entries) + 8 + len(key) + 12) % 32
    entries += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, rest) + b" " * rest
    magic, version, n_tensors, n_kv = struct.unpack_from("<IIQQ", model)
    return struct.pack("<IIQQ", magic, version, n_tensors, n_kv + len(INFILL) + 1) + entries + model[24:]


def expected(metallic, model):
    """What the command says to the question."""
    command = [metallic, "run", "-m", model, "--temp", "0", "-n", str(N_TOKENS), "-c", "1024", "--json", QUESTION]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    texts = [json.loads(line) for line in lines]
    return "".join(line["text"] for line in texts if line.get("type") == "text")


def check_openai(url, answer):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    ask = {"model": "served", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    whole = client.chat.completions.create(**ask, max_tokens=N_TOKENS)
    assert whole.choices[0].message.content == answer, (whole.choices[0].message.content, answer)
    assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == N_TOKENS
    stream = client.chat.completions.create(
        **ask, max_completion_tokens=N_TOKENS, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer
    assert chunks[-1].usage.completion_tokens == N_TOKENS and not chunks[-1].choices
    told = client.chat.completions.create(**ask, max_tokens=3, logprobs=True, top_logprobs=2)
    assert [len(token.top_logprobs) for token in told.choices[0].logprobs.content] == [2, 2, 2]
    several = client.chat.completions.create(
        model="served", messages=ask["messages"], n=3, seed=1, temperature=1.5, max_tokens=8
    )
    assert len({choice.message.content for choice in several.choices}) == 3
    stopped = client.completions.create(model="served", prompt="1, 2, 3, 4,", stop=[" 6"], temperature=0, max_tokens=20)
    assert stopped.choices[0].text == " 5," and stopped.choices[0].finish_reason == "stop", stopped
    formed = client.chat.completions.create(**ask, max_tokens=100, response_format=FORM)
    check_form(formed.choices[0].message.content)
    assert [model.id for model in client.models.list()] == ["served"]
    assert client.models.retrieve("served").id == "served"
    for error, param, more in [
        (openai.NotFoundError, "model", {"model": "other"}),
        (openai.BadRequestError, "magic", {"extra_body": {"magic": 1}}),
        (openai.BadRequestError, "temperature", {"temperature": -1}),
        (openai.BadRequestError, None, {"messages": [{"role": "user", "content": "word " * 2000}]}),
    ]:
        try:
            client.chat.completions.create(**{**ask, **more})
            raise SystemExit(f"{more} is taken")
        except error as refused:
            assert refused.param == param, (refused.param, more)
    # All of a client that goes becomes free for the next.
    gone = [client.chat.completions.create(**ask, stream=True, extra_body={"ignore_eos": True}) for _ in range(4)]
    for stream in gone:
        next(iter(stream))
        stream.close()
    began = time.monotonic()
    client.chat.completions.create(**ask, max_tokens=1)
    assert time.monotonic() - began < 5, "what nobody hears goes on"


def check_anthropic(url, answer):
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    ask = {"model": "served", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": N_TOKENS}
    ask["extra_body"] = {"temperature": 0}
    whole = client.messages.create(**ask)
    assert whole.content[0].text == answer and whole.stop_reason == "max_tokens", whole
    with client.messages.stream(**ask) as stream:
        assert "".join(stream.text_stream) == answer
        final = stream.get_final_message()
    assert final.stop_reason == "max_tokens" and final.usage.output_tokens == N_TOKENS, final
    counted = client.messages.count_tokens(model="served", messages=ask["messages"])
    assert counted.input_tokens > 10
    start = " ".join(answer.split()[:3])
    begun = [*ask["messages"], {"role": "assistant", "content": start}]
    rest = client.messages.create(**{**ask, "messages": begun, "max_tokens": 3}).content[0].text
    assert answer.startswith(start + rest), rest
    first = answer.split()[1]
    stopped = client.messages.create(**ask, stop_sequences=[first])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == first, stopped
    for error, more in [
        (anthropic.NotFoundError, {"model": "other"}),
        (anthropic.BadRequestError, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        (anthropic.BadRequestError, {"extra_body": {"magic": 1}}),
    ]:
        try:
            client.messages.create(**{**ask, **more})
            raise SystemExit(f"{more} is taken")
        except error:
            pass


def check_responses(url, answer):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    ask = {"model": "served", "input": QUESTION, "temperature": 0}
    whole = client.responses.create(**ask, max_output_tokens=N_TOKENS)
    assert whole.output_text == answer and whole.status == "incomplete", whole
    assert whole.usage.output_tokens == N_TOKENS and whole.usage.input_tokens_details.cached_tokens >= 0
    with client.responses.stream(**ask, max_output_tokens=N_TOKENS) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer
    assert events[-1].type == "response.incomplete" and events[-1].response.output_text == answer
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "And of Italy?"},
    ]
    assert client.responses.create(**{**ask, "input": turns}, instructions="Be brief.", max_output_tokens=4).output_text
    form = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}
    formed = client.responses.create(**ask, text=form, max_output_tokens=100)
    check_form(formed.output_text)
    for param, value in [("previous_response_id", "resp_1"), ("background", True)]:
        try:
            client.responses.create(**ask, **{param: value})
            raise SystemExit(f"{param} is taken")
        except openai.BadRequestError as refused:
            assert refused.param == param, refused
    try:
        client.embeddings.create(model="served", input="a")
        raise SystemExit("an embedding is made")
    except openai.BadRequestError as refused:
        assert "embeddings" in refused.message


def check_calls(url, _):
    """Calls that have to be made, with each vendor's client."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    tools = [{"type": "function", "function": {"name": n, "parameters": s}} for n, s in FUNCTIONS.items()]
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    ask = {"model": "served", "messages": question, "temperature": 0, "tools": tools, "parallel_tool_calls": False}
    for choice, name in [("required", None), ({"type": "function", "function": {"name": "time"}}, "time")]:
        whole = client.chat.completions.create(**ask, tool_choice=choice, max_tokens=200)
        (call,) = whole.choices[0].message.tool_calls
        check_call(call.function.name, json.loads(call.function.arguments))
        assert name in (None, call.function.name) and whole.choices[0].finish_reason == "tool_calls", whole
        chunks = client.chat.completions.create(**ask, tool_choice=choice, max_tokens=200, stream=True)
        deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
        assert deltas[0].id and deltas[0].function.name == call.function.name and deltas[0].function.arguments == ""
        assert len(deltas) > 2 and not any(delta.id for delta in deltas[1:])
        assert json.loads("".join(delta.function.arguments for delta in deltas)) == json.loads(call.function.arguments)
    with client.chat.completions.stream(**ask, tool_choice="required", max_tokens=200) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name in FUNCTIONS
    answered = [
        *question,
        whole.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "12:00"},
    ]
    assert client.chat.completions.create(**{**ask, "messages": answered}, max_tokens=4).choices[0].message
    # Of its own accord the model does what it has done before, unless one call is to be all.
    zones = [{"name": "time", "arguments": json.dumps({"zone": zone})} for zone in ["UTC", "CET"]]
    calls = [{"type": "function", "function": zone, "id": zone["arguments"]} for zone in zones]
    before = [
        {"role": "user", "content": "What time is it in UTC and in CET?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    ask["messages"] = [*before * 4, before[0]]
    for is_parallel in [True, False]:
        ask["parallel_tool_calls"] = is_parallel
        calls = client.chat.completions.create(**ask, max_tokens=120).choices[0].message.tool_calls
        assert len(calls) == (2 if is_parallel else 1), calls
        chunks = list(client.chat.completions.create(**ask, max_tokens=120, stream=True))
        begun = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or [] if delta.id]
        assert len(begun) == len(calls) and chunks[-1].choices[0].finish_reason == "tool_calls", begun

    flat = [{"type": "function", "name": n, "parameters": s, "strict": True} for n, s in FUNCTIONS.items()]
    ask = {"model": "served", "input": "What time is it?", "temperature": 0, "tools": flat, "max_output_tokens": 200}
    ask["parallel_tool_calls"] = False
    for choice, name in [("required", None), ({"type": "function", "name": "time"}, "time")]:
        (item,) = client.responses.create(**ask, tool_choice=choice).output
        check_call(item.name, json.loads(item.arguments))
        assert item.type == "function_call" and name in (None, item.name), item
    with client.responses.stream(**ask, tool_choice="required") as stream:
        events = list(stream)
    json_text = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    (item,) = events[-1].response.output
    assert events[-1].type == "response.completed" and json_text == item.arguments
    results = [
        {"role": "user", "content": "What time is it?"},
        item.model_dump(exclude={"parsed_arguments"}, exclude_none=True),
        {"type": "function_call_output", "call_id": item.call_id, "output": "12:00"},
    ]
    assert client.responses.create(**{**ask, "input": results, "max_output_tokens": 4}, tool_choice="none").output_text

    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    tools = [{"name": n, "input_schema": s} for n, s in FUNCTIONS.items()]
    ask = {"model": "served", "messages": question, "max_tokens": 200, "tools": tools, "extra_body": {"temperature": 0}}
    for choice, name in [({"type": "any"}, None), ({"type": "tool", "name": "time"}, "time")]:
        choice["disable_parallel_tool_use"] = True
        (block,) = client.messages.create(**ask, tool_choice=choice).content
        check_call(block.name, block.input)
        assert block.type == "tool_use" and name in (None, block.name), block
        with client.messages.stream(**ask, tool_choice=choice) as stream:
            pieces = [event.partial_json for event in stream if event.type == "input_json"]
            final = stream.get_final_message()
        assert final.stop_reason == "tool_use" and final.content[0].input == block.input and len(pieces) > 1, final
    failed = [
        *question,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "time", "input": {"zone": "UTC"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "none", "is_error": True}]},
    ]
    assert client.messages.create(**{**ask, "messages": failed, "max_tokens": 4}).content
    assert ollama.Client(host=url).show("served").capabilities == ["completion", "tools"]


def check_langchain(url, _):
    ask = {"base_url": f"{url}/v1", "api_key": "none", "model": "served", "temperature": 0, "max_retries": 0}
    model = ChatOpenAI(**ask, max_tokens=200)
    whole = model.invoke(QUESTION, max_tokens=N_TOKENS)
    pieces = list(model.stream(QUESTION, max_tokens=N_TOKENS))
    assert whole.content and "".join(piece.content for piece in pieces) == whole.content, (whole, pieces)
    described = [{"name": n, "description": n, "parameters": s} for n, s in FUNCTIONS.items()]
    tools = [{"type": "function", "function": function} for function in described]
    for choice, name in [("any", None), ("time", "time")]:
        bound = model.bind_tools(tools, tool_choice=choice, parallel_tool_calls=False)
        (call,) = bound.invoke("What time is it?").tool_calls
        check_call(call["name"], call["args"])
        assert name in (None, call["name"]), call
        joined = None
        for piece in bound.stream("What time is it?"):
            joined = piece if joined is None else joined + piece
        assert [(c["name"], c["args"]) for c in joined.tool_calls] == [(call["name"], call["args"])], joined
    result = ToolMessage("12:00", tool_call_id=call["id"])
    turns = [HumanMessage("What time is it?"), AIMessage("", tool_calls=[call]), result]
    assert model.invoke(turns, max_tokens=4).content
    for method in ["json_schema", "function_calling"]:
        formed = model.with_structured_output({"title": "city", **SCHEMA}, method=method, strict=True)
        check_form(json.dumps(formed.invoke(QUESTION)))
    of_responses = ChatOpenAI(**ask, max_tokens=N_TOKENS, use_responses_api=True)
    assert of_responses.invoke(QUESTION).text == whole.content
    assert "".join(piece.text for piece in of_responses.stream(QUESTION)) == whole.content


def check_ollama(url, answer):
    client = ollama.Client(host=url)
    ask = {"model": "served", "messages": [{"role": "user", "content": QUESTION}]}
    options = {"temperature": 0, "num_predict": N_TOKENS}
    whole = client.chat(**ask, options=options)
    assert whole.message.content == answer and whole.done_reason == "length", whole
    parts = list(client.chat(**ask, options=options, stream=True))
    assert "".join(part.message.content for part in parts) == answer and parts[-1].eval_count == N_TOKENS
    generated = client.generate(model="served:latest", prompt=QUESTION, options=options)
    assert generated.response == answer, generated
    formed = client.chat(**ask, options={**options, "num_predict": 100}, format=SCHEMA)
    check_form(formed.message.content)
    assert [model.model for model in client.list().models] == ["served"]
    assert [model.model for model in client.ps().models] == ["served"]
    shown = client.show("served")
    assert shown.details.format == "gguf" and shown.details.quantization_level == "Q4_1", shown
    for refused, status in [
        (lambda: client.chat(**{**ask, "model": "other"}), 404),
        (lambda: client.pull("hf:owner/repo/a.gguf"), 403),
        (lambda: client.delete("served"), 403),
        (lambda: client.embed("served", "a"), 400),
        (lambda: client.embeddings("served", "a"), 400),
    ]:
        check_refused(refused, status)


def check_refused(ask, status):
    """That Ollama's client is refused something, and is told why."""
    try:
        ask()
        raise SystemExit(f"status {status} was expected")
    except ollama.ResponseError as refused:
        assert refused.status_code == status and len(refused.error) > 10, refused


def check_llama_server(url, answer):
    """What llama-server's clients ask for beside answers, of which `complete` makes one from the text of a conversation."""
    messages = [{"role": "user", "content": QUESTION}]
    prompt = post(f"{url}/apply-template", {"messages": messages})["prompt"]
    tokens = post(f"{url}/tokenize", {"content": prompt})["tokens"]
    assert post(f"{url}/detokenize", {"tokens": tokens})["content"] == prompt
    ask = {"temperature": 0, "n_predict": N_TOKENS}
    for given in [prompt, tokens]:
        whole = post(f"{url}/completion", {"prompt": given, **ask})
        assert whole["content"] == answer and whole["stop_type"] == "limit", whole
    stream = urllib.request.Request(
        f"{url}/completion", json.dumps({"prompt": prompt, **ask, "n_predict": 200, "ignore_eos": True, "stream": True}).encode()
    )
    n_busy = lambda: sum(slot["is_processing"] for slot in json.load(urllib.request.urlopen(f"{url}/slots")))
    with urllib.request.urlopen(stream) as events:
        first = json.loads(events.readline().removeprefix(b"data: "))
        assert answer.startswith(first["content"]) and n_busy() == 1
    end = time.monotonic() + 5
    while n_busy() and time.monotonic() < end:
        time.sleep(0.02)
    assert not n_busy(), "a place stays taken when its client has gone"
    gap = {"input_prefix": "def add(a, b):\n    ", "input_suffix": "\n\nprint(add(1, 2))", "prompt": "return"}
    filled = post(f"{url}/infill", {**gap, **ask})
    said = [post(f"{url}/tokenize", {"content": text})["tokens"] for text in [gap["input_prefix"] + gap["prompt"], gap["input_suffix"]]]
    tokens = [INFILL["pre"], *said[0], INFILL["suf"], *said[1], INFILL["mid"]]
    assert filled["content"] == post(f"{url}/completion", {"prompt": tokens, **ask})["content"] != "", filled
    assert filled["tokens_evaluated"] == len(tokens)


def check_managing(url, answer):
    """Models come, answer and go, by Ollama's client."""
    client = ollama.Client(host=url)
    name = "hf:owner/repo/a.gguf"
    assert not client.list().models
    parts = list(client.pull(name, stream=True))
    steps = [part.completed for part in parts if part.total]
    assert parts[-1].status == "success" and len(set(steps)) > 1 and steps == sorted(steps), parts
    assert client.pull(name).status == "success"
    check_refused(lambda: client.pull("hf:owner/repo/b.gguf"), 404)
    assert [model.model for model in client.list().models] == [name] and not client.ps().models
    options = {"temperature": 0, "num_predict": N_TOKENS}
    ask = {"model": name, "messages": [{"role": "user", "content": QUESTION}]}
    assert client.show(name).details.quantization_level == "Q4_1" and not client.ps().models
    assert client.chat(**ask, options=options, keep_alive="5m").message.content == answer
    stream = client.chat(**ask, options={**options, "num_predict": 500}, stream=True)
    next(stream)
    check_refused(lambda: client.delete(name), 409)
    stream.close()
    assert [model.model for model in client.ps().models] == [name]
    assert client.delete(name).status == "success"
    assert not client.list().models and not client.ps().models
    check_refused(lambda: client.chat(**ask), 404)


def check_batch(metallic, model, answer, folder):
    """A file of requests, whose run is killed once, has each answer once, and the command's own among them."""
    asked, answered = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
    questions = [QUESTION] + [f"Tell me {n} things about the number {n}." for n in range(40)]
    with asked.open("w") as lines:
        for number, question in enumerate(questions):
            body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": N_TOKENS}
            line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
            lines.write(json.dumps(line) + "\n")
    command = [metallic, "batch", "-m", model, str(asked), "-o", str(answered), "-c", "1024", "--quiet"]
    killed = subprocess.Popen(command)
    while killed.poll() is None and (not answered.exists() or answered.stat().st_size == 0):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    n_before = answered.read_bytes().count(b"\n")
    subprocess.run(command, check=True)
    lines = [json.loads(line) for line in answered.read_text().splitlines()]
    said = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
    assert len(lines) == len(said) == len(questions) and said["0"] == answer, (len(lines), said["0"], answer)
    return n_before


def check_company(url, answer):
    """Among fifteen others, some of whom ask the same and some of whom go, an answer is what it is alone."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def other(number):
        question = QUESTION if number % 3 == 0 else f"Tell me {number} things about the number {number}."
        messages = [{"role": "user", "content": question}]
        stream = client.chat.completions.create(
            model="served", messages=messages, temperature=number % 3 / 2, max_tokens=60, stream=True
        )
        for i, _ in enumerate(stream):
            if number % 5 == 0 and i == 10:
                return stream.close()

    ask = {"model": "served", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    with ThreadPoolExecutor(15) as pool:
        others = [pool.submit(other, number) for number in range(30)]
        for _ in range(4):
            found = client.chat.completions.create(**ask, max_tokens=N_TOKENS).choices[0].message.content
            assert found == answer, (found, answer)
        for one in others:
            one.result()


def check_curl(url, _):
    """The lines of the README and of docs/server.md, as they stand there."""
    root = Path(__file__).resolve().parent.parent
    text = "".join((root / name).read_text() for name in ["README.md", "docs/server.md"])
    lines = re.findall(r"^curl (?:.*\\\n)*.*", text, flags=re.M)
    assert len(lines) >= 2, lines
    for line in lines:
        command = line.replace("http://127.0.0.1:8080", url).replace("curl ", "curl --silent --fail ", 1)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"], done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--metallic", default=BINARY)
    args = parser.parse_args()
    answer = expected(args.metallic, args.model)
    print(f"the command: {answer!r}")
    with Server(args.metallic, args.model, "--parallel", "4") as server:
        assert json.load(urllib.request.urlopen(f"{server.url}/health"))["status"] == "ok"
        for check in [check_openai, check_responses, check_anthropic, check_ollama, check_curl]:
            check(server.url, answer)
            print(f"{check.__name__.removeprefix('check_')}: all that its client was asked holds")
    model = Path(args.model).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        fills_in = Path(folder) / "fills-in.gguf"
        fills_in.write_bytes(with_infill_tokens(model))
        with Server(args.metallic, str(fills_in)) as server:
            check_llama_server(server.url, answer)
            print("llama_server: all that its client was asked holds")
        with Hub("a.gguf", model) as hub, Server(
            args.metallic, None, "--manage", HF_ENDPOINT=hub.url, METALLIC_CACHE=folder
        ) as server:
            check_managing(server.url, answer)
            print("managing: models come, answer and go")
    with tempfile.TemporaryDirectory() as folder:
        n_before = check_batch(args.metallic, args.model, answer, folder)
        print(f"batch: killed after {n_before} answers, it made the others, and each once")
    with Server(args.metallic, args.model, "--parallel", "16") as server:
        check_company(server.url, answer)
        print("company: among fifteen others an answer is what it is alone")
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "tools.jinja"
        template.write_text(TEMPLATE)
        with Server(args.metallic, args.model, "--chat-template", str(template)) as server:
            for check in [check_calls, check_langchain]:
                check(server.url, answer)
                print(f"{check.__name__.removeprefix('check_')}: all that its client was asked holds")
    with Server(args.metallic, args.model, "--api-key", "secret") as server:
        for key, is_taken in [("secret", True), ("other", False)]:
            try:
                openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0).models.list()
                assert is_taken, "a wrong key is taken"
            except openai.AuthenticationError:
                assert not is_taken, "the key is refused"
    print("keys: those that are right are taken, and no others")


if __name__ == "__main__":
    main()
