"""The texts of smollm2_135m.sh, from Debian packages.

    apt-get download $(python3 debian_text.py packages)
    for package in *.deb; do dpkg -x "$package" root; done
    python3 debian_text.py root TEXT_DIR

Writes prose.txt and manuals.txt to train on, and evaluation/*.txt. No paragraph to train on stands
twice, and none has twelve words in a row with a text of the evaluation.
"""

import glob
import gzip
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

EVALUATION = "bible-kjv bible-kjv-text debian-reference-en developers-reference".split()
# Package: where its English text is, under usr/share.
PROSE = {
    "anarchism": ["doc/anarchism/html/**/*.html"],
    "bsdgames": ["games/bsdgames/*"],
    "crawl-common": ["crawl/dat/descript/*.txt", "crawl/dat/database/*.txt"],
    "debian-history": ["doc/debian-history/docs/*.en.html", "doc/debian-history/*.gz"],
    "dict-devil": ["dictd/devil.dict.dz"],
    "fortunes": ["games/fortunes/*"],
    "fortunes-min": [],
    "jargon-text": ["doc/jargon-text/jargon.txt.gz"],
} | {
    f"wesnoth-1.16-{campaign}": [f"games/wesnoth/1.16/data/campaigns/{folder}/**/*.cfg"]
    for campaign, folder in {
        "did": "Descent_Into_Darkness",
        "dm": "Delfadors_Memoirs",
        "dw": "Dead_Water",
        "ei": "Eastern_Invasion",
        "httt": "Heir_To_The_Throne",
        "l": "Liberty",
        "low": "Legend_of_Wesmere",
        "nr": "Northern_Rebirth",
        "sof": "Sceptre_of_Fire",
        "sota": "Secrets_of_the_Ancients",
        "sotbe": "Son_Of_The_Black_Eye",
        "thot": "The_Hammer_of_Thursagan",
        "tsg": "The_South_Guard",
        "ttb": "Two_Brothers",
        "utbs": "Under_the_Burning_Suns",
    }.items()
}
MANUALS = {
    "apache2-doc": ["doc/apache2-doc/manual/en/**/*.html"],
    "apt-doc": ["doc/apt-doc/guide.html/*.html", "doc/apt-doc/offline.html/*.html"],
    "aptitude-doc-en": ["doc/aptitude/html/en/*.html"],
    "bash-doc": ["doc/bash/*.html"],
    "bind9-doc": ["doc/bind9-doc/arm/*.html"],
    "borgbackup-doc": ["doc/borgbackup/html/**/*.html"],
    "cinder-doc": ["doc/cinder-doc/html/admin/**/*.html"],
    "debian-edu-doc-en": ["doc/debian-edu-doc-en/*bookworm-manual.html"],
    "debian-handbook": ["doc/debian-handbook/html/en-US/*.html"],
    "debian-kernel-handbook": ["doc/debian-kernel-handbook/**/*.html"],
    "debian-policy": ["doc/debian-policy/policy.html/*.html"],
    "debmake-doc": ["doc/debmake-doc/debmake-doc.en.txt.gz"],
    "exim4-doc-html": ["doc/exim4-doc-html/**/*.html"],
    "gimp-help-en": ["gimp/2.0/help/en/*.html"],
    "git-doc": ["doc/git/html/*.html"],
    "gnome-user-docs": ["help/C/**/*.page"],
    "harden-doc": ["doc/harden-doc/html/en-US/*.html"],
    "heat-doc": ["doc/heat-doc/html/**/*.html"],
    "installation-guide-amd64": ["doc/installation-guide-amd64/en/*.html"],
    "ironic-doc": ["doc/ironic-doc/html/admin/**/*.html"],
    "keystone-doc": ["doc/keystone-doc/html/admin/*.html"],
    "krb5-doc": ["doc/krb5-doc/**/*.html"],
    "libreoffice-help-en-us": ["libreoffice/help/en-US/text/**/*.html"],
    "linux-doc-6.1": [
        f"doc/linux-doc-6.1/html/_sources/{part}/**/*.rst.txt"
        for part in "admin-guide filesystems networking process sound userspace-api".split()
    ],
    "maint-guide": ["doc/maint-guide/html/*.en.html"],
    "mh-book": ["doc/mh-book/**/*.html"],
    "mutt": ["doc/mutt/html/*.html"],
    "neomutt": ["doc/neomutt/**/*.html"],
    "neutron-doc": ["doc/neutron-doc/html/admin/**/*.html"],
    "nova-doc": ["doc/nova-doc/html/admin/**/*.html"],
    "perl-doc": ["perl/**/*.pod"],
    "postfix-doc": ["doc/postfix/html/*.html"],
    "postgresql-doc-15": ["doc/postgresql-doc-15/html/*.html"],
    "proftpd-doc": ["doc/proftpd-doc/**/*.html"],
    "python-django-doc": ["doc/python-django-doc/html/**/*.html"],
    "python-flask-doc": ["doc/python-flask/html/**/*.html"],
    "python-scrapy-doc": ["doc/python-scrapy-doc/html/**/*.html"],
    "python-sqlalchemy-doc": ["doc/python-sqlalchemy-doc/html/orm/*.html"],
    "python3.11-doc": [
        f"doc/python3.11/html/{part}/*.html"
        for part in "tutorial library howto reference faq".split()
    ],
    "r-doc-html": ["R/doc/manual/*.html", "doc/r-doc-html/**/*.html"],
    "rust-doc": [f"doc/rust-doc/html/{part}/*.html" for part in "book nomicon reference".split()],
    "shorewall-doc": ["doc/shorewall-doc/html/*.html"],
    "sqlite3-doc": ["doc/sqlite3/*.html"],
    "user-mode-linux-doc": ["doc/user-mode-linux-doc/**/*.html"],
    "varnish-doc": ["doc/varnish*/html/**/*.html"],
    "vim-doc": ["doc/vim/html/*.html"],
    "zsh-doc": ["doc/zsh-common/html/*.html"],
    "manpages": ["man/man[1-8]/*.gz"],  # of all packages here
}
# Packages with many manual pages, and nothing else to read.
MANUAL_PAGES = """
    manpages-dev ncurses-doc openmpi-doc mpich-doc git-man iproute2 lintian inn2 coreutils
    devscripts debhelper amanda-common groff dovecot-core dpkg-dev munin-doc lxc restic glibc-doc
    procps apt samba
""".split()
AT_MOST = 8_000_000  # characters of one package: none is most of what is learnt
SHINGLE = 12
NOT_PROSE = ("perltoc.pod", "perluniprops.pod", "perlapi.pod", "genindex.html", "bookindex.html")

STARTS_LINE = "p div br li h1 h2 h3 h4 pre tr dt dd title item".split()
ENDS_LINE = "p div h1 h2 h3 h4 pre ul table title".split()
SKIPPED = ("script", "style", "head")


class TextOf(HTMLParser):
    def __init__(self, markup: str):
        super().__init__()
        self.parts, self.skipping = [], 0
        self.feed(markup)

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


def man(source: str) -> str:
    """A manual page without its markup; what its macros ask for is lost, their words are not."""
    lines = []
    for line in source.split("\n"):
        if re.match(r"['.]\s*(\\\"|TH|de|ds|if|ie|el|nr|so|tr|\.)", line):
            continue
        if re.match(r"\.(SH|SS|Sh|Ss|PP|P|LP|TP|IP|HP|Pp|It)\b", line):
            lines.append("")
        line = re.sub(r"^\.[A-Za-z]{1,2}\s?", "", line)
        line = re.sub(r"\\f(\(..|\[.*?\]|.)|\\&|\\s[-+]?\d", "", line)
        lines.append(re.sub(r"\\\(?(\w\w)?([-e])?", r"\2", line).replace('"', ""))
    return "\n".join(lines)


def unwrap(text: str) -> str:
    """Joins the lines of each paragraph that is not indented."""
    join = lambda p: p if re.match(r"\s{2,}", p) else re.sub(r"\s*\n\s*", " ", p)
    return "\n\n".join(join(p) for p in text.split("\n\n"))


def read(path: Path) -> str:
    """The text of a file, by what its name says it is."""
    packed = path.suffix in (".gz", ".dz")
    text = (gzip.open(path).read() if packed else path.read_bytes()).decode("utf-8", "replace")
    if path.suffix in (".html", ".page"):
        return str(TextOf(text))
    if path.suffix == ".pod":
        return unwrap(re.sub(r"[A-Z]<+ ?([^<>]*) ?>+", r"\1", text))
    if path.suffix == ".cfg":  # a scenario: what its people say
        said = re.findall(r'(?:message|story|description)\s*=\s*_\s*"([^"]{30,})"', text)
        return "\n\n".join(re.sub(r"\s+", " ", s) for s in said)
    if path.parent.parent.name == "man":
        return unwrap(man(text))
    return unwrap(text.replace("\n%\n", "\n\n"))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def shingles(text: str):
    words = words_of(text)
    return (hash(tuple(words[i : i + SHINGLE])) for i in range(len(words) - SHINGLE + 1))


class Corpus:
    """Collects paragraphs, each once, without those that share words with the evaluation."""

    def __init__(self, evaluation: list[str]):
        self.forbidden = {s for text in evaluation for s in shingles(text)}
        self.seen: set[int] = set()
        self.overlapping = 0

    def wanted(self, paragraph: str) -> bool:
        letters = len(re.sub("[^A-Za-z ]", "", paragraph))
        if letters < 0.7 * len(paragraph):  # another script, a table, code
            return False
        if len(paragraph) >= 40 or "\n" in paragraph:
            key = hash(" ".join(words_of(paragraph)))
            if key in self.seen:
                return False
            self.seen.add(key)
        if not self.forbidden.isdisjoint(shingles(paragraph)):
            self.overlapping += 1
            return False
        return True

    def package(self, share: Path, patterns: list[str]) -> str:
        """The text of a package's files, up to AT_MOST characters."""
        parts, size = [], 0
        for pattern in patterns:
            for name in sorted(glob.glob(str(share / pattern), recursive=True)):
                path = Path(name)
                if path.is_symlink() or not path.is_file() or path.name in NOT_PROSE:
                    continue
                if path.suffix in (".dat", ".u8") or size > AT_MOST:
                    continue
                paragraphs = [p for p in read(path).split("\n\n") if p.strip() and self.wanted(p)]
                if sum(map(len, paragraphs)) > 200:
                    parts += paragraphs
                    size += sum(map(len, paragraphs))
        return "\n\n".join(parts)

    def texts(self, share: Path, packages: dict[str, list[str]]) -> str:
        texts = []
        for package, patterns in packages.items():
            texts.append(self.package(share, patterns))
            print(f"  {package}: {len(texts[-1]) / 1e6:.2f} million characters", flush=True)
        return "\n\n".join(filter(None, texts))


def gospels_and_acts(root: Path) -> str:
    command = [root / "usr/bin/bible", "-l10000", "-p", root / "usr/lib", "matt1:1-acts28:31"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    verses = re.sub(r"(?m)^\s*\d+ ", "", text)
    chapters = re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+", " ", verses)).split("\n\n")
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", chapter).strip() for chapter in chapters)


def html(folder: Path, pattern: str) -> str:
    texts = (path.read_text(errors="replace") for path in sorted(folder.glob(pattern)))
    return "\n\n".join(str(TextOf(text)) for text in texts)


def main(root: Path, out: Path) -> None:
    share = root / "usr/share"
    (out / "evaluation").mkdir(parents=True, exist_ok=True)
    texts = {
        "evaluation/prose": gospels_and_acts(root),
        "evaluation/reference": html(share / "debian-reference", "ch*.html"),
        "evaluation/developers": html(share / "developers-reference", "developers-reference.html"),
    }
    corpus = Corpus(list(texts.values()))
    texts["prose"] = corpus.texts(share, PROSE)
    texts["manuals"] = corpus.texts(share, MANUALS)
    for name, text in texts.items():
        (out / f"{name}.txt").write_text(text)
        print(f"{name}: {len(text) / 1e6:.1f} million characters")
    print(f"{corpus.overlapping} paragraphs left out: they share words with the evaluation")


if __name__ == "__main__":
    if sys.argv[1:] == ["packages"]:
        print(*PROSE, *MANUALS, *MANUAL_PAGES, *EVALUATION)
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
