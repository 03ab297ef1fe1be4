# SPDX-License-Identifier: MIT OR Apache-2.0
"""page.py [--filtered WORDS] PAGE NOW [BEFORE]: the page is whole, needs nothing else, and shows what the dumps say."""
import html.parser
import json
import re
import sys

EMPTY = {"meta", "input", "br", "img", "link"}
KNOWN = set("html head meta title style body header section h1 h2 p div span b s i small code a details summary table thead tbody tr th td "
            "input script".split())


class Page(html.parser.HTMLParser):
    """Rows by their device's name (None: of no device); the visible text of each."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.title, self.summary, self.tiles, self.scripts = [], [], "", None, {}, 0
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag in KNOWN, f"a {tag} has got into the page"
        assert not any(name.startswith("on") or name == "src" for name in attributes), attributes
        assert attributes.get("href", "#").startswith("#"), attributes
        self.scripts += tag == "script"
        if tag == "details" and attributes.get("class") == "device":
            self.summary = ""
        if tag == "tr" and "row" in attributes.get("class", "").split():
            self.rows.append([self.summary, attributes.get("id"), "", "hidden" in attributes])
        if tag == "div" and attributes.get("id", "").startswith("n-"):
            self.tiles[attributes["id"][2:]] = ""
        if tag not in EMPTY:
            self.open.append((tag, attributes.get("class", ""), attributes.get("id", "")))

    def handle_endtag(self, tag):
        if tag in EMPTY:
            return
        name, kind, _ = self.open.pop()
        assert name == tag, f"{name} ends as {tag}"
        if (name, kind) == ("details", "device"):
            self.summary = None

    def handle_data(self, text):
        names = [name for name, *_ in self.open]
        if "title" in names:
            self.title += text
        if "summary" in names and "b" in names and self.summary is not None:
            self.summary += text
        if "tr" in names and "tbody" in names and self.rows:
            self.rows[-1][2] += text + " "
        for _, _, name in self.open:
            if name.startswith("n-"):
                self.tiles[name[2:]] += text + " "


def main():
    arguments = sys.argv[1:]
    words = None
    if arguments[0] == "--filtered":
        words, arguments = arguments[1].split(), arguments[2:]
    text = open(arguments[0], encoding="utf-8").read()
    now, *before = (json.load(open(path, encoding="utf-8")) for path in arguments[1:])
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"<title>.*?</title>", "", text)), "the page refers to another"
    assert "default-src 'none'" in text
    page = Page(text)
    # Nothing of a dump has run: one of the names would have changed this.
    assert page.title == "msiroute" and page.scripts == 1, (page.title, page.scripts)

    of = {}
    for device, name, row, hidden in page.rows:
        of[name] = (device, row, hidden)
    shown = 0
    for device in now["devices"]:
        for vector in device["vectors"]:
            row = of.get(f'{device["id"]}-{vector["index"]}')
            assert bool(row) == bool(vector["set"] or vector["pending"] or vector["eventfds"] or vector["errno"]), (vector, row)
            if row:
                shown += 1
                assert row[0] == device["name"], row
                assert vector["address"] in row[1] and f'{vector["data"]:#010x}' in row[1], (vector, row)
                assert ("pending" in row[1].split()) == vector["pending"], (vector, row)
                # Before the message; after what it was, if it has changed.
                state = row[1].split(" vector 0x")[0].split("→")[-1].split()
                assert ("relay" in state) == vector["relayed"] and ("kernel" in state) == vector["in_kernel"], (vector, row)
    assert shown > 5
    for route in now["routes"]:
        _, row, _ = of[f'gsi-{route["gsi"]}']
        assert route["address"] in row, (route, row)
    for name, value in now["stats"].items():
        assert page.tiles[name].split()[0] == f"{value:,}", (name, page.tiles[name])
    if before:
        seconds = (now["time_ns"] - before[0]["time_ns"]) / 1e9
        rate = (now["stats"]["relayed_messages"] - before[0]["stats"]["relayed_messages"]) / seconds
        assert rate > 0 and f"{rate:,.1f} a second" in page.tiles["relayed_messages"], page.tiles
        assert any(re.search(r"masked\s+→\s+relay", row) for _, _, row, _ in page.rows), "no vector has changed"
    if words:
        assert any(hidden for *_, hidden in page.rows) and not all(hidden for *_, hidden in page.rows)
        for device, _, row, hidden in page.rows:
            assert hidden != all(word in f"{device} {row}".lower() for word in words), (device, row, hidden)


main()
