#!/usr/bin/env python3
"""Compares metallic with other engines on this machine, in turns.

    python3 tools/compare.py MODEL... [--peer NAME=COMMAND]... [-p N] [-n N] [-d N] [-t N]
                             [--rounds N] [--json FILE] [--svg FILE]

COMMAND is a llama-bench, with further flags if it needs some. Without --peer, the llama-bench on PATH is compared, if
there is one. In each round every engine runs every test once, one engine after the other, so that what drifts on the
machine drifts for all. A ratio is metallic's rate divided by the peer's in the same round; the table shows the median of
the rounds, and the least and the greatest. docs/performance.md says how to build the peers.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path
from statistics import median

OURS = "metallic"
BINARY = Path(__file__).resolve().parent.parent / "target/release/metallic"


def run(engine, command, model, args):
    """One run of one engine: {test: tokens per second}."""
    tests = ["-p", str(args.p), "-n", str(args.n), "-t", str(args.t), "-r", "1"]
    if args.d:
        tests += ["-d", str(args.d)]
    if engine == OURS:
        command = [*command, "bench", model, *tests, "--json"]
    else:
        command = [*command, "-m", model, *tests, "-o", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"error: can't run {engine}: {error}")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"error: {shlex.join(command)} ended with code {done.returncode}: {last}")
    try:
        return {test_name(row): row["avg_ts"] for row in json.loads(done.stdout)}
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"error: {engine} printed no JSON of llama-bench's kind: {error!r}")


def test_name(row):
    name = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
    depth = row.get("n_depth", 0)
    return f"{name} @ d{depth}" if depth else name


def measure(engines, args):
    """{(model, test): {engine: a rate for each round}}"""
    rates = {}
    for model in args.models:
        for i in range(args.rounds):
            print(f"{model}: round {i + 1} of {args.rounds}", file=sys.stderr)
            for engine, command in engines.items():
                for test, rate in run(engine, command, model, args).items():
                    rates.setdefault((model, test), {}).setdefault(engine, []).append(rate)
    return rates


def summarise(rates):
    """A dictionary for each model, test and engine."""
    rows = []
    for (model, test), of_engines in rates.items():
        for engine, samples in of_engines.items():
            row = {"model": Path(model).stem, "test": test, "engine": engine, "samples_ts": samples}
            row |= {"min": min(samples), "median": median(samples), "max": max(samples)}
            ours = of_engines.get(OURS, [])
            if engine != OURS and len(ours) == len(samples):
                ratios = [a / b for a, b in zip(ours, samples)]
                row |= {"ratio_min": min(ratios), "ratio": median(ratios), "ratio_max": max(ratios)}
            rows.append(row)
    return rows


def table(rows):
    lines = [("MODEL", "TEST", "ENGINE", "MIN", "MEDIAN", "MAX", "METALLIC / ENGINE")]
    for row in rows:
        ratio = "{ratio:.2f} ({ratio_min:.2f} to {ratio_max:.2f})".format(**row) if "ratio" in row else "-"
        rates = [f"{row[key]:.1f}" for key in ("min", "median", "max")]
        lines.append((row["model"], row["test"], row["engine"], *rates, ratio))
    return aligned(lines, range(3, 6))


def aligned(lines, numbers):
    """Lines of cells as a table; the columns `numbers` end together, the others begin together."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    pad = lambda i, cell: cell.rjust(widths[i]) if i in numbers else cell.ljust(widths[i])
    return "\n".join("  ".join(pad(i, cell) for i, cell in enumerate(line)).rstrip() for line in lines)


def chart(rows):
    """An SVG of bars: in each test the longest is the fastest engine; a line spans least to greatest."""
    label, bar, height, gap = 150, 420, 18, 34
    colours = ["#c2410c", "#64748b", "#94a3b8", "#cbd5e1"]
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    groups = {}
    for row in rows:
        groups.setdefault((row["model"], row["test"]), []).append(row)
    parts, y = [], 10
    for (model, test), group in groups.items():
        y += gap
        parts.append(f'<text x="10" y="{y - 8}" font-weight="bold">{escape(model)}, {escape(test)}</text>')
        scale = bar / max(row["max"] for row in group)
        for row in group:
            colour = colours[engines.index(row["engine"]) % len(colours)]
            end, middle = label + row["median"] * scale, y + height / 2
            low, high = label + row["min"] * scale, label + row["max"] * scale
            parts += [
                f'<text x="{label - 8}" y="{y + 13}" text-anchor="end">{escape(row["engine"])}</text>',
                f'<rect x="{label}" y="{y}" width="{end - label:.1f}" height="{height - 3}" fill="{colour}"/>',
                f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="#000"/>',
                f'<text x="{high + 8:.1f}" y="{y + 13}">{row["median"]:.1f}</text>',
            ]
            y += height
    y += gap
    parts.append(f'<text x="10" y="{y - 10}">tokens per second: median, and least to greatest</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{label + bar + 90}" height="{y}"'
    head += ' font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def peer(text):
    name, separator, command = text.partition("=")
    if not (name and separator and command.strip()) or name == OURS:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=COMMAND")
    return name, shlex.split(command)


def at_least(least):
    def number(text):
        if int(text) < least:
            raise ValueError(text)
        return int(text)

    return number


def comparison(description):
    """A parser of the arguments that every comparison in turns has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a GGUF file")
    parser.add_argument("--metallic", default=str(BINARY), help="default: target/release/metallic")
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("-t", type=at_least(1), required=True, help="threads: as many as there are cores")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="default 5")
    parser.add_argument("--json", metavar="FILE", help="write the numbers")
    return parser


def arguments():
    parser = comparison(__doc__)
    parser.add_argument("-p", type=at_least(0), default=512, help="tokens of the prompt; default 512")
    parser.add_argument("-n", type=at_least(0), default=128, help="tokens to generate; default 128")
    parser.add_argument("-d", type=at_least(0), default=0, help="tokens in the context before; default 0")
    parser.add_argument("--svg", metavar="FILE", help="draw them")
    return parser.parse_args()


def main():
    args = arguments()
    engines = {OURS: [args.metallic]}
    found = shutil.which("llama-bench")
    engines |= dict(args.peer if args.peer else [("llama.cpp", [found])] if found else [])
    rows = summarise(measure(engines, args))
    print(table(rows))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")
    if args.svg:
        Path(args.svg).write_text(chart(rows))


if __name__ == "__main__":
    main()
