#!/usr/bin/env python3
"""Drives a served model with the clients that people use.

    python3 tools/clients.py MODEL [--metallic PATH]

Needs the packages openai, anthropic and ollama. Starts `metallic serve`, and checks what each client makes of its answers:
whole, streamed, cut, stopped, refused and given up. At temperature 0 all must say what `metallic run` says.
"""

import argparse
import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import anthropic
import ollama
import openai

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


def check_form(text):
    """That a text keeps to the schema."""
    value = json.loads(text)
    assert value.keys() == {"city", "is_large"} and isinstance(value["is_large"], bool), text


class Server:
    """A server for as long as a `with` lasts."""

    def __init__(self, metallic, model, *flags):
        command = [metallic, "serve", model, "--alias", "served", "--port", "0", "-c", "1024", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(r"serving \S+ at (http://\S+)/v1", line):
                self.url = found[1]
                return self
        raise SystemExit("the server did not start: " + "".join(said))

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=40)


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
    assert client.show("served").details.format == "gguf"
    try:
        client.chat(**{**ask, "model": "other"})
        raise SystemExit("an unknown model is taken")
    except ollama.ResponseError as refused:
        assert refused.status_code == 404


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--metallic", default=BINARY)
    args = parser.parse_args()
    answer = expected(args.metallic, args.model)
    print(f"the command: {answer!r}")
    with Server(args.metallic, args.model, "--parallel", "4") as server:
        assert json.load(urllib.request.urlopen(f"{server.url}/health"))["status"] == "ok"
        for check in [check_openai, check_anthropic, check_ollama]:
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
