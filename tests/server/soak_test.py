import soak


def test_clients_that_end_their_calls_in_every_way():
    held, summary = soak.soak(clients=64, seconds=20, slots=16)
    print(summary)
    assert held, summary
