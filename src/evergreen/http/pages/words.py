"""Numbers, times and states as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

THIN = "\u202f"  # narrow no-break space, between a figure and its unit
MINUS = "\u2212"


def count(n: int) -> str:
    """Group a whole number by thousands.

    >>> count(12345)
    '12,345'
    """
    return f"{n:,}"


def counted(n: int, one: str, many: str | None = None) -> str:
    """Say how many of something there are.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def percent(share: float, digits: int = 1) -> str:
    """Write a share (0 to 1) in per cent."""
    return signed(f"{share * 100:.{digits}f}") + THIN + "%"


def whole_percent(share: float) -> str:
    """Write a share in per cent, with a decimal only where it has one."""
    return f"{round(share * 100, 1):g}{THIN}%"


def signed(text: str) -> str:
    """Set a true minus sign, and none before a zero."""
    if text.startswith("-"):
        return text[1:] if not text.strip("-0.,") else MINUS + text[1:]
    return text


def minuses(text: str) -> str:
    """Set true minus signs before the figures of a sentence.

    >>> minuses("difference -0.1 [-0.161, -0.048], non-inferior").replace(MINUS, "~")
    'difference ~0.1 [~0.161, ~0.048], non-inferior'
    """
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, text)


def milliseconds(ms: float) -> str:
    """Write a latency; more digits for shorter ones."""
    if ms >= 1000:
        return f"{ms / 1000:.1f}{THIN}s"
    return f"{ms:.{0 if ms >= 100 else 1 if ms >= 10 else 2}f}{THIN}ms"


def size(n: float) -> str:
    """Write a number of bytes.

    >>> size(1_250_000).replace(THIN, " ")
    '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            break
        n /= 1000
    return f"{n:.0f}{THIN}{unit}" if unit == "B" or n >= 100 else f"{n:.1f}{THIN}{unit}"


def span(time: timedelta | float) -> str:
    """Write a length of time in at most two units.

    >>> span(3725), span(59.4), span(180)
    ('1 hour 2 minutes', '59 seconds', '3 minutes')
    """
    left = int(time.total_seconds() if isinstance(time, timedelta) else time)
    left = max(left, 0)
    said: list[str] = []
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        n, left = divmod(left, length)
        if n:
            said.append(counted(n, name))
        if n >= 3 or len(said) == 2 or (said and not n):
            break
    return " ".join(said) or "0 seconds"


@dataclass(frozen=True)
class Moment:
    """A time: for machines, in full, and as seen from now."""

    iso: str
    exact: str
    ago: str


def moment(at: datetime | None, now: datetime) -> Moment | None:
    """Describe `at` relative to `now`; None stays None."""
    if at is None:
        return None
    seconds = (now - at).total_seconds()
    return Moment(at.isoformat(timespec="seconds"), at.strftime("%A, %-d %B %Y, %H:%M:%S %Z").strip(), _ago(seconds))


def _ago(seconds: float) -> str:
    if seconds < 5:
        return "just now"
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length:
            return f"{counted(int(seconds // length), name)} ago"
    return "just now"


@dataclass(frozen=True)
class Scale:
    """How figures of one metric are written: in per cent if every one of them lies between 0 and 1."""

    percent: bool

    @staticmethod
    def of(values: Iterable[float]) -> Scale:
        """Choose by the values seen."""
        seen = list(values)
        return Scale(bool(seen) and all(0 <= v <= 1 for v in seen))

    def text(self, value: float) -> str:
        """Write one figure."""
        return percent(value) if self.percent else signed(f"{value:,.4g}")

    def difference(self, value: float, *, unit: bool = True) -> str:
        """Write a difference of two figures, with its sign; shares differ by percentage points."""
        digits = f"{value * 100:+.1f}" if self.percent else f"{value:+.3g}"
        if not digits.strip("+-0."):
            digits = digits.lstrip("+-")
        return signed(digits) + (f"{THIN}points" if self.percent and unit else "")

    def span(self, low: float, high: float) -> str:
        """Write an interval."""
        if self.percent:
            return f"{signed(f'{low * 100:.1f}')}–{signed(f'{high * 100:.1f}')}{THIN}%"
        return f"{self.text(low)} to {self.text(high)}"


def metric(name: str) -> str:
    """Write a metric's name in words.

    >>> metric("balanced_accuracy")
    'balanced accuracy'
    """
    return name.replace("_", " ").strip()


def version(n: int | None) -> str:
    """Write a version number; a dash where there is none."""
    return f"v{n}" if n is not None else "–"


def cut(text: str, length: int = 160) -> str:
    """Shorten a text to `length` characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def capital(text: str) -> str:
    """Begin a sentence with a capital; a first word that is a name of something stays as it is.

    >>> capital("better than v3"), capital("v3 answers"), capital("cpu_load is missing")
    ('Better than v3', 'v3 answers', 'cpu_load is missing')
    """
    first = text.partition(" ")[0].rstrip(":,.;")
    return text[:1].upper() + text[1:] if first.isalpha() else text


def plain(value: str | float) -> str:
    """Write a value whose meaning is not known; fractions between 0 and 1 are mostly shares.

    >>> plain(True), plain(1204), plain("hist")
    ('yes', '1,204', 'hist')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return signed(count(value))
    if isinstance(value, float):
        return percent(value) if 0 < value <= 1 else signed(f"{value:,.4g}")
    return value
