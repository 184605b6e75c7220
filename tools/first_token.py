#!/usr/bin/env python3
"""Times whole processes, in turns, from their start to their end after one token, and shows their peak memory.

    python3 tools/first_token.py MODEL... [--peer NAME=COMMAND]... -t N [--cold] [--rounds N] [--prompt TEXT] [--json FILE]

COMMAND gets `-m MODEL -p TEXT -n 1 -t N` after its own flags, so llama.cpp's `llama-completion -no-cnv` is a peer, and
so is `target/release/metallic run --raw --load map`. With --cold the file leaves the page cache before each run, and
the table begins with how long as many bytes took to read past it. Memory is the largest resident set, which counts the
pages of a map that were touched. A ratio is a peer's time divided by metallic's in the same round. Linux only.
"""

import json
import mmap
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from compare import OURS, aligned, comparison

CHUNK = 4 << 20  # of a plain read


def forget(path):
    """Takes a file out of the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain_read(path):
    """Seconds that one thread needs to read a file past the page cache."""
    buffer, file = mmap.mmap(-1, CHUNK), os.open(path, os.O_RDONLY | os.O_DIRECT)
    began = time.monotonic()
    while os.readv(file, [buffer]) == CHUNK:
        pass
    os.close(file)
    return time.monotonic() - began


def run(engine, command, model, args):
    """(seconds, bytes) of one process."""
    command = [*command, "-m", model, "-p", args.prompt, "-n", "1", "-t", str(args.t)]
    if args.cold:
        forget(model)
    began = time.monotonic()
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
    except OSError as error:
        raise SystemExit(f"error: can't run {engine}: {error}")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: {shlex.join(command)} ended with code {process.returncode}")
    return time.monotonic() - began, usage.ru_maxrss << 10


def measure(model, engines, args):
    """A dictionary for each engine."""
    samples = {engine: [] for engine in engines}
    for i in range(args.rounds):
        print(f"{model}: round {i + 1} of {args.rounds}", file=sys.stderr)
        for engine, command in engines.items():
            samples[engine].append(run(engine, command, model, args))
    rows = []
    for engine, of_engine in samples.items():
        seconds = [second for second, _ in of_engine]
        row = {"model": Path(model).stem, "engine": engine, "samples_s": seconds, "min": min(seconds)}
        row |= {"median": median(seconds), "max": max(seconds), "peak_bytes": max(peak for _, peak in of_engine)}
        if engine != OURS:
            row["ratio"] = median(theirs / ours for theirs, (ours, _) in zip(seconds, samples[OURS]))
        rows.append(row)
    return rows


def table(rows):
    lines = [("MODEL", "ENGINE", "MIN S", "MEDIAN S", "MAX S", "/ METALLIC", "PEAK MB")]
    for row in rows:
        times = [f"{row[key]:.2f}" for key in ("min", "median", "max")]
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
        peak = f"{row['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in row else "-"
        lines.append((row["model"], row["engine"], *times, ratio, peak))
    return aligned(lines, range(2, 7))


def arguments():
    parser = comparison(__doc__)
    parser.add_argument("--cold", action="store_true", help="with nothing of the file in the page cache")
    parser.add_argument("--prompt", default="The capital of France is", help="default: %(default)s")
    return parser.parse_args()


def main():
    args = arguments()
    engines = {OURS: [args.metallic, "run", "--raw"]} | dict(args.peer)
    rows = []
    for model in args.models:
        if args.cold:
            seconds = plain_read(model)
            rows.append({"model": Path(model).stem, "engine": "plain read"}
                        | dict.fromkeys(("min", "median", "max"), seconds))
        rows += measure(model, engines, args)
    print(table(rows))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
