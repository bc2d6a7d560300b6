import states_mix


def test_every_mechanism_at_once_changes_no_answer():
    held, summary = states_mix.mix(seconds=10, real=False)
    print(summary)
    assert held, summary
    for what in ("swaps", "snapshot hits", "snapshots evicted", "moves", "forks",
                 "turns broken off"):
        assert f" {what}" in summary and f" 0 {what}" not in summary, summary
