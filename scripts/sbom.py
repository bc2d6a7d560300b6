#!/usr/bin/env python3
"""Writes the software bill of materials of an image, SPDX 2.3 in JSON.

    scripts/sbom.py NAME < var/lib/dpkg/status > sbom.spdx.json

Debian's packages are read from the image's package database; what is compiled into the programs and
has no package there is listed below.
"""

import datetime
import json
import re
import sys

# Headers alone, so that no package of the image has them.
COMPILED_IN = [("CLI11", "libcli11-dev"), ("nlohmann-json", "nlohmann-json3-dev")]


def read_status(text: str) -> list[tuple[str, str, str]]:
    """Name, version and architecture of every installed package."""
    found = []
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", paragraph,
                                 re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found.append((fields["Package"], fields["Version"], fields["Architecture"]))
    return sorted(found)


def package(name: str, version: str, locator: str) -> dict:
    entry = {"name": name, "SPDXID": "SPDXRef-" + re.sub(r"[^a-zA-Z0-9.-]", "-", f"{name}"),
             "versionInfo": version, "downloadLocation": "NOASSERTION",
             "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
             "copyrightText": "NOASSERTION", "filesAnalyzed": False}
    if locator:
        entry["externalRefs"] = [{"referenceCategory": "PACKAGE-MANAGER",
                                  "referenceType": "purl", "referenceLocator": locator}]
    return entry


def make(name: str, status: str) -> dict:
    packages = [package(name, "NOASSERTION", "")]
    packages[0]["licenseDeclared"] = "Apache-2.0"
    packages += [package(p, version, f"pkg:deb/debian/{p}@{version}?arch={architecture}")
                 for p, version, architecture in read_status(status)]
    packages += [package(p, "NOASSERTION", f"pkg:deb/debian/{source}")
                 for p, source in COMPILED_IN]
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": name, "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{now}",
        "creationInfo": {"created": now, "creators": ["Tool: scripts/sbom.py"]},
        "packages": packages,
        "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                           "relatedSpdxElement": packages[0]["SPDXID"]}] + [
            {"spdxElementId": packages[0]["SPDXID"], "relationshipType": "CONTAINS",
             "relatedSpdxElement": p["SPDXID"]} for p in packages[1:]],
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    json.dump(make(sys.argv[1], sys.stdin.read()), sys.stdout, indent=1)
    print()
