"""A store that is busy, that drops connections or cuts answers short: objects come whole, or not at all."""

import os

import pytest

from pipelines.services import locations, storage
from pipelines.services.storage import StorageError, StoreUnavailableError
from tests.pipelines.services.between import between

pytestmark = pytest.mark.long

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def proxy(s3, monkeypatch, fresh_clients):
    with between(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        fresh_clients()
        storage.write_bytes(f"{s3}/there", CONTENT)
        proxy.asked.clear()
        yield proxy


def never_again(monkeypatch):
    """The negative control: without its own patience `storage` would not get through."""
    monkeypatch.setattr(storage, "PAUSES", ())


def test_a_busy_store_is_asked_again(s3, proxy, tmp_path):
    proxy.faults["PUT"] = ["busy", "busy"]
    storage.write_bytes(f"{s3}/x", CONTENT)
    proxy.faults["GET"] = ["busy", "busy"]
    assert storage.read_bytes(f"{s3}/x") == CONTENT
    proxy.faults["GET"] = ["busy", "busy"]
    assert [item.key for item in storage.list_objects(s3)] == ["there", "x"]
    proxy.faults["PUT"] = ["busy", "busy"]
    storage.copy(f"{s3}/x", f"{s3}/y")
    assert storage.read_bytes(f"{s3}/y") == CONTENT
    assert proxy.asked["PUT"] == 6


def test_a_first_question_may_find_a_store_busy(s3, proxy, fresh_clients):
    fresh_clients()
    proxy.faults["HEAD"] = ["busy"] * 3
    assert storage.read_bytes(f"{s3}/there") == CONTENT


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        ("403 InvalidObjectState", "it is archived .*restore-object"),
        ("403 RequestTimeTooSkewed", "the clock of .* is wrong"),
        ("400 ExpiredToken", "have expired: get new ones"),
        ("403 InvalidAccessKeyId", "knows no such AWS_ACCESS_KEY_ID"),
        ("403 SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY is not that of"),
        ("400 AuthorizationHeaderMalformed", "in another region: set AWS_DEFAULT_REGION"),
        ("403 AccessDenied", "the store refused access .*s3:GetObject"),
    ],
)
def test_what_a_store_refuses_is_told_with_its_remedy(s3, proxy, answer, remedy):
    proxy.faults["GET"] = [answer] * 20
    with pytest.raises(StorageError, match=f"there: .*{remedy}"):
        storage.read_bytes(f"{s3}/there")


def test_what_was_done_without_an_answer_is_done_once(s3, proxy):
    proxy.faults["PUT"] = ["deaf"]
    storage.write_bytes(f"{s3}/x", CONTENT)
    assert proxy.asked["PUT"] == 2
    proxy.faults["DELETE"] = proxy.faults["POST"] = ["deaf"]
    storage.delete(f"{s3}/x")
    assert [item.key for item in storage.list_objects(s3)] == ["there"]


def test_a_cut_answer_is_read_on(s3, proxy, tmp_path):
    proxy.faults["GET"] = ["cut"]
    assert storage.read_bytes(f"{s3}/there") == CONTENT
    proxy.faults["GET"] = ["cut"]
    storage.download(f"{s3}/there", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT
    proxy.faults["GET"] = ["cut"]
    with storage.open_read(f"{s3}/there") as file:
        assert file.read() == CONTENT


def test_an_answer_that_is_cut_again_and_again_is_begun_anew(s3, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PAUSES", (0.1, 0.1))
    for read in (storage.read_bytes, lambda uri: storage.fetch(uri, str(tmp_path)).read_bytes()):
        proxy.faults["GET"] = ["cut"] * locations.ROUNDS
        assert read(f"{s3}/there") == CONTENT
    never_again(monkeypatch)
    proxy.faults["GET"] = ["cut"] * locations.ROUNDS
    with pytest.raises(StoreUnavailableError, match="there: the store cannot be reached"):
        storage.read_bytes(f"{s3}/there")


def test_half_an_object_never_passes_for_it(s3, proxy, tmp_path, monkeypatch):
    never_again(monkeypatch)
    target = tmp_path / "x"
    proxy.faults["GET"] = ["cut"] * 100
    with pytest.raises(StoreUnavailableError, match="there"):
        storage.download(f"{s3}/there", target)
    proxy.faults["GET"] = ["short"]
    with pytest.raises(StorageError, match=r"128000 bytes came, 256000 were listed"):
        storage.download(f"{s3}/there", target, size=len(CONTENT))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_stays_busy_is_told_as_such(s3, proxy, monkeypatch):
    never_again(monkeypatch)
    proxy.faults["PUT"] = ["busy"] * 100
    with pytest.raises(StoreUnavailableError, match="try again later"):
        storage.write_bytes(f"{s3}/x", b"x")
