"""The list of samples that cannot be used."""

from pathlib import Path

from headstart.datasets.bad_samples import LISTED, describe


def test_a_listing_is_short_and_says_where_the_rest_is():
    bad = {f"{number}.jpg": "empty file" for number in range(LISTED + 2)}
    lines = describe(bad, 50, "pictures", Path("scan.bad.txt")).splitlines()
    assert lines[:2] == [f"{LISTED + 2} of 50 pictures cannot be used:", "  0.jpg: empty file"]
    assert lines[LISTED + 1 :] == ["  ... and 2 more", "All of them are listed in scan.bad.txt"]
