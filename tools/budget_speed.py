#!/usr/bin/env python3
"""Measures generation within memory budgets, of metallic and of other engines in turns.

    python3 tools/budget_speed.py MODEL --ram SIZE... -t N [--peer NAME=COMMAND]... [-n N] [--rounds N]
                                  [--metallic PATH] [--json FILE] [--svg FILE]

Each run is in a memory control group of exactly the budget, which counts page cache, too, and begins with nothing of the
file in the page cache; this needs root. metallic is told the budget with --ram. COMMAND is a llama-bench with the flags
that make it run within less memory than the model has. The table shows the median of the rounds with the least and the
greatest, metallic's rate divided by the peer's in the same round, and of metallic what it read for a token, that rate as a
share of what plain direct reads of the same file made just before, and the group's peak.
"""

import argparse
import json
import os
import sys
from html import escape
from pathlib import Path
from statistics import median

from budget import BINARY, CANNOT, NoGroups, confined, last_line
from compare import OURS, at_least, peer

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text):
    """600MiB as ("600MiB", bytes)."""
    number, unit = text[:-3], UNITS.get(text[-3:])
    if unit is None or not number.replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write 600MiB or 2GiB")
    return text, int(float(number) * unit)


def forget(model):
    """Drops the pages of a file from the page cache."""
    file = os.open(model, os.O_RDONLY)
    os.fdatasync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def run(engine, command, budget, args):
    """One run: its rate, the peak, and what metallic says of streaming. A run that is killed has no rate."""
    tests = ["-p", "0", "-n", str(args.n), "-t", str(args.t), "-r", "1"]
    if engine == OURS:
        command = [*command, "bench", args.model, *tests, "--ram", budget[0], "--json"]
    else:
        command = [*command, "-m", args.model, *tests, "-o", "json"]
    forget(args.model)
    done, peak = confined(command, budget[1])
    if done.returncode:
        print(f"{engine} within {budget[0]}: ended with code {done.returncode}: {last_line(done.stderr)}", file=sys.stderr)
        return {"rate": None, "peak": peak}
    row = json.loads(done.stdout)[0]
    keys = {"read": "streamed_bytes_per_token", "share": "disk_share"}
    return {"rate": row["avg_ts"], "peak": peak} | {key: row.get(name) for key, name in keys.items()}


def measure(engines, args):
    """{(budget, engine): a run for each round}"""
    runs = {}
    for i in range(args.rounds):
        for budget in args.ram:
            print(f"{budget[0]}: round {i + 1} of {args.rounds}", file=sys.stderr)
            for engine, command in engines.items():
                runs.setdefault((budget, engine), []).append(run(engine, command, budget, args))
    return runs


def summarise(runs):
    """A row for each budget and engine, of the rounds in which it lived."""
    rows = []
    for (budget, engine), found in runs.items():
        rates = [run["rate"] for run in found if run["rate"] is not None]
        row = {"budget": budget[0], "budget_bytes": budget[1], "engine": engine, "killed": len(found) - len(rates)}
        if rates:
            row |= {"min": min(rates), "median": median(rates), "max": max(rates)}
        for key, most in (("peak", max), ("read", max), ("share", median)):
            known = [run[key] for run in found if run.get(key) is not None]
            row[key] = most(known) if known else None
        pairs = zip(runs[budget, OURS], found)
        ratios = [ours["rate"] / theirs["rate"] for ours, theirs in pairs if ours["rate"] and theirs["rate"]]
        row["ratio"] = median(ratios) if ratios and engine != OURS else None
        rows.append(row)
    return rows


def table(rows):
    shown = lambda value, text: "-" if value is None else text.format(value)
    lines = [("BUDGET", "ENGINE", "TOKENS/S", "METALLIC / ENGINE", "READ A TOKEN", "SHARE OF DISK", "PEAK")]
    for row in rows:
        rate = "{median:.2f} ({min:.2f} to {max:.2f})".format(**row) if "median" in row else "killed"
        read = None if row["read"] is None else row["read"] / 1e9
        peak = None if row["peak"] is None else row["peak"] / 1e6
        cells = shown(row["ratio"], "{:.2f}"), shown(read, "{:.2f} GB"), shown(row["share"], "{:.0%}")
        lines.append((row["budget"], row["engine"], rate, *cells, shown(peak, "{:,.0f} MB")))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def chart(rows, title):
    """An SVG of a line for each engine: tokens per second over the budget, least to greatest upright."""
    left, top, width, height = 60, 50, 480, 260
    colours = ["#c2410c", "#64748b", "#0f766e", "#7c3aed"]
    alive = [row for row in rows if "median" in row]
    most = max(row["max"] for row in alive) * 1.05
    widest = max(row["budget_bytes"] for row in rows)
    x = lambda row: left + width * row["budget_bytes"] / widest
    y = lambda rate: top + height * (1 - rate / most)
    parts = [f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>']
    for i in range(5):
        rate = most * i / 4
        parts.append(f'<path d="M{left} {y(rate):.1f}h{width}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{left - 8}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate:.1f}</text>')
    for row in {row["budget_bytes"]: row for row in rows}.values():
        parts.append(f'<text x="{x(row):.1f}" y="{top + height + 18}" text-anchor="middle">{escape(row["budget"])}</text>')
    for i, engine in enumerate(dict.fromkeys(row["engine"] for row in rows)):
        colour, of_engine = colours[i % len(colours)], [row for row in alive if row["engine"] == engine]
        points = " ".join(f"{x(row):.1f},{y(row['median']):.1f}" for row in of_engine)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for row in of_engine:
            parts.append(f'<path d="M{x(row):.1f} {y(row["min"]):.1f}V{y(row["max"]):.1f}" stroke="{colour}"/>')
            parts.append(f'<circle cx="{x(row):.1f}" cy="{y(row["median"]):.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<text x="{left + 10}" y="{top + 16 * (i + 1)}" fill="{colour}">{escape(engine)}</text>')
    parts.append(f'<text x="10" y="{top + height + 40}">tokens per second over the memory budget: median, least to greatest</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 40}" height="{top + height + 54}"'
    head += ' font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a GGUF file")
    parser.add_argument("--ram", type=size, action="append", required=True, metavar="SIZE", help="a budget: 600MiB, 2GiB")
    parser.add_argument("--metallic", default=str(BINARY), metavar="PATH", help="default: target/release/metallic")
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("-t", type=at_least(1), required=True, help="threads: as many as there are cores")
    parser.add_argument("-n", type=at_least(1), default=6, help="tokens to generate; default 6")
    parser.add_argument("--rounds", type=at_least(1), default=2, help="default 2")
    parser.add_argument("--json", metavar="FILE", help="write the numbers")
    parser.add_argument("--svg", metavar="FILE", help="draw them")
    args = parser.parse_args()
    try:
        rows = summarise(measure({OURS: [args.metallic]} | dict(args.peer), args))
    except NoGroups as error:
        print(f"no control groups can be made here: {error}")
        return CANNOT
    print(table(rows))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")
    if args.svg:
        Path(args.svg).write_text(chart(rows, f"{Path(args.model).stem}, {args.t} threads"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
