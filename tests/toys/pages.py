"""Reading report pages: numbers by their data-key, numeric cells without one, what is loaded from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = ("meta", "line", "rect", "circle", "polyline", "link", "img")


class Page(HTMLParser):
    """Texts by data-key, texts of numeric cells without a key, and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.keyed: dict[str, str] = {}
        self.loose: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._stack: list[tuple[str, str | None, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if tag in _VOID:
            return
        classes = (named.get("class") or "").split()
        is_number = tag == "td" and bool({"num", "shade"} & set(classes)) and "rank" not in classes
        self._stack.append((tag, named.get("data-key"), is_number))
        if named.get("data-key") is not None:
            assert named["data-key"] not in self.keyed, f"key {named['data-key']} stands twice"
            self.keyed[str(named["data-key"])] = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self._stack and self._stack[-1][0] == tag:
            self._stack.pop()

    def handle_data(self, data: str) -> None:
        if self._stack and self._stack[-1][0] == "style":
            return
        self.words.append(data)
        keys = [key for _, key, _ in self._stack if key is not None]
        if keys:
            self.keyed[keys[-1]] += data
        elif any(cell for _, _, cell in self._stack) and re.search(r"\d", data):
            self.loose.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def number(self, key: str) -> float | None:
        """The number under a key; None for a dash."""
        text = self.keyed[key].replace(",", "").replace("\u2212", "-").rstrip("%").lstrip("<>")
        return None if text == "\u2013" else float(text)

    def is_self_contained(self) -> bool:
        """No script, and nothing that a browser would fetch."""
        kinds = {tag for tag, _ in self.tags}
        return not kinds & {"script", "link", "img", "iframe"} and not any(
            name in named for _, named in self.tags for name in ("src", "href")
        )
