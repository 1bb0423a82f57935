"""What the tests of pictures share."""

import pytest
from PIL import Image


@pytest.fixture
def photo(photos):
    """A part of a photograph, 80x60."""
    return Image.fromarray(photos[0][:60, :80])
