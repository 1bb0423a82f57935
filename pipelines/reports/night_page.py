"""The page of a night: figures, a timeline, pictures, reasons, earlier nights and a list to be sifted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.reports.exhibits import Exhibit
from pipelines.reports.history import Night, moment
from pipelines.reports.markup import Markup, document, note, section, source, table, text
from pipelines.reports.tally import LOST, Bin, Groups, Tally, folder
from pipelines.restoration.manifest import DONE, VERDICTS, Verdict
from spair_core.masks import THRESHOLD

STYLE = Path(__file__).with_name("night.css").read_text()
SCRIPT = Path(__file__).with_name("night.js").read_text()
BRIEF = 600
"""Seconds below which times are told to the second."""
BARS = 120
"""Of the timeline, at most."""
FOLDERS = 300
"""That can be chosen in the list."""
GROUPS = 30
"""Kinds of reasons, of notes and folders that are told."""


def page(
    night: Night,
    tally: Tally,
    shown: Sequence[Exhibit],
    earlier: Sequence[Night],
    cost_per_hour: float | None,
) -> str:
    """The whole page."""
    return document(
        f"The morning after: {night.date or night.destination}",
        _summary(night, tally),
        _figures(night, cost_per_hour),
        _timeline(tally),
        _exhibits(shown),
        _groups("Why items were not restored", "No item was lost or left out.", tally.reasons),
        _groups("Notes on finished items", "Nothing was noted.", tally.notes),
        _kinds(tally),
        _nights(night, earlier),
        _list(tally),
        style=STYLE,
        script=SCRIPT,
    )


def _summary(night: Night, tally: Tally) -> str:
    counts = tally.counts
    said = f"{tally.done:,} of {tally.total - counts['ignored']:,} items are done"
    lost = f"{tally.lost:,} could not be restored" if tally.lost else "none was lost"
    brief = (night.seconds or 0) < BRIEF
    ends = [_clock(end, seconds=brief) for end in (night.first, night.last)]
    when = f"{ends[0]} to {ends[1]} UTC" if night.first else "not dated"
    bar, x = [], 0.0
    for name in VERDICTS:
        width = 1000 * counts[name] / tally.total
        bar.append(f'<rect class="{name}" x="{x:.2f}" width="{width:.2f}" height="10"/>')
        x += width
    legend = "".join(
        f'<li><b class="dot {name}"></b>{name} <strong>{counts[name]:,}</strong> '
        f"<span>{_percent(counts[name] / tally.total)}</span></li>"
        for name in VERDICTS
    )
    return (
        f'<p class="lead">{said}; {lost}.</p><p class="note">{text(night.destination)} · {when}</p>'
        '<svg class="share" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(bar)}</svg><ul class="legend">{legend}</ul>'
    )


def _figures(night: Night, cost_per_hour: float | None) -> str:
    seconds, model = night.seconds or 0, night.model_seconds or 0
    frames, megapixels = night.frames or 0, night.megapixels or 0
    shown = [
        ("frames", _amount(frames), "pictures count as one"),
        ("megapixels", _amount(megapixels), "width x height x frames"),
        ("degraded", _percent(night.degraded_share), "mean of what was found in finished items"),
        ("duration", _duration(seconds), "first verdict to last, pauses included"),
        ("frames/s", _rate(frames, seconds), f"{_amount(frames)} / {_amount(seconds)} s"),
        ("megapixels/s", _rate(megapixels, seconds), f"{_amount(megapixels)} / {_amount(seconds)} s"),
        ("model time", _duration(model), "summed over all actors"),
        ("megapixels per model second", _rate(megapixels, model), "what one actor does while it computes"),
    ]
    if cost_per_hour is not None:
        cost = model / 3600 * cost_per_hour
        formula = f"{_amount(model)} model s / 3600 x {cost_per_hour:g} an hour; what waits is not counted"
        shown.append(("cost of the model's time", f"{cost:,.2f}", formula))
    tiles = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(says)}</small></dd></div>"
        for name, value, says in shown
    )
    return f'<dl class="figures">{tiles}</dl>'


def _timeline(tally: Tally) -> str:
    line = tally.timeline
    bars = line.bars(BARS)
    if not bars:
        return section("The night", "No verdict says when it was given.")
    start = line.first // line.width * line.width
    each = f"A bar is {_duration(line.width)}. Heights are a minute's mean."
    undated = f" {line.undated:,} items are not dated." if line.undated else ""
    minutes = line.width / 60
    items = _bars(
        "items a minute",
        bars,
        [[(n, b.items[n] / minutes) for n in VERDICTS] for b in bars],
        start,
        line.width,
    )
    frames = _bars(
        "frames a minute", bars, [[("frames", b.frames / minutes)] for b in bars], start, line.width
    )
    numbers = _bar_table(bars, start, line.width)
    return section("The night", f"{each}{undated}", f'<div class="row">{items}{frames}</div>', numbers)


def _bar_table(bars: Sequence[Bin], start: float, width: int) -> str:
    """The same for who cannot see the bars; those in which nothing ended are left out."""
    rows = [
        [_clock(moment(start + place * width), seconds=width < 60), *(b.items[n] for n in VERDICTS), b.frames]
        for place, b in enumerate(bars)
        if b.items
    ]
    inside = table(["from", *VERDICTS, "frames"], rows)
    return f"<details><summary>in numbers</summary>{inside}</details>"


def _bars(
    name: str, bars: Sequence[Bin], heights: Sequence[Sequence[tuple[str, float]]], start: float, width: int
) -> str:
    """Stacked bars as an SVG that is stretched to its place; words stay outside of it, and readable."""
    top = max(sum(height for _, height in stack) for stack in heights) or 1
    drawn = []
    for place, (held, stack) in enumerate(zip(bars, heights, strict=True)):
        y, parts = 100.0, []
        for kind, height in stack:
            share = 100 * height / top
            y -= share
            box = f'x="{place + 0.08:.2f}" y="{y:.2f}" width=".84" height="{share:.2f}"'
            parts += [f'<rect class="{kind}" {box}/>'] if share else []
        if parts:
            said = ", ".join(f"{count:,} {kind}" for kind, count in held.items.items())
            told = (
                f"{_clock(moment(start + place * width), seconds=width < 60)}: {said}; {held.frames:,} frames"
            )
            drawn.append(f"<g><title>{text(told)}</title>{''.join(parts)}</g>")
    ends = [_clock(moment(start + k * width), seconds=width < 60) for k in (0, len(bars))]
    said = text(f"{name}, {ends[0]} to {ends[1]} UTC; at most {_amount(top)}")
    return (
        f'<figure class="chart"><figcaption>{text(name)} <span>up to {_amount(top)}</span></figcaption>'
        f'<svg role="img" aria-label="{said}" viewBox="0 0 {len(bars)} 100" preserveAspectRatio="none">'
        f'{"".join(drawn)}</svg><div class="ends"><span>{ends[0]}</span><span>{ends[1]}</span></div></figure>'
    )


def _exhibits(shown: Sequence[Exhibit]) -> str:
    if not shown:
        return ""
    says = (
        "The most and the least degraded of the restored items, and some by chance. Drag over a picture, or "
        "use the arrow keys: left of the line is before, right of it after. What was changed are the pixels "
        f"in which both differ by more than {THRESHOLD:.0%} of the range; coding anew counts as well. Of "
        "footage, the frame among its first that changed most is shown."
    )
    seen = "".join(_exhibit(one) for one in shown if not one.trouble)
    unseen = [
        [_keys([one.item.key]), text(one.why), _percent(one.item.degraded_share), _words(one.trouble)]
        for one in shown
        if one.trouble
    ]
    rest = table(["item", "chosen as", "degraded", "why there is no picture"], unseen) if unseen else ""
    return section("Before and after", says, f'<div class="pairs">{seen}</div>', rest)


def _exhibit(shown: Exhibit) -> str:
    item = shown.item
    facts = [item.kind, f"{item.width}x{item.height}", f"{_percent(item.degraded_share)} found degraded"]
    facts += [f"{item.frames:,} frames"] if item.frames > 1 else []
    facts += [f"{item.model_seconds:.2f} model s"]
    caption = (
        f"<figcaption><small>{text(shown.why)}</small>{_keys([item.key])}"
        f'<span class="note">{text(" · ".join(facts))}</span></figcaption>'
    )
    return f'<figure class="pair">{_slider(shown)}{caption}{_motion(shown)}</figure>'


def _words(said: str) -> Markup:
    return Markup(f'<span class="said">{text(said)}</span>')


def _slider(shown: Exhibit) -> str:
    width, height = shown.size
    key, box = text(shown.item.key), f'width="{width}" height="{height}" loading="lazy" decoding="async"'
    pictures = "".join(
        f'<img class="{kind}" {box} alt="{said}" src="{source(data, form)}">'
        for kind, said, data, form in (
            ("before", f"{key}, before", shown.before, "webp"),
            ("after", f"{key}, after", shown.after, "webp"),
            ("changed", "", shown.changed, "png"),
        )
    )
    return (
        f'<div class="stage">{pictures}<b class="line"></b><i>before</i><i>after</i>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{key}: how much is shown as before">'
        f'</div><label class="mask"><input type="checkbox"> show what was changed '
        f"({_percent(shown.share)})</label>"
    )


def _motion(shown: Exhibit) -> str:
    if not shown.motion:
        return ""
    said = text(f"{shown.item.key}: an excerpt, before on the left, after on the right")
    return (
        f'<details><summary>in motion</summary><img alt="{said}" src="{source(shown.motion, "webp")}">'
        "</details>"
    )


def _groups(title: str, nothing: str, groups: Groups) -> str:
    found = groups.commonest()
    if not found:
        return section(title, nothing)
    rows = [
        [_sentence(said, group.first), group.count, _verdict(verdict), _keys(group.keys)]
        for verdict, said, group in found[:GROUPS]
    ]
    rest = sum(group.count for *_, group in found[GROUPS:]) + groups.others
    more = [note(f"{rest:,} more in {'over ' if groups.others else ''}{len(found) - GROUPS:,} other kinds.")]
    says = "Grouped: # stands for numbers, … for the item's name."
    return section(title, says, table(["what", "times", "verdict", "such as"], rows), *(more if rest else []))


def _sentence(said: str, first: str) -> Markup:
    example = f"<details><summary>the first</summary>{text(first[:2000])}</details>" if said != first else ""
    return Markup(f'<div class="said">{text(said)}{example}</div>')


def _keys(keys: Iterable[str]) -> Markup:
    return Markup(" ".join(f"<code>{text(key)}</code>" for key in keys))


def _verdict(name: str) -> Markup:
    kind = name if name in VERDICTS else "ignored"
    return Markup(f'<span class="verdict"><b class="dot {kind}"></b>{text(name)}</span>')


def _kinds(tally: Tally) -> str:
    """By kind and by folder, each with its verdicts."""

    def rows(found: Mapping[str, Counter[str]]) -> list[list[Any]]:
        ordered = sorted(
            found.items(), key=lambda one: (-sum(one[1][n] for n in LOST), -one[1].total(), one[0])
        )
        return [[name or "(none)", *(held[n] for n in VERDICTS)] for name, held in ordered[:GROUPS]]

    untold = max(0, len(tally.folders) - GROUPS) or tally.other_folders
    more = [note("Folders with the most lost items first; the others are not shown.")] if untold else []
    by_folder = [table(["folder", *VERDICTS], rows(tally.folders)), *more] if len(tally.folders) > 1 else []
    return section("By kind and folder", "", table(["kind", *VERDICTS], rows(tally.kinds)), *by_folder)


def _nights(night: Night, earlier: Sequence[Night]) -> str:
    if not earlier:
        return ""
    nights = [*earlier, night]
    heads = ["night", *VERDICTS, "lost", "frames", "megapixels", "degraded", "frames/s", "model time"]
    rows = [_night_row(one, here=one is night) for one in reversed(nights)]
    lines = [
        _spark("items", [sum(one.counts.values()) for one in nights]),
        _spark("lost", [one.lost_share for one in nights]),
        _spark("degraded", [one.degraded_share for one in nights]),
        _spark("model time", [one.model_seconds for one in nights]),
    ]
    troubles = [note(f"{one.destination}: {one.trouble}") for one in earlier if one.trouble]
    says = "Small bars: the oldest on the left, this night on the right, each from 0."
    return section(
        "Earlier nights", says, f'<div class="sparks">{"".join(lines)}</div>', table(heads, rows), *troubles
    )


def _night_row(one: Night, *, here: bool) -> list[Any]:
    name = text(one.date or one.destination)
    counts = [one.counts.get(verdict) for verdict in VERDICTS]
    size = [one.frames, None if one.megapixels is None else round(one.megapixels)]
    took = None if one.model_seconds is None else _duration(one.model_seconds)
    shares = [_percent(one.lost_share), *size, _percent(one.degraded_share)]
    named = Markup(f"<strong>{name}</strong>") if here else name
    return [named, *counts, *shares, _rate(one.frames, one.seconds), took]


def _spark(name: str, values: Sequence[float | None]) -> str:
    top = max((value for value in values if value is not None), default=0) or 1
    bars = "".join(
        f'<rect class="{"now" if place == len(values) - 1 else "then"}" x="{place + 0.1:.1f}" width=".8" '
        f'y="{100 - 100 * value / top:.2f}" height="{100 * value / top:.2f}"/>'
        for place, value in enumerate(values)
        if value is not None
    )
    return (
        f'<figure class="spark"><figcaption>{text(name)}</figcaption><svg viewBox="0 0 {len(values)} 100" '
        f'preserveAspectRatio="none" aria-hidden="true">{bars}</svg></figure>'
    )


def _list(tally: Tally) -> str:
    rows = tally.sample()
    untold = tally.total - len(rows)
    says = f"All {tally.total:,} items."
    if untold:
        says = (
            f"{len(rows):,} of {tally.total:,} items: lost ones first, then some of each verdict by chance. "
            f"{untold:,} are not shown; the manifest has them all."
        )
    heads = ("item", "verdict", "why, and notes", "degraded", "frames", "model s")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    inside = f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(map(_line, rows))}</tbody>"
    more = '<button id="more" type="button" hidden>show more</button>'
    listed = f'<div class="wide"><table id="items">{inside}</table></div>'
    return section("Items", says, _filters(rows), listed, more)


def _line(item: Verdict) -> str:
    about = {"verdict": item.verdict, "kind": item.kind, "folder": folder(item.key)}
    marks = " ".join(f'data-{name}="{text(value)}"' for name, value in about.items())
    said = [line for line in (item.reason[:500], *item.notes.splitlines()[:5]) if line]
    cells = [_keys([item.key]), _verdict(item.verdict), "".join(f"<p>{text(line)}</p>" for line in said)]
    if item.verdict in DONE:
        cells += [_percent(item.degraded_share), f"{item.frames:,}", f"{item.model_seconds:.2f}"]
    row = "".join(f"<td>{cell}</td>" for cell in [*cells, "", "", ""][:6])
    return f"<tr {marks}>{row}</tr>"


def _filters(rows: Sequence[Verdict]) -> str:
    """Only for who runs the script; without it the list is whole."""
    folders = Counter(folder(item.key) for item in rows if "/" in item.key)
    choices = {
        "verdict": [name for name, _ in Counter(item.verdict for item in rows).most_common()],
        "kind": sorted({item.kind for item in rows}),
        "folder": sorted(name for name, _ in folders.most_common(FOLDERS)),
    }
    boxes = "".join(_choice(name, options) for name, options in choices.items())
    words = '<label>text <input name="text" type="search" autocomplete="off"></label>'
    count = '<output aria-live="polite"></output>'
    return f'<form id="filters" role="search" aria-label="items" hidden>{boxes}{words}{count}</form>'


def _choice(name: str, options: Iterable[str]) -> str:
    inside = "".join(f'<option value="{text(option)}">{text(option)}</option>' for option in options)
    return f'<label>{name} <select name="{name}"><option value="">all</option>{inside}</select></label>'


def _clock(when: str, *, seconds: bool = False) -> str:
    return when[: 19 if seconds else 16].replace("T", " ")


def _percent(share: float | None) -> str:
    if share is None or not math.isfinite(share):
        return "–"
    return f"{share:.1%}" if share == 0 or share >= 0.001 else "<0.1%"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _rate(amount: float | None, seconds: float | None) -> str:
    return f"{amount / seconds:,.2f}" if amount is not None and seconds else "–"


def _duration(seconds: float) -> str:
    """The two largest units."""
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    size, rest, parts = 0, round(seconds), list[str]()
    for size, unit in units:
        count, rest = divmod(rest, size)
        parts += [f"{count} {unit}"] if count else []
    if not parts:
        return f"{seconds:.1f} s"
    return " ".join(parts[:2])
