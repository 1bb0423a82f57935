import pytest

from tests.kernels.samples import MASKS


@pytest.fixture(params=MASKS, ids=str)
def mask(request):
    return MASKS[request.param]
