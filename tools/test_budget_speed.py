"""What budget_speed.py makes of runs."""

import unittest
import xml.etree.ElementTree as xml

from budget_speed import OURS, chart, size, summarise, table

SMALL, LARGE = ("512MiB", 512 << 20), ("1GiB", 1 << 30)


def ours(rate, share):
    return {"rate": rate, "peak": 500, "read": 2e9, "share": share}


class Summary(unittest.TestCase):
    def rows(self):
        killed, peer = {"rate": None, "peak": 600}, {"rate": 2.0, "peak": 600, "read": None, "share": None}
        return summarise({
            (SMALL, OURS): [ours(3.0, 0.8), ours(4.0, 1.0)],
            (SMALL, "peer"): [killed, killed],
            (LARGE, OURS): [ours(5.0, 0.9), ours(8.0, 0.7)],
            (LARGE, "peer"): [peer, killed],
        })

    def test_a_ratio_is_of_the_same_round_and_of_those_that_lived(self):
        by_place = {(row["budget"], row["engine"]): row for row in self.rows()}
        self.assertEqual(by_place["1GiB", "peer"]["ratio"], 2.5)
        self.assertEqual(by_place["1GiB", "peer"]["killed"], 1)
        self.assertIsNone(by_place["512MiB", "peer"]["ratio"])
        self.assertNotIn("median", by_place["512MiB", "peer"])
        mine = by_place["512MiB", OURS]
        self.assertEqual((mine["min"], mine["median"], mine["max"]), (3.0, 3.5, 4.0))
        self.assertAlmostEqual(mine["share"], 0.9)

    def test_the_table_says_who_was_killed(self):
        lines = table(self.rows()).splitlines()
        self.assertEqual(len(lines), 5)
        self.assertIn("killed", lines[2])
        self.assertIn("90%", lines[1])

    def test_the_chart_is_xml_with_a_line_for_each_engine(self):
        root = xml.fromstring(chart(self.rows(), "a < b"))
        lines = [part for part in root if part.tag.endswith("polyline")]
        self.assertEqual([len(line.get("points").split()) for line in lines], [2, 1])

    def test_sizes(self):
        self.assertEqual(size("1.5GiB"), ("1.5GiB", 3 << 29))
        for wrong in ("2GB", "GiB", "-1GiB", ""):
            with self.assertRaises(Exception):
                size(wrong)


if __name__ == "__main__":
    unittest.main()
