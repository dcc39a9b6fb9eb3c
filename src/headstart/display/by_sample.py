"""Chooses how a sample is shown, by what it is."""

from collections.abc import Callable
from typing import Any

from headstart.display.contact_sheet import fitted, is_picture
from headstart.display.pictures import PictureView
from headstart.display.samples import SampleView
from headstart.display.texts import TextView


def view_of(sample: Any) -> SampleView:
    """The view for samples like this one: texts, pictures, or one that shows nothing."""
    if isinstance(sample, str):
        return TextView()
    return PictureView() if is_picture(sample) else SampleView()


def as_shown(raw: Any, transform: Callable[[Any], Any]) -> Any:
    """A sample as it is shown: a text as it is, a picture at most made smaller.

    Anything else is shown as the network gets it, behind `transform`.
    """
    if is_picture(raw):
        return fitted(raw)
    return raw if isinstance(raw, str) else transform(raw)
