"""Reads a JUnit report, as ctest and pytest write them, for scripts/test.sh.

Prints "PASSED FAILED SKIPPED" and then, for each failed test, a line "FAILED: NAME" and the end of what it
said. Without a report, zeros.
"""

import sys
import xml.etree.ElementTree as ElementTree

SAID_LINES = 25


def name(case: ElementTree.Element) -> str:
    folder, test = case.get("classname", ""), case.get("name", "")
    return test if folder in ("", test) else f"{folder}::{test}"


def said(case: ElementTree.Element) -> str:
    texts = [child.text or child.get("message") or "" for child in case if child.tag != "properties"]
    return "\n".join("\n".join(texts).strip().splitlines()[-SAID_LINES:])


def report(path: str) -> tuple[list[int], list[str]]:
    passed = skipped = 0
    failures = []
    for case in ElementTree.parse(path).iter("testcase"):
        results = {child.tag for child in case}
        if results & {"failure", "error"} or case.get("status") == "fail":
            failures.append(f"FAILED: {name(case)}\n{said(case)}")
        elif "skipped" in results or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return [passed, len(failures), skipped], failures


if __name__ == "__main__":
    try:
        counts, failures = report(sys.argv[1])
    except (OSError, ElementTree.ParseError):
        counts, failures = [0, 0, 0], []
    print(*counts)
    for failure in failures:
        print(failure)
