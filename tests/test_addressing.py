from megasbp.addressing import derive_key

GOLDEN = (15105599186167942220, 6705223077718720812, 15928036093193482799)


def test_keys_are_frozen() -> None:
    assert derive_key(0) == GOLDEN[0]
    assert derive_key(7, "initial weights", "embedding.weight") == GOLDEN[1]
    assert derive_key(-1, 3) == GOLDEN[2]


def test_addresses_do_not_run_together() -> None:
    keys = [
        derive_key(1, "a", "b"),
        derive_key(1, "ab"),
        derive_key(1, 1),
        derive_key(1, "1"),
        derive_key(11),
    ]
    assert len(set(keys)) == 5
