"""The page of a night: what it shows, what it makes of hostile names, how it looks and acts."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipelines.reports import exhibits, history, night
from pipelines.reports.night import ReportConfig
from pipelines.restoration import manifest
from pipelines.restoration.manifest import FAILED, IGNORED, PASSED, REJECTED, RESTORED, Manifest
from pipelines.services import storage, tracking
from pipelines.services.storage import StorageError
from spair_core.images import encode_png
from tests.pipelines.media.test_clips import make_clip
from tests.pipelines.reports import browser
from tests.pipelines.reports.verdicts import verdict

EVIL = "cam1/<script>document.title='owned'</script>\"onload=x \u202egpj.png"


def commit(destination, verdicts):
    book = Manifest(str(destination))
    for one in verdicts:
        book.add(one)
    book.commit()
    return str(destination)


def test_a_manifest_of_many_parts_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "PART_ROWS", 500)
    outcomes = [RESTORED, PASSED, IGNORED, REJECTED]
    commit(tmp_path, (verdict(f"{k:05}", outcomes[k % 4]) for k in range(4000)))
    where = night.report(ReportConfig(str(tmp_path), rows=100))
    page = storage.read_bytes(where).decode()
    assert where == f"{tmp_path}/_spair/report.html"
    assert "2,000 of 3,000 items are done" in page
    assert "3,900 are not shown" in page
    assert "<td>2026-11-27 22:00:00</td><td>1,000</td><td>1,000</td><td>1,000</td><td>0</td>" in page
    assert page.count("<tr data-verdict") == 100
    kept = json.loads((tmp_path / "_spair" / "report.json").read_text())
    assert kept["counts"] == {RESTORED: 1000, PASSED: 1000, IGNORED: 1000, REJECTED: 1000, FAILED: 0}


def test_costs_are_told_only_where_a_price_is_given(tmp_path):
    commit(tmp_path, [verdict("a", model_seconds=7200.0)])
    out = str(tmp_path / "page.html")
    night.report(ReportConfig(str(tmp_path), out))
    assert "cost of" not in (tmp_path / "page.html").read_text()
    night.report(ReportConfig(str(tmp_path), out, cost_per_hour=0.5))
    page = (tmp_path / "page.html").read_text()
    assert "<dd>1.00<small>7,200 model s / 3600 x 0.5 an hour" in page
    with pytest.raises(ValueError, match="cost_per_hour"):
        ReportConfig("x", cost_per_hour=-1)


def test_where_nothing_was_restored(tmp_path):
    with pytest.raises(storage.NothingStoredError, match="no restoration"):
        night.report(ReportConfig(str(tmp_path)))


def test_earlier_nights_are_found_and_told(s3):
    for day in ("2026-11-24", "2026-11-25", "2026-11-26", "2026-11-27", "2026-11-28"):
        commit(f"{s3}/{day}/dry", [verdict(f"{day}{k}") for k in range(int(day[-2:]))])
    storage.write_bytes(f"{s3}/notes/x", b"")
    night.report(ReportConfig(f"{s3}/2026-11-25/dry"))
    storage.write_bytes(f"{s3}/2026-11-26/dry/_spair/report.json", b"[1]")
    assert history.neighbours(f"{s3}/2026-11-27/dry") == [f"{s3}/2026-11-{day}/dry" for day in (24, 25, 26)]
    page = storage.read_bytes(night.report(ReportConfig(f"{s3}/2026-11-27/dry"))).decode()
    table = re.search(r"Earlier nights.*?<tbody>(.*?)</tbody>", page, re.S)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table[1].strip().splitlines()]
    assert [row[0] for row in rows] == [
        "<strong>2026-11-27</strong>",
        "2026-11-26",
        "2026-11-25",
        "2026-11-24",
    ]
    assert [row[1] for row in rows] == ["27", "–", "25", "24"]
    assert [row[7] for row in rows] == ["54", "–", "50", "–"]  # of the last the index alone is known
    assert "report.json: is damaged" in page
    named = ReportConfig(f"{s3}/2026-11-27/dry", earlier=(f"{s3}/2026-11-28/dry", f"{s3}/notes"))
    page = storage.read_bytes(night.report(named)).decode()
    assert "2026-11-25" not in page
    assert "notes: no restoration has written there" in page


def test_neighbours_that_may_not_be_listed(tmp_path, monkeypatch):
    def refused(uri):
        raise StorageError(f"{uri}: may not")

    monkeypatch.setattr(storage, "folders_in", refused)
    destination = commit(tmp_path / "2026-11-27", [verdict("a")])
    page = storage.read_bytes(night.report(ReportConfig(destination))).decode()
    assert f"its neighbours cannot be listed: {tmp_path}: may not" in page


@pytest.mark.parametrize(
    "kept", ["[1]", "{}", "nonsense", '{"counts": 3}', '{"counts": {"restored": 1}, "frames": NaN}']
)
def test_numbers_that_are_none_are_told(tmp_path, kept):
    storage.write_bytes(f"{tmp_path}/_spair/report.json", kept.encode())
    (one,) = history.earlier("/nowhere", [str(tmp_path)])
    assert re.fullmatch(
        r".*/_spair/report.json: is damaged \(.+\); make that night's report again", one.trouble
    )


@pytest.mark.parametrize("destination", ["/", "2026-11-20", "s3://2026-11-20", "/2026-11-20", "/data/dry"])
def test_places_without_neighbours(destination, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert history.neighbours(destination) == []


def test_a_broken_store_of_numbers_does_not_hinder_a_page_elsewhere(tmp_path, monkeypatch, capsys):
    commit(tmp_path / "dry", [verdict("a")])
    write = storage.write_bytes

    def refused(uri, data):
        if uri.startswith(str(tmp_path / "dry")):
            raise StorageError(f"{uri}: may not")
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", refused)
    out = str(tmp_path / "page.html")
    assert night.report(ReportConfig(str(tmp_path / "dry"), out)) == out
    assert "are not kept for later reports" in capsys.readouterr().err
    with pytest.raises(StorageError, match="may not"):
        night.report(ReportConfig(str(tmp_path / "dry")))


def test_the_page_is_logged_to_the_restorations_run(mlflow_store, tmp_path):
    commit(tmp_path / "dry", [verdict("a")])
    destination = str(tmp_path / "dry")
    night.report(ReportConfig(destination, experiment="nightly"))  # none there yet
    for _ in range(2):
        with tracking.run("nightly", destination) as run:
            pass
    where = night.report(ReportConfig(destination, experiment="nightly"))
    store = tracking.client()
    (file,) = store.list_artifacts(run.run_id)
    assert file.path == "report.html"
    assert file.file_size == len(storage.read_bytes(where))


def pictured(folder, photo, count=3):
    """Verdicts on pictures with a block that was changed."""
    for k in range(count):
        before = photo[:480, :600].copy()
        before[100:200, 50 * k : 50 * k + 100] = 255
        uris = {"source_uri": f"{folder}/src/{k}.png", "output_uri": f"{folder}/dry/cam1/{k}.png"}
        storage.write_bytes(uris["source_uri"], encode_png(before))
        storage.write_bytes(uris["output_uri"], encode_png(photo[:480, :600]))
        yield verdict(f"cam1/{k}.png", degraded_share=0.1 * k, **uris)


def shown(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def test_pictures_are_small_and_the_mask_is_where_they_differ(tmp_path):
    before, after = np.zeros((900, 1300, 3), np.uint8), np.zeros((900, 1300, 3), np.uint8)
    before[:450, :650] = 200
    after[450:, :] = 10  # too little to count
    (tmp_path / "a.png").write_bytes(encode_png(before))
    (tmp_path / "b.png").write_bytes(encode_png(after))
    item = verdict("a.png", source_uri=str(tmp_path / "a.png"), output_uri=str(tmp_path / "b.png"))
    (one,) = exhibits.exhibits([("by chance", item)])
    assert (one.share, one.size, one.motion, one.trouble) == (0.25, (640, 443), b"", "")
    cover = shown(one.changed)[..., 3] > 0
    assert cover[:218, :318].all()
    assert not cover[225:].any()
    assert not cover[:, 325:].any()
    assert shown(one.before)[100, 100, 0] > 190
    assert shown(one.after)[100, 100, 0] < 10


def test_of_a_clip_a_frame_and_two_seconds_are_shown(tmp_path, photos):
    clean = [np.roll(photos[0][:96, :128], 2 * k, axis=1) for k in range(80)]
    spoilt = [frame.copy() for frame in clean]
    spoilt[7][20:60, 20:60] = 255
    for name, frames in (("a", spoilt), ("b", clean)):
        make_clip(tmp_path / f"{name}.mp4", frames)
    item = verdict("a.mp4", source_uri=str(tmp_path / "a.mp4"), output_uri=str(tmp_path / "b.mp4"))
    (one,) = exhibits.exhibits([("by chance", replace(item, kind="clip"))])
    assert one.share > 0.1
    with Image.open(io.BytesIO(one.motion)) as motion:
        assert 2 <= motion.n_frames <= exhibits.MOTION_FRAMES
        assert motion.size == (260, 96)
        lasted = 0
        for k in range(motion.n_frames):
            motion.seek(k)
            motion.load()
            lasted += motion.info["duration"]
    assert 0 < lasted <= 2000


def test_what_cannot_be_shown_says_why(tmp_path, photos, monkeypatch):
    good, gone, other, broken, table, large = pictured(tmp_path, photos[0], 6)
    storage.delete(gone.source_uri)
    storage.write_bytes(other.output_uri, encode_png(photos[0][:20, :20]))
    storage.write_bytes(broken.output_uri, b"nonsense")
    storage.write_bytes(large.source_uri, bytes(2 << 20))
    monkeypatch.setattr(exhibits, "MOST_BYTES", 1 << 20)
    items = [gone, other, broken, replace(table, kind="table"), large, replace(good, source_uri=""), good]
    found = list(exhibits.exhibits(("by chance", item) for item in items))
    words = ["not found", "differ in size", "not a picture", "table", "too many to fetch", "does not say", ""]
    for one, said in zip(found, words, strict=True):
        assert (said in one.trouble) if said else not one.trouble
        assert bool(one.before) == (not said)
    commit(tmp_path / "dry", items[:1])
    page = storage.read_bytes(night.report(ReportConfig(str(tmp_path / "dry")))).decode()
    assert "not found" in page
    assert "<img" not in page


def test_a_store_that_does_not_answer_is_asked_once(tmp_path, photos, monkeypatch):
    asked = []

    def silent(uri):
        asked.append(uri)
        raise storage.StoreUnavailableError("nobody answers")

    monkeypatch.setattr(storage, "size_of", silent)
    found = list(exhibits.exhibits(("by chance", item) for item in pictured(tmp_path, photos[0])))
    assert [one.trouble for one in found] == ["nobody answers"] * 3
    assert len(asked) == 1


def hostile(tmp_path, photo):
    """A night with all verdicts, pictures, and names and reasons that would like to be more than text."""
    made = list(pictured(tmp_path, photo))
    made += [replace(made[0], key=EVIL, kind="picture", notes="<b>bold</b>\n</table>", degraded_share=0.9)]
    made += [verdict(f"cam2/{k:03}.png", PASSED) for k in range(150)]
    made += [verdict(f"cam3/{k}.png", REJECTED, reason=f"<img src=x onerror=alert({k})>") for k in range(7)]
    return commit(tmp_path / "dry", made)


def test_names_and_reasons_stay_text(tmp_path, photos):
    page = storage.read_bytes(night.report(ReportConfig(hostile(tmp_path, photos[0])))).decode()
    assert "<script>document" not in page
    assert "<img src=x" not in page
    assert "<b>bold" not in page
    assert "\u202e" not in page
    assert "\\u202egpj.png" in page
    assert page.count("<script") == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["'](?!data:image/)""", page)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    if browser.CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    with browser.page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def opened(window, tmp_path, photos):
    """The page of the hostile night, in a browser."""
    commit(tmp_path / "2026-11-26", [verdict("a")])
    path = night.report(ReportConfig(hostile(tmp_path, photos[0])))
    window.complaints.clear()
    window.events.clear()

    def show(**size):
        window.open(storage.Path(path), **size)
        return window

    return show


@pytest.mark.long
def test_sliders_follow_keys_and_the_mouse(opened):
    page = opened()
    after = "getComputedStyle(document.querySelector('.after')).clipPath"
    assert "50%" in page.run(after)
    page.run("document.querySelector('.stage input').focus()")
    page.press("End")
    assert "100%" in page.run(after)
    page.press("ArrowLeft")
    assert "99%" in page.run(after)
    said = page.run("document.querySelector('.stage input').getAttribute('aria-valuetext')")
    assert said == "99 % before, 1 % after"
    page.run("document.querySelector('.stage').scrollIntoView({block: 'center'})")
    box = "document.querySelector('.stage').getBoundingClientRect()"
    left, top, width, height = (page.run(f"{box}.{name}") for name in ("left", "top", "width", "height"))
    page.click(left + width / 4, top + height / 2)
    assert 20 <= int(page.run("document.querySelector('.stage input').value")) <= 30
    changed = "getComputedStyle(document.querySelector('.changed')).visibility"
    assert page.run(changed) == "hidden"
    page.run("document.querySelector('.mask input').click()")
    assert page.run(changed) == "visible"
    assert page.complaints == []


@pytest.mark.long
def test_filters_sift_the_list(opened):
    page = opened()
    rows = "document.querySelectorAll('#items tbody tr:not([hidden])').length"
    told = "new Event('input', {bubbles: true})"

    def choose(name, value):
        field = f"document.querySelector('#filters [name={name}]')"
        page.run(f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent({told})")
        return page.run(rows), page.run("document.querySelector('#filters output').textContent")

    assert page.run(rows) == 100
    page.run("document.getElementById('more').click()")
    assert page.run(rows) == 161
    assert page.run("document.getElementById('more').hidden")
    assert choose("verdict", REJECTED) == (7, "7 shown")
    assert choose("text", "ALERT(3)") == (1, "1 shown")
    assert choose("folder", "cam2") == (0, "0 shown")
    assert choose("text", "") == (0, "0 shown")
    assert choose("verdict", PASSED) == (100, "100 of 150 shown")
    assert page.complaints == []


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_fits_its_window_and_asks_nobody(opened, width, dark):
    page = opened(width=width, dark=dark)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("document.title").startswith("The morning after")
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in asked} == {"file", "data"}
    assert page.run("[...document.images].every(i => i.hasAttribute('alt'))")
    assert page.run(
        "[...document.querySelectorAll('input, select')].every(i => i.labels.length || i.ariaLabel)"
    )
    assert page.run("[...document.querySelectorAll('th')].every(h => h.scope === 'col')")
    colours = Image.open(io.BytesIO(page.picture(whole=False))).convert("L")
    assert (np.median(np.asarray(colours)) < 60) == dark
    assert contrast(page) >= 4.5
    assert page.complaints == []


@pytest.mark.long
def test_a_script_that_slips_in_does_not_run(opened, tmp_path):
    page = opened()
    path = tmp_path / "dry" / "_spair" / "report.html"
    spoilt = path.read_text().replace(
        "</h1>", "</h1><script>document.title='owned'</script><b onclick=x>b</b>"
    )
    path.write_text(spoilt.replace('<p class="lead"', '<p style="color:red" class="lead"'))
    page.open(path)
    assert page.run("document.title").startswith("The morning after")
    assert page.run("getComputedStyle(document.querySelector('.lead')).color") != "rgb(255, 0, 0)"
    assert any("Content Security Policy" in said for said in page.complaints)


def contrast(page):
    """The least contrast of text on the page's ground, as WCAG counts it."""
    script = """(() => {
      const light = (c) => { const [r, g, b] = c.match(/\\d+/g).slice(0, 3).map((v) => {
        v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
        return .2126 * r + .7152 * g + .0722 * b; };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      const all = [...document.querySelectorAll('p, dt, dd, small, td, th, summary, figcaption, span, label')]
        .filter((e) => e.offsetParent && !e.closest('.stage'))
        .map((e) => light(getComputedStyle(e).color));
      return Math.min(...all.map((l) => (Math.max(l, ground) + .05) / (Math.min(l, ground) + .05)));
    })()"""
    return page.run(script)
