#!/usr/bin/env python3
"""Measures servers side by side: answers in a second, and how long the first token takes.

    tools/server_speed.py MODEL -t 2 [--peer NAME=…/llama-server] [--clients 1,4,16] [--rounds 3] [--json FILE]

Each server has the model with as many places as there are clients. A client asks for one answer after another, each to a
prompt of its own, of random tokens, so that nothing is cached; both servers have the endpoint /completion. They take turns, and
ratios are within a round, so that drift cancels. Then, of Metallic alone, a long prompt comes while other clients have answers
made: the time between their tokens before and during it is what they notice. Needs Python alone.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

METALLIC = Path(__file__).resolve().parent.parent / "target/release/metallic"
# Ids that any vocabulary has, past the special ones.
TOKENS = range(300, 20000)


class Server:
    """A server for as long as a `with` lasts."""

    def __init__(self, name, command, port):
        self.name, self.command, self.port = name, command, port

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.port == 0 and (found := re.search(r"http://[\d.]+:(\d+)/v1", self.process.stderr.readline())):
                self.port = int(found[1])
            if self.port:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(0.1)
        else:
            raise SystemExit(f"{self.name} did not start: {self.process.stderr.read()[-2000:]}")
        # What it says must not fill the pipe.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.drain.wait()


def prompt(n_tokens):
    return random.choices(TOKENS, k=n_tokens)


async def ask(port, tokens, n_predict, more=None):
    """Asks for an answer; returns when it was asked, and when each piece of it came."""
    body = {"prompt": tokens, "n_predict": n_predict, "stream": True, "ignore_eos": True, "temperature": 0, **(more or {})}
    body = json.dumps(body).encode()
    head = f"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
    came = []
    async for line in reader:
        if line.startswith(b"data: {"):
            said = json.loads(line[6:])
            if "error" in said:
                raise SystemExit(f"an answer failed: {said}")
            came.append(time.monotonic())
    writer.close()
    if len(came) < 2:
        raise SystemExit("an answer is empty")
    return began, came


async def load(port, n_clients, n_requests, n_prompt, n_predict):
    """All clients' requests, one after another each: answers in a second, and the median time to the first token."""

    async def client():
        return [await ask(port, prompt(n_prompt), n_predict) for _ in range(n_requests)]

    await ask(port, prompt(n_prompt), 8)
    began = time.monotonic()
    answers = [answer for client in await asyncio.gather(*[client() for _ in range(n_clients)]) for answer in client]
    seconds = time.monotonic() - began
    first = [came[0] - asked for asked, came in answers]
    return {"requests_s": len(answers) / seconds, "first_s": statistics.median(first), "worst_first_s": max(first)}


async def stall(port, n_answers, n_prompt):
    """Times between tokens of answers, alone and while a long prompt is read beside them."""
    times = []

    async def answer():
        times.append((await ask(port, prompt(16), 400))[1])

    answers = [asyncio.create_task(answer()) for _ in range(n_answers)]
    await asyncio.sleep(2)
    began = time.monotonic()
    _, came = await ask(port, prompt(n_prompt), 2)
    ended = came[0]
    await asyncio.gather(*answers)
    alone, beside = [], []
    for came in times:
        for earlier, later in zip(came, came[1:]):
            if began <= earlier and later <= ended:
                beside.append(later - earlier)
            elif later < began and earlier > came[0] + 0.5:
                alone.append(later - earlier)
    return alone, beside, ended - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--metallic", default=str(METALLIC))
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help="a llama-server")
    parser.add_argument("--clients", default="1,4,16", help="how many at a time [%(default)s]")
    parser.add_argument("--requests", type=int, default=3, help="of each client [%(default)s]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-p", type=int, default=512, help="tokens of a prompt [%(default)s]")
    parser.add_argument("-n", type=int, default=128, help="tokens of an answer [%(default)s]")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    random.seed(1)
    peers = [peer.partition("=")[::2] for peer in args.peer]
    found = []
    for n_clients in map(int, args.clients.split(",")):
        n_ctx = -(-(args.p + args.n + 8) // 256) * 256
        rounds = []
        for _ in range(args.rounds):
            ours = [args.metallic, "serve", args.model, "--port", "0", "--parallel", str(n_clients)]
            servers = [Server("metallic", [*ours, "-c", str(n_ctx), "-t", str(args.threads)], 0)]
            for number, (name, path) in enumerate(peers):
                port = 18200 + number
                command = [path, "-m", args.model, "--port", str(port), "-np", str(n_clients)]
                command += ["-c", str(n_ctx * n_clients), "-t", str(args.threads), "--no-webui"]
                servers.append(Server(name, command, port))
            one = {}
            for server in servers:
                with server:
                    one[server.name] = asyncio.run(load(server.port, n_clients, args.requests, args.p, args.n))
            rounds.append(one)
            print(".", end="", file=sys.stderr, flush=True)
        for name in rounds[0]:
            of = {key: statistics.median(one[name][key] for one in rounds) for key in rounds[0][name]}
            ratios = ""
            if name != "metallic":
                more = [one["metallic"]["requests_s"] / one[name]["requests_s"] for one in rounds]
                sooner = [one[name]["first_s"] / one["metallic"]["first_s"] for one in rounds]
                ratios = f"; metallic: {statistics.median(more):.2f} x the answers, {statistics.median(sooner):.2f} x as soon"
            print(
                f"{n_clients:2} clients, {name:12} {of['requests_s']:6.2f} answers/s, "
                f"first token after {of['first_s']:.3f} s (at worst {of['worst_first_s']:.3f}){ratios}"
            )
        found.append({"n_clients": n_clients, "rounds": rounds})
    command = [args.metallic, "serve", args.model, "--port", "0", "--parallel", "8", "-c", "4096", "-t", str(args.threads)]
    with Server("metallic", command, 0) as server:
        alone, beside, seconds = asyncio.run(stall(server.port, 7, 3000))
    longest = sorted(beside)[len(beside) * 99 // 100]
    alone, beside = statistics.mean(alone), statistics.mean(beside)
    print(
        f"7 answers beside a prompt of 3000 tokens, read in {seconds:.1f} s: {1e3 * alone:.1f} ms between tokens alone, "
        f"{1e3 * beside:.1f} beside it, {beside / alone:.2f} x; 99 of 100 within {1e3 * longest:.1f}"
    )
    if args.json:
        Path(args.json).write_text(json.dumps({"load": found, "alone_s": alone, "beside_s": beside}, indent=1))


if __name__ == "__main__":
    main()
