import numpy as np
import pytest

from spair_core.light import coded, linear


def test_coded_values_come_back():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (coded(linear(values)) == values).all()


def test_half_the_light_is_not_half_the_value():
    assert linear(np.uint8([255]))[0] == 1
    assert coded(np.float32([0.5]))[0] == pytest.approx(255 * 0.5 ** (1 / 2.2), abs=1)
    assert coded(np.float32([-1, 7])).tolist() == [0, 255]
