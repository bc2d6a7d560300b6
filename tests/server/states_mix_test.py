import shutil

import pytest

import states_mix


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")
def test_every_mechanism_at_once_changes_no_answer():
    held, summary = states_mix.mix(seconds=10, real=False)
    print(summary)
    assert held, summary
    for what in ("swaps", "snapshot hits", "snapshots evicted", "moves", "forks",
                 "turns broken off", "sessions from the store"):
        assert f" {what}" in summary and f" 0 {what}" not in summary, summary
