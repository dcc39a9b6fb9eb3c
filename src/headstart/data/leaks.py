"""Finds samples that are in two splits or two classes, which makes scores misleading."""

import logging
from collections import Counter

from headstart.data.samples import Samples
from headstart.errors import listed

log = logging.getLogger(__name__)


def warn_of_leaks(samples: Samples, splits: dict[str, list[int]]) -> None:
    """Warns if the same content is in two splits or in two classes, or a group in two splits: scores mean nothing."""
    if shared := shared_groups(samples, splits):
        log.warning(
            "%d groups have samples in two splits, such as %s: scores will mislead", len(shared), listed(shared, 3)
        )
    for kind, found in leaks(samples, splits).items():
        if found:
            log.warning(
                "%d samples with identical content are in two %s, the first pair is %s = %s: scores will mislead",
                len(found), kind, *found[0],
            )  # fmt: skip


def shared_groups(samples: Samples, splits: dict[str, list[int]]) -> list[str]:
    """The groups with samples in two splits, sorted."""
    if samples.groups is None:
        return []
    places = Counter(group for indices in splits.values() for group in {samples.groups[i] for i in indices})
    return sorted(group for group, number in places.items() if number > 1)


def leaks(samples: Samples, splits: dict[str, list[int]]) -> dict[str, list[tuple[str, str]]]:
    """The pairs of names with identical content in two `splits`, and in two `classes`.

    Empty for samples without digests, which are not files.
    """
    if samples.digests is None:
        return {"splits": [], "classes": []}
    seen: dict[str, tuple[str, int]] = {}
    pairs: dict[str, list[tuple[str, str]]] = {"splits": [], "classes": []}
    for split, indices in splits.items():
        for index in indices:
            other_split, other = seen.setdefault(samples.digests[index], (split, index))
            if other_split != split:
                pairs["splits"].append((samples.names[other], samples.names[index]))
            if samples.targets[other] != samples.targets[index]:
                pairs["classes"].append((samples.names[other], samples.names[index]))
    return pairs
