"""What the tests of services share."""

import pytest

from pipelines.services import locations


def forget_clients():
    import s3fs

    locations._filesystem.cache_clear()
    locations._ask.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def fresh_clients():
    """Clients made anew, with what the environment says now; called, it makes them so again."""
    forget_clients()
    yield forget_clients
    forget_clients()
