"""Tests of compare.py with engines that are scripts: python3 -m unittest discover -s tools"""

import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

COMPARE = Path(__file__).with_name("compare.py")

# Notes its name and arguments, and is as fast as its round says: 100, 110, 120, … times its own factor.
ENGINE = """#!{python}
import json, sys
log = open({log!r}, "a+")
log.seek(0)
n_before = sum(line.startswith({name!r} + " ") for line in log)
log.write({name!r} + " " + " ".join(sys.argv[1:]) + "\\n")
value = lambda flag: int(sys.argv[sys.argv.index(flag) + 1]) if flag in sys.argv else 0
rate = {factor} * (100 + 10 * n_before)
rows = [dict(n_prompt=value("-p"), n_gen=0, avg_ts=10 * rate), dict(n_prompt=0, n_gen=value("-n"), avg_ts=rate)]
print(json.dumps([dict(row, n_depth=value("-d")) for row in rows]))
"""


class Compare(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.log = self.folder / "log"

    def engine(self, name, factor):
        path = self.folder / name
        path.write_text(ENGINE.format(python=sys.executable, log=str(self.log), name=name, factor=factor))
        path.chmod(0o755)
        return str(path)

    def compare(self, *args):
        command = [sys.executable, str(COMPARE), "a.gguf", "-t", "2", *args]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder)

    def test_engines_take_turns_and_ratios_are_of_a_round(self):
        ours, peer = self.engine("ours", 3), self.engine("peer", 2)
        done = self.compare("--metallic", ours, "--peer", f"slow={peer} -fa 1", "-p", "64", "-n", "8", "-d", "32",
                            "--rounds", "3", "--json", "out.json", "--svg", "out.svg")
        self.assertEqual(done.returncode, 0, done.stderr)
        tests = "-p 64 -n 8 -t 2 -r 1 -d 32"
        turn = [f"ours bench a.gguf {tests} --json", f"peer -fa 1 -m a.gguf {tests} -o json"]
        self.assertEqual(self.log.read_text().splitlines(), turn * 3)

        rows = json.loads((self.folder / "out.json").read_text())
        self.assertEqual([(row["test"], row["engine"]) for row in rows],
                         [(test, engine) for test in ("pp64 @ d32", "tg8 @ d32") for engine in ("metallic", "slow")])
        generated = rows[3]
        self.assertEqual(generated["samples_ts"], [200, 220, 240])
        self.assertEqual([generated[key] for key in ("min", "median", "max")], [200, 220, 240])
        self.assertEqual([generated[key] for key in ("ratio_min", "ratio", "ratio_max")], [1.5] * 3)
        self.assertIn("tg8 @ d32   slow       200.0   220.0   240.0  1.50 (1.50 to 1.50)", done.stdout)

        drawing = xml.parse(self.folder / "out.svg").getroot()
        bars = [rect for rect in drawing.iter("{http://www.w3.org/2000/svg}rect") if "x" in rect.attrib]
        widths = [float(bar.get("width")) for bar in bars]
        self.assertEqual(len(widths), 4)
        self.assertAlmostEqual(widths[0] / widths[1], 1.5, places=2)

    def test_what_cannot_be_compared_is_one_error(self):
        ours = self.engine("ours", 1)
        silent = self.folder / "silent"
        silent.write_text("#!/bin/sh\necho starting >&2\necho no such flag >&2\nexit 3\n")
        silent.chmod(0o755)
        for peer, words in [(f"x={silent}", "ended with code 3: no such flag"), ("x=/no/such", "can't run x"),
                            ("x=/bin/echo", "printed no JSON"), ("x", "is not NAME=COMMAND")]:
            done = self.compare("--metallic", ours, "--peer", peer, "--rounds", "1")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr.splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
