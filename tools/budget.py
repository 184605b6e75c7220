#!/usr/bin/env python3
"""Runs models inside memory control groups of exactly their budget, and checks that nothing but the speed changes.

    python3 tools/budget.py MODEL... [--metallic PATH] [--share F]... [-n N]

For each model, `metallic plan` says what it takes without a limit. It answers once that way, and then with --ram at
shares of that, in a control group with that limit, and once on many threads. Each answer must be the first one's, byte for byte; the process must
live; and the group's peak, page cache included, must be within the budget. Exit code: 0 if all hold, 1 if not, 77 where
the machine lets nobody make control groups.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

BINARY = Path(__file__).resolve().parent.parent / "target/release/metallic"
PROMPT = "Once upon a time there was a river"
# Small, so that weights are the most of a budget.
SETTINGS = ["-c", "256", "-b", "64"]
# Their stacks and buffers are a large part of a small budget.
MANY_THREADS = ["-t", "100"]
CANNOT = 77


class NoGroups(Exception):
    """The machine lets nobody make control groups."""


def mounts(kind):
    """Where control groups of this version are mounted, with their options."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, found, options = line.split(" ")[:4]
        if found == kind:
            yield Path(point), options.split(",")


def parent():
    """The folder that a group can be made in, and whether it is of version 1."""
    for point, options in mounts("cgroup"):
        if "memory" in options:
            return point, True
    for point, _ in mounts("cgroup2"):
        controllers = (point / "cgroup.controllers").read_text().split()
        if "memory" in controllers:
            (point / "cgroup.subtree_control").write_text("+memory")
            return point, False
    raise NoGroups("no control groups for memory are mounted")


@contextmanager
def group(limit):
    """A control group with this limit of memory and no swap: its folder, and the file that its peak is in."""
    try:
        folder, is_v1 = parent()
        folder = folder / f"metallic-budget-{os.getpid()}"
        folder.mkdir()
    except OSError as error:
        raise NoGroups(error) from error
    try:
        if is_v1:
            (folder / "memory.limit_in_bytes").write_text(str(limit))
            (folder / "memory.swappiness").write_text("0")
            yield folder, folder / "memory.max_usage_in_bytes"
        else:
            (folder / "memory.max").write_text(str(limit))
            if (folder / "memory.swap.max").exists():
                (folder / "memory.swap.max").write_text("0")
            yield folder, folder / "memory.peak"
    finally:
        remove(folder)


def remove(folder):
    """Removes a group, which may be busy for a moment after its last process has ended."""
    for _ in range(50):
        try:
            return folder.rmdir()
        except OSError:
            time.sleep(0.1)
    print(f"{folder} could not be removed", file=sys.stderr)


def confined(command, limit):
    """Runs a command in a group: the process as it ended, and the group's peak or None."""
    with group(limit) as (folder, peak):
        procs = folder / "cgroup.procs"
        done = subprocess.run(command, capture_output=True, preexec_fn=lambda: procs.write_text(str(os.getpid())))
        return done, int(peak.read_text()) if peak.exists() else None


def run(command):
    """What a command that must succeed prints."""
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)}: {last_line(done.stderr)}")
    return done.stdout


def last_line(text):
    return (text.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]


def check(args, model, share, threads, expected):
    """What is wrong with the answer at this share of all that the model takes; None if nothing is."""
    plan = json.loads(run([args.metallic, "plan", model, "--json", "--load", "map", *SETTINGS, *threads]))
    limit = int(plan["total_bytes"] * share) // 4096 * 4096
    done, peak = confined(answer(args, model) + ["--ram", str(limit), *threads], limit)
    name, shown = Path(model).name, "unknown" if peak is None else f"{peak:,}"
    print(f"{name}: {' '.join([f'{share:.0%}', *threads])}, limit {limit:,}, peak {shown}, exit code {done.returncode}", flush=True)
    experts = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("experts: ")]
    print(*experts, sep="\n", end="\n" if experts else "", flush=True)
    if done.returncode:
        return f"ended with code {done.returncode}: {last_line(done.stderr)}"
    if peak is not None and peak > limit:
        return f"took {peak:,} bytes of {limit:,}"
    if done.stdout != expected:
        return f"answered {done.stdout!r} and not {expected!r}"
    return None


def answer(args, model):
    command = [args.metallic, "run", "-m", model, "--raw", "--temp", "0", "-n", str(args.n), "-p", PROMPT]
    return [*command, "--load", "map", "--stats", *SETTINGS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--metallic", default=str(BINARY), metavar="PATH")
    parser.add_argument("--share", type=float, action="append", metavar="F", help="of what the model takes")
    parser.add_argument("-n", type=int, default=24, metavar="N", help="tokens of an answer")
    args = parser.parse_args()
    n_wrong = 0
    for model in args.models:
        expected = run(answer(args, model))
        for share, threads in [(share, []) for share in args.share or [0.6, 0.8]] + [(0.8, MANY_THREADS)]:
            try:
                wrong = check(args, model, share, threads, expected)
            except NoGroups as error:
                print(f"no control groups can be made here: {error}")
                return CANNOT
            if wrong:
                n_wrong += 1
                print(f"error: {Path(model).name} at {share:.0%} {wrong}", file=sys.stderr)
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
