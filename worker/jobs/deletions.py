"""What the set-based forms of deletions answer."""

from collections.abc import Iterable

from producers.messages import Deleted


def answers(wanted: Iterable[int], found: Iterable[int]) -> list[Deleted]:
    """An answer for each id that was to be deleted, in order: of two for one row, the second finds nothing.

    >>> [answer.deleted for answer in answers([1, 2, 1], {1})]
    [True, False, False]
    """
    left = set(found)
    told = []
    for row_id in wanted:
        told.append(Deleted(deleted=row_id in left))
        left.discard(row_id)
    return told
