"""Tests of first_token.py with engines that are scripts: python3 -m unittest discover -s tools"""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOL = Path(__file__).with_name("first_token.py")

# Takes its time and its memory, and notes how it was called.
ENGINE = """#!{python}
import sys, time
open({log!r}, "a").write({name!r} + " " + " ".join(sys.argv[1:]) + "\\n")
held = bytearray(b"x") * {n_bytes}
time.sleep({seconds})
sys.exit({code})
"""


class FirstToken(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.log = self.folder / "log"
        (self.folder / "a.gguf").write_bytes(bytes(5 << 20))

    def engine(self, name, seconds, n_bytes=0, code=0):
        path = self.folder / name
        values = dict(python=sys.executable, log=str(self.log), name=name, seconds=seconds, n_bytes=n_bytes, code=code)
        path.write_text(ENGINE.format(**values))
        path.chmod(0o755)
        return str(path)

    def time(self, *args):
        command = [sys.executable, str(TOOL), "a.gguf", "-t", "2", "--prompt", "Hi", *args]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder)

    def test_engines_take_turns_and_are_timed_and_weighed(self):
        ours, slow = self.engine("ours", 0.2), self.engine("slow", 0.8, 200 << 20)
        done = self.time("--metallic", ours, "--peer", f"slow={slow} -x", "--rounds", "2", "--json", "out.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        turn = ["ours run --raw -m a.gguf -p Hi -n 1 -t 2", "slow -x -m a.gguf -p Hi -n 1 -t 2"]
        self.assertEqual(self.log.read_text().splitlines(), turn * 2)
        ours, slow = json.loads((self.folder / "out.json").read_text())
        self.assertTrue(0.2 <= ours["min"] < 0.8 <= slow["min"])
        self.assertTrue(slow["min"] / ours["max"] <= slow["ratio"] <= slow["max"] / ours["min"])
        self.assertGreater(slow["peak_bytes"], 200 << 20)
        self.assertLess(ours["peak_bytes"], 200 << 20)

    def test_a_cold_file_is_set_beside_a_plain_read(self):
        done = self.time("--metallic", self.engine("ours", 0), "--cold", "--rounds", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([line.split()[1] for line in done.stdout.splitlines()[1:]], ["plain", "metallic"])

    def test_an_engine_that_fails_is_named(self):
        done = self.time("--metallic", self.engine("ours", 0, code=3), "--rounds", "1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("ours run --raw -m a.gguf -p Hi -n 1 -t 2 ended with code 3", done.stderr)


if __name__ == "__main__":
    unittest.main()
