"""What a user is told."""
import pytest

from minigpt.settings import UserError


def message(function, *arguments, **more):
    """What the user is told: one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **more)
    told = str(caught.value)
    assert "\n" not in told and len(told.splitlines()) == 1
    return told


def short_message(function, *arguments):
    """The same of files that may hold anything: a line that does not repeat all of it."""
    told = message(function, *arguments)
    assert len(told) < 1000
    return told
