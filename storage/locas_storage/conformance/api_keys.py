"""Cases about the keys of a server."""

import pytest

from locas_storage.conformance.samples import ADA, BEN, say
from locas_storage.errors import ApiKeyNotFound, InvalidTurn
from locas_storage.records.api_keys import ApiKey
from locas_storage.store import ApiKeys, MemoryStore


def by_id(store: MemoryStore) -> dict[str, ApiKey]:
    return {key.key_id: key for key in store.api_keys.keys()}


def test_api_keys_keep_the_protocol(store: MemoryStore) -> None:
    assert isinstance(store.api_keys, ApiKeys)
    assert store.api_keys.keys() == []


def test_secret_is_of_the_key_that_it_was_made_with(store: MemoryStore) -> None:
    of_tenant = store.api_keys.new("acme", label="the shop's chat")
    of_user = store.api_keys.new("default", "una")
    assert store.api_keys.holder(of_tenant.secret) == of_tenant.key
    assert store.api_keys.holder(of_user.secret) == of_user.key
    assert (of_tenant.key.tenant, of_tenant.key.user, of_tenant.key.label) == ("acme", None, "the shop's chat")
    assert (of_user.key.tenant, of_user.key.user, of_user.key.is_in_force) == ("default", "una", True)
    assert of_tenant.secret not in repr(of_tenant)
    assert "una" not in repr(of_user)  # no digits of a hexadecimal id spell it


def test_any_other_text_is_of_no_key(store: MemoryStore) -> None:
    one, two = store.api_keys.new("acme"), store.api_keys.new("acme")
    head, tail = one.secret.rsplit("-", 1)[0], two.secret[-43:]
    last = "A" if one.secret[-1] != "A" else "B"
    for other in (
        "",
        "locas",
        one.key.key_id,
        one.secret[:-1],
        one.secret[:-1] + last,
        one.secret + "\n",
        one.secret.upper(),
        f" {one.secret}",
        f"{one.secret[:22]}-{tail}",  # the id of one, the random part of the other
        f"{head}-{'%' * 43}",
        "locas-" + "0" * 16 + "-" + "A" * 43,
        "\x00",
        "é" * 66,
    ):
        assert store.api_keys.holder(other) is None
    assert store.api_keys.holder(one.secret) == one.key


def test_revoked_key_is_refused_and_stays_in_the_list(store: MemoryStore) -> None:
    one, two = store.api_keys.new("acme"), store.api_keys.new("default", "ada")
    revoked = store.api_keys.revoke(one.key.key_id)
    assert not revoked.is_in_force
    assert store.api_keys.holder(one.secret) is None
    assert store.api_keys.holder(two.secret) == two.key
    assert by_id(store) == {revoked.key_id: revoked, two.key.key_id: two.key}
    assert store.api_keys.keys("acme") == [revoked]
    assert store.api_keys.keys("nobody") == []
    for key_id in (one.key.key_id, "0" * 16, "", one.secret):
        with pytest.raises(ApiKeyNotFound) as caught:
            store.api_keys.revoke(key_id)
        assert one.secret not in str(caught.value)


def test_key_of_an_erased_user_is_gone_and_others_are_not(store: MemoryStore) -> None:
    say(store, 1)
    say(store, 1, BEN)
    ada, ben, tenant = (store.api_keys.new(ADA.tenant, user) for user in (ADA.user, BEN.user, None))
    elsewhere = store.api_keys.new("elsewhere", ADA.user)
    store.erase(ADA)
    assert store.api_keys.holder(ada.secret) is None
    assert set(by_id(store)) == {one.key.key_id for one in (ben, tenant, elsewhere)}


@pytest.mark.parametrize(
    ("tenant", "user", "label"), [("", None, ""), (" ", "ada", ""), ("acme", "", ""), ("acme", None, "x" * 201)]
)
def test_key_of_nobody_is_not_made(store: MemoryStore, tenant: str, user: str | None, label: str) -> None:
    with pytest.raises(InvalidTurn):
        store.api_keys.new(tenant, user, label=label)
    assert store.api_keys.keys() == []
