"""The file of API keys, as --api-keys takes it."""

import hashlib
import json
import pathlib


def write_keys(path: pathlib.Path, keys: dict[str, str], tenants=None):
    """`keys` are tenants by key; those with "admin" in them may administrate."""
    entries = [{"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant,
                "admin": "admin" in key} for key, tenant in keys.items()]
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"keys": entries, "tenants": tenants or {}}))
    new.rename(path)
