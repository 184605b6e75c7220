"""Tests of budget.py with an engine that is a script: python3 -m unittest discover -s tools"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import budget

# Plans for as many bytes as its model's name says, and answers what {answer} makes of its limit.
ENGINE = """#!{python}
import sys
args = sys.argv[1:]
total = int(args[args.index("-m") + 1] if "-m" in args else args[1])
if args[0] == "plan":
    print('{{"total_bytes": %d}}' % total)
else:
    limit = int(args[args.index("--ram") + 1]) if "--ram" in args else None
    {answer}
"""


class Budget(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.engine = Path(folder.name) / "engine"

    def check(self, answer, *args):
        self.engine.write_text(ENGINE.format(python=sys.executable, answer=answer))
        self.engine.chmod(0o755)
        command = [sys.executable, budget.__file__, str(200 << 20), "--metallic", str(self.engine), *args]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == budget.CANNOT:
            self.skipTest(done.stdout.strip())
        return done

    def test_the_same_answer_within_the_budget_passes(self):
        done = self.check("print('once more')", "--share", "0.5", "--share", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 3, done.stdout)
        self.assertIn("50%, limit 104,857,600, peak ", lines[0])
        self.assertIn("100%, limit 209,715,200, peak ", lines[1])
        self.assertIn("80% -t 100, limit 167,772,160, peak ", lines[2])

    def test_another_answer_fails(self):
        done = self.check("print('more' if limit else 'less')", "--share", "0.5")
        self.assertEqual(done.returncode, 1)
        self.assertIn("answered b'more\\n' and not b'less\\n'", done.stderr)

    def test_a_failure_is_told(self):
        done = self.check("sys.exit('no memory' if limit else 0)", "--share", "0.5")
        self.assertEqual(done.returncode, 1)
        self.assertIn("ended with code 1: no memory", done.stderr)

    def test_who_takes_more_than_the_budget_is_killed(self):
        take = "x = bytearray(b'x') * (limit + (8 << 20) if limit else 1)"
        done = self.check(take, "--share", "0.5")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("ended with code -9", done.stderr)

    def test_an_engine_that_can_not_plan_ends_it(self):
        self.engine.write_text(f"#!{sys.executable}\nimport sys; sys.exit('broken')\n")
        self.engine.chmod(0o755)
        command = [sys.executable, budget.__file__, "1", "--metallic", str(self.engine)]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("broken", done.stderr)


if __name__ == "__main__":
    unittest.main()
