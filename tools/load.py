#!/usr/bin/env python3
"""Loads a served model with clients of all kinds, and checks that nothing of it stays.

    python3 tools/load.py MODEL [--metallic PATH] [--seconds N] [--clients N] [--ram SIZE] [--seed N]

Clients read streams to their ends, read them slowly, go in their midst, send half a head or half a body, garbage, several
requests at once, and bodies made to take memory. Afterwards the server must answer as before, no request may be open and all that
were begun must have ended, and its resident set may have grown by 48 MiB at most (what an allocator keeps). Told to stop, it must end the answer that it is making. Then each flag that is a limit must hold on a server
of small ones, and two models must share a budget that holds one of them, and one that holds both. With --ram, 1GiB by
default, the server runs in a control group of exactly that, where those can be made, and may not be killed. Exit code: 0 if all
holds, else 1.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import budget

BINARY = Path(__file__).resolve().parent.parent / "target/release/metallic"
GROWTH = 48 << 20
# Few tokens, so that many requests come and go.
N_CTX, N_PARALLEL = 256, 8
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
# Longer than this nothing here may take.
PATIENCE = 90


def request(body, path="/v1/chat/completions", more=""):
    """The bytes of a request."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{more}\r\n".encode() + body


def asked(**more):
    """A question with a number of tokens that is small, and what it is to be beside."""
    return {**QUESTION, "max_tokens": random.randint(1, 48), "stream": True, **more}


class Client:
    """A connection, which some end with a reset."""

    def __init__(self, port):
        self.port = port

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_):
        if random.random() < 0.3:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def head(self):
        """The status of a response, and its headers."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        return int(head.split(" ", 2)[1]), dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)

    async def answer(self):
        """A response as a whole: its status and its body."""
        status, headers = await self.head()
        if "content-length" in headers:
            return status, await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return status, body


async def reads(client):
    """Reads a stream to its end."""
    await client.send(request(asked(n=random.choice([1, 1, 3]))))
    status, body = await client.answer()
    assert status == 429 or (status == 200 and body.endswith(b"data: [DONE]\n\n")), (status, body[-200:])
    return "busy" if status == 429 else None


async def asks_whole(client):
    """Reads an answer that comes at once."""
    await client.send(request(asked(stream=False)))
    status, body = await client.answer()
    assert status == 429 or (status == 200 and json.loads(body)["choices"]), (status, body)
    return "busy" if status == 429 else None


async def goes(client):
    """Goes before the end."""
    await client.send(request(asked(max_tokens=200, ignore_eos=True, stream=random.random() < 0.7)))
    await asyncio.sleep(random.random() * 2)


async def goes_while_it_pipelines(client):
    """Goes before the end, with another request sent."""
    await client.send(request(asked(max_tokens=200, ignore_eos=True, stream=False)) + request(asked())[:80])
    await asyncio.sleep(random.random())


async def reads_slowly(client):
    """Reads a few bytes at a time, and not all."""
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    await client.send(request(asked(max_tokens=200, ignore_eos=True, n=4)))
    for _ in range(random.randint(5, 60)):
        await client.reader.read(16)
        await asyncio.sleep(0.05)


async def sends_half_a_head(client):
    whole = request(asked())
    await client.send(whole[: random.randint(1, 90)])
    await asyncio.sleep(random.random() * 3)


async def sends_half_a_body(client):
    whole = request(asked(user="a" * random.choice([10, 200_000])))
    await client.send(whole[: random.randint(200, len(whole) - 1)])
    await asyncio.sleep(random.random() * 3)


async def sends_garbage(client):
    data = random.choice([
        os.urandom(random.randint(1, 5000)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        request(os.urandom(500)),
        request(b"[" * 100_000),
    ])
    await client.send(data)
    await asyncio.wait_for(client.reader.read(1 << 16), 20)


async def pipelines(client):
    """Sends several requests at once, and reads all that comes of them."""
    n = random.randint(2, 5)
    await client.send(b"".join(request(asked(max_tokens=2)) for _ in range(n)))
    for _ in range(n):
        status, _ = await client.answer()
        assert status in (200, 429), status


async def wants_memory(client):
    """Sends what takes far more memory than its bytes, if it is read."""
    values = random.choice([b"[],", b"{},", b'{"a":{}},', b"1,", b'"",']) * random.choice([2000, 15_000, 200_000])
    body = b'{"messages":[' + values + b'{"role":"user","content":"a"}]}'
    await client.send(request(random.choice([body, b'{"prompt":[' + values + b"1]}"])))
    status, _ = await client.answer()
    assert status in (400, 413), status


KINDS = [
    reads, asks_whole, goes, goes_while_it_pipelines, reads_slowly, sends_half_a_head, sends_half_a_body, sends_garbage,
    pipelines, wants_memory,
]


async def visit(port, counts, wrong):
    """Lets a client of some kind come once."""
    kind = random.choices(KINDS, [6] + [1] * (len(KINDS) - 1))[0]
    try:
        async with asyncio.timeout(PATIENCE), Client(port) as client:
            result = await kind(client)
        counts[f"{kind.__name__}, {result}" if result else kind.__name__] += 1
    except TimeoutError:
        wrong.append(f"{kind.__name__} took more than {PATIENCE} s")
    except AssertionError as error:
        wrong.append(f"{kind.__name__}: {error}")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        # Of those who do as they should nobody is left without an answer.
        if kind in (reads, asks_whole, pipelines):
            wrong.append(f"{kind.__name__}: {error!r}")
        counts[f"{kind.__name__}, refused"] += 1


async def load(port, n_clients, seconds):
    """Has clients come, one after the other at each of so many places: how many of each kind did, and what was wrong."""
    counts, wrong = Counter(), []
    end = time.monotonic() + seconds

    async def place():
        while time.monotonic() < end:
            await visit(port, counts, wrong)

    await asyncio.gather(*(place() for _ in range(n_clients)))
    return counts, wrong


class Server:
    """A server for as long as a `with` lasts, in a group with this limit if it can be made."""

    def __init__(self, args, *flags, ram=None):
        """Of the model that it calls `served`, unless a flag names others."""
        self.args = args
        self.flags = flags if "--models-dir" in flags else (args.model, "--alias", "served", *flags)
        self.ram = ram or args.ram
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        procs = None
        try:
            folder, self.peak = self.stack.enter_context(budget.group(size(self.ram)))
            procs = folder / "cgroup.procs"
        except budget.NoGroups as error:
            self.peak = None
            print(f"no control group can be made here, so the server runs without: {error}")
        command = [self.args.metallic, "serve", "--port", "0", "-c", str(N_CTX), "--max-body", "1MiB", "-v"]
        command += ["--parallel", str(N_PARALLEL), "--ram", self.ram, *self.flags]
        log = open(self.args.log, "w")
        self.stack.callback(log.close)
        enter = (lambda: procs.write_text(str(os.getpid()))) if procs else None
        self.process = subprocess.Popen(command, stderr=log, preexec_fn=enter)
        self.stack.callback(self.process.kill)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            if found := re.search(r"serving .+ at (http://\S+:(\d+))/v1", Path(self.args.log).read_text()):
                self.url, self.port = found[1], int(found[2])
                return self
            time.sleep(0.1)
        self.stack.close()
        raise SystemExit("the server did not start: " + Path(self.args.log).read_text()[-1000:])

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.stack.close()

    def resident(self):
        """Bytes of its memory that are not a file's."""
        return int(re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())[1]) * 1024

    def metric(self, name):
        text = urllib.request.urlopen(f"{self.url}/metrics", timeout=10).read().decode()
        return float(re.search(rf'^metallic_{name}{{model="served"}} (\S+)$', text, re.M)[1])

    def state(self):
        return json.load(urllib.request.urlopen(f"{self.url}/metallic/state", timeout=10))

    def answer(self, **more):
        body = json.dumps({**QUESTION, "max_tokens": 24, **more}).encode()
        asked = urllib.request.Request(f"{self.url}/v1/chat/completions", body, {"content-type": "application/json"})
        return json.load(urllib.request.urlopen(asked, timeout=120))["choices"][0]["message"]["content"]


def size(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]i?B?)?", text).groups()
    return int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[(unit or "")[:1]]


def check(server, args):
    """What is wrong after a load."""
    # All of each place's cache is written to once, so that the resident set is what it will be.
    for _ in range(2):
        server.answer(n=N_PARALLEL, max_tokens=N_CTX, ignore_eos=True, temperature=1)
    answer, before = server.answer(), server.resident()
    counts, wrong = asyncio.run(load(server.port, args.clients, args.seconds))
    print(", ".join(f"{kind}: {n}" for kind, n in sorted(counts.items())))
    if server.process.poll() is not None:
        return [*wrong, f"the server has ended with code {server.process.returncode}"]
    end = time.monotonic() + 20
    while time.monotonic() < end and server.metric("requests"):
        time.sleep(0.1)
    n_begun, n_ended, n_open = (server.metric(name) for name in ["requests_begun_total", "requests_total", "requests"])
    if n_open or n_begun != n_ended:
        wrong.append(f"{n_begun:.0f} requests were begun, {n_ended:.0f} have ended, {n_open:.0f} are open")
    if (again := server.answer()) != answer:
        wrong.append(f"the answer was {answer!r} and is {again!r}")
    after = server.resident()
    print(f"{n_begun:.0f} requests; resident {before:,} bytes before and {after:,} after")
    if after > before + GROWTH:
        wrong.append(f"the resident set has grown by {after - before:,} bytes")
    if server.peak and server.peak.exists():
        print(f"peak of the control group {int(server.peak.read_text()):,} of {size(args.ram):,}")
    return wrong + drains(server)


NAMES = ["one", "two"]


async def several(server, seconds):
    """What is wrong where clients of two models come at once, and how many were loaded at most."""
    wrong, counts, n_most = [], Counter(), 0
    end = time.monotonic() + seconds

    async def visits(name):
        while time.monotonic() < end:
            async with asyncio.timeout(PATIENCE), Client(server.port) as client:
                if random.random() < 0.2:
                    await client.send(request(asked(model=name, max_tokens=200, ignore_eos=True)))
                    await asyncio.sleep(random.random())
                    counts["went"] += 1
                    continue
                await client.send(request({**QUESTION, "model": name, "max_tokens": 24}))
                status, body = await client.answer()
                if status == 200:
                    text = json.loads(body)["choices"][0]["message"]["content"]
                    wrong.extend([] if text == answers[name] else [f"{name} said {text!r}, not {answers[name]!r}"])
                elif status != 429:
                    wrong.append(f"{name}: {status}, {body}")
                counts[name if status == 200 else str(status)] += 1

    async def watches():
        nonlocal n_most
        while time.monotonic() < end:
            state = await asyncio.to_thread(server.state)
            n_most = max(n_most, sum(model["state"] == "loaded" for model in state["models"]))
            await asyncio.sleep(0.1)

    answers = {name: await asyncio.to_thread(server.answer, model=name) for name in NAMES}
    await asyncio.gather(watches(), *(visits(name) for name in NAMES for _ in range(4)))
    print(", ".join(f"{kind}: {n}" for kind, n in sorted(counts.items())))
    if any(not counts[name] for name in NAMES):
        wrong.append(f"of two models one never answered: {counts}")
    return wrong, n_most


def check_several(args):
    """What is wrong with two models in a budget that holds one of them, and in one that holds both."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            shutil.copy(args.model, Path(folder) / f"{name}.gguf")
        with Server(args, "--models-dir", folder) as server:
            server.answer(model=NAMES[0])
            used = server.state()["ram"]["used"]
            n_bytes = used - server.state()["ram"]["server"]
        for n_held, ram in [(1, used + n_bytes // 3), (2, used + n_bytes + n_bytes // 3)]:
            with Server(args, "--models-dir", folder, ram=f"{ram >> 10}KiB") as server:
                more, n_most = asyncio.run(several(server, args.seconds / 2))
                wrong += more + drains(server, NAMES[0])
                peak = int(server.peak.read_text()) if server.peak and server.peak.exists() else None
            if n_most != n_held:
                wrong.append(f"in {ram:,} bytes {n_most} models were loaded at once, not {n_held}")
            print(f"two models in {ram:,} bytes: at most {n_most} at once" + (f", peak {peak:,}" if peak else ""))
    return wrong


SMALL = ["-c", "2048", "--parallel", "1", "--max-connections", "4", "--idle-timeout", "2", "--max-queue", "1"]
SMALL += ["--max-body", "4KiB", "--max-prompt", "60", "--first-token-timeout", "1", "--request-timeout", "4"]


async def limits(port):
    """What is wrong with a server whose limits are small: each beyond which something asks, by its flag."""
    wrong = []

    async def answer(body, delay=0):
        await asyncio.sleep(delay)
        async with asyncio.timeout(30), Client(port) as client:
            await client.send(request(body))
            return await client.answer()

    def expect(flag, answered, status, text):
        if answered[0] != status or text.encode() not in answered[1]:
            wrong.append(f"{flag}: {answered}")

    expect("--max-body", await answer(asked(user="a" * 5000)), 413, "4096")
    long = [{"role": "user", "content": "a b c d e f g h i j " * 10}]
    expect("--max-prompt", await answer(asked(messages=long)), 400, "this server takes 60")
    # So hot that nothing of it can be guessed.
    endless = asked(max_tokens=2000, ignore_eos=True, temperature=2)
    made, waits, more = await asyncio.gather(
        answer(endless), answer(asked(stream=False), 0.3), answer(asked(stream=False), 0.6)
    )
    expect("--request-timeout", made, 200, "the 4 seconds that a request may take")
    expect("--first-token-timeout", waits, 503, "no answer began within 1 second")
    expect("--max-queue", more, 429, "1 requests are waiting")
    began = time.monotonic()
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
    status, _ = await answer(asked(max_tokens=1))
    if status != 200 or not 1 < time.monotonic() - began < 10:
        wrong.append(f"--max-connections: {status} after {time.monotonic() - began:.1f} s")
    for reader, writer in silent:
        if await asyncio.wait_for(reader.read(), 10):
            wrong.append("--idle-timeout: a client that asked nothing hears something")
        writer.close()
    return wrong


def drains(server, model="served"):
    """What is wrong where the server is told to stop while it is asked."""
    stream = urllib.request.Request(
        f"{server.url}/v1/chat/completions",
        json.dumps({**QUESTION, "model": model, "max_tokens": 100, "ignore_eos": True, "stream": True}).encode(),
    )
    with urllib.request.urlopen(stream, timeout=60) as response:
        response.readline()
        server.process.send_signal(signal.SIGTERM)
        rest = response.read()
    try:
        code = server.process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        return ["the server has not stopped"]
    wrong = [] if code == 0 else [f"the server stopped with code {code}"]
    return wrong if rest.endswith(b"data: [DONE]\n\n") else [*wrong, "an answer was cut when the server was told to stop"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--metallic", default=str(BINARY), metavar="PATH")
    parser.add_argument("--seconds", type=float, default=15, metavar="N", help="how long clients come")
    parser.add_argument("--clients", type=int, default=64, metavar="N", help="of them, so many at a time")
    parser.add_argument("--ram", default="1GiB", metavar="SIZE", help="the server's, and that of its control group")
    parser.add_argument("--seed", type=int, metavar="N", help="of what clients do [default: another each time]")
    parser.add_argument("--log", default="/dev/null", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.randrange(1 << 32)
    random.seed(seed)
    with contextlib.ExitStack() as stack:
        if args.log == "/dev/null":
            args.log = stack.enter_context(tempfile.NamedTemporaryFile()).name
        with Server(args) as server:
            wrong = check(server, args)
        log = Path(args.log).read_text()
        with Server(args, *SMALL) as server:
            wrong += asyncio.run(limits(server.port))
        wrong += check_several(args)
    wrong += [f"the log says: {line}" for line in log.splitlines() if "a bug in" in line or " ERROR " in line][:5]
    for line in wrong[:20]:
        print(f"error: {line[:1000]}", file=sys.stderr)
    print(f"{args.clients} clients for {args.seconds:g} s, seed {seed}: {'all holds' if not wrong else f'{len(wrong)} wrong'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
