"""The targets of ``make fuzz`` with bytes that no coverage guides, and what once broke them."""

import base64
import random

import pytest
from targets import ALL

CRASHES = [
    ("schema", "///+////xcX/vf///8UdHR30O9mYHR0dxcWyxcXFHR0d5OLZoh3FxR3F"),
]


@pytest.mark.parametrize("name", ALL)
def test_any_bytes(name):
    draw = random.Random(name)
    for _ in range(300):
        ALL[name](draw.randbytes(draw.randrange(200)))


@pytest.mark.parametrize(("name", "data"), CRASHES)
def test_what_once_crashed(name, data):
    ALL[name](base64.b64decode(data))
