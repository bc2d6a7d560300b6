"""The texts of smollm2_135m.sh, from Debian packages.

    apt-get download anarchism jargon-text fortunes perl-doc python3.11-doc \
        bible-kjv bible-kjv-text debian-reference-en developers-reference
    for package in *.deb; do dpkg -x "$package" root; done
    debian_text.py root TEXT_DIR

Writes prose.txt and manuals.txt to train on, and evaluation/*.txt.
"""

import gzip
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

STARTS_LINE = "p div br li h1 h2 h3 h4 pre tr dt dd".split()
ENDS_LINE = "p div h1 h2 h3 h4 pre ul table".split()
SKIPPED = ("script", "style", "head")
NOT_PROSE = ("perltoc.pod", "perluniprops.pod", "perlapi.pod")


class TextOf(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.parts, self.skipping = [], 0
        self.feed(path.read_text(encoding="utf-8", errors="replace"))

    def handle_starttag(self, tag, attrs):
        self.skipping += tag in SKIPPED
        if tag in STARTS_LINE:
            self.parts.append("\n")

    def handle_endtag(self, tag):
        self.skipping -= tag in SKIPPED
        if tag in ENDS_LINE:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.skipping:
            self.parts.append(data)

    def __str__(self):
        text = re.sub(r"[ \t]+", " ", "".join(self.parts))
        return re.sub(r"\n\s*\n+", "\n\n", text).strip()


def html(folder: Path, pattern: str) -> str:
    return "\n\n".join(str(TextOf(path)) for path in sorted(folder.glob(pattern)))


def unwrap(text: str) -> str:
    """Joins the lines of each paragraph that is not indented."""
    join = lambda p: p if re.match(r"\s{2,}", p) else re.sub(r"\s*\n\s*", " ", p)
    return "\n\n".join(join(p) for p in text.split("\n\n"))


def manuals(root: Path) -> str:
    doc = root / "usr/share/doc"
    with gzip.open(doc / "jargon-text/jargon.txt.gz", "rt", errors="replace") as f:
        parts = [f.read()]
    for path in sorted((root / "usr/share/games/fortunes").iterdir()):
        if path.is_file() and not path.is_symlink() and path.suffix not in (".dat", ".u8"):
            parts.append(path.read_text(errors="replace").replace("\n%\n", "\n\n"))
    for path in sorted((root / "usr/share/perl").rglob("*.pod")):
        if path.name not in NOT_PROSE:
            pod = path.read_text(errors="replace")
            parts.append(unwrap(re.sub(r"[A-Z]<+ ?([^<>]*) ?>+", r"\1", pod)))
    for section in ("tutorial", "library", "howto", "reference", "faq"):
        parts.append(html(doc / "python3.11/html" / section, "*.html"))
    return "\n\n".join(parts)


def gospels_and_acts(root: Path) -> str:
    command = [root / "usr/bin/bible", "-l10000", "-p", root / "usr/lib", "matt1:1-acts28:31"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    verses = re.sub(r"(?m)^\s*\d+ ", "", text)
    chapters = re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+", " ", verses)).split("\n\n")
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", chapter).strip() for chapter in chapters)


def main(root: Path, out: Path) -> None:
    share = root / "usr/share"
    (out / "evaluation").mkdir(parents=True, exist_ok=True)
    texts = {
        "prose": unwrap(html(share / "doc/anarchism/html", "**/*.html")),
        "manuals": manuals(root),
        "evaluation/prose": gospels_and_acts(root),
        "evaluation/reference": html(share / "debian-reference", "ch*.html"),
        "evaluation/developers": html(share / "developers-reference", "developers-reference.html"),
    }
    for name, text in texts.items():
        (out / f"{name}.txt").write_text(text)
        print(f"{name}: {len(text) / 1e6:.1f} million characters")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
