# SPDX-License-Identifier: Apache-2.0
"""Session CHAP: what iscsid is given, and what is never given to anybody."""

from __future__ import annotations

import pytest

from fake.host import FakeHost, until
from fake.iscsid import LOGIN, Action, Answer, Default, Request
from fake.library import Chap, Failure

CHAP = Chap("user", b"a secret of some length")
MUTUAL = Chap("user", b"a secret of some length", "target", b"another secret", (7, 5))


def test_goes_to_every_portal(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(3), chap=CHAP).finish()
    logins = [request.fields for request in host.iscsid.of(LOGIN)]
    assert len(logins) == 3
    for fields in logins:
        assert fields is not None
        assert fields["auth_method"] == 1
        assert (fields["username"], fields["password"]) == ("user", CHAP.password)
        assert (fields["username_in"], fields["password_in"]) == ("", b"")
        assert fields["chap_algs"] == [5, -1, -1, -1, -1]


def test_mutual(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(1), chap=MUTUAL).finish()
    fields = host.iscsid.of(LOGIN)[0].fields
    assert fields is not None
    assert (fields["username_in"], fields["password_in"]) == ("target", b"another secret")
    assert fields["chap_algs"] == [7, 5, -1, -1, -1]


def test_none(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(1)).finish()
    fields = host.iscsid.of(LOGIN)[0].fields
    assert fields is not None
    assert (fields["auth_method"], fields["username"], fields["password"]) == (0, "", b"")


def test_wrong(host: FakeHost) -> None:
    host.export()
    host.iscsid.handlers[LOGIN] = lambda _: Answer(error=24)
    error = host.handle.attach(host.targets(2), chap=CHAP).failure()
    assert (error.code, error.iscsid_code) == ("AUTH", 24)
    shown = [error.message, *(path.error.message for path in error.paths), *host.handle.log]
    assert not [text for text in shown if "of some length" in text]
    assert host.clean


def test_wrong_for_one_right_for_another(host: FakeHost) -> None:
    """Two callers want one session, with different credentials: the right ones get it."""
    host.export(lun=1)
    host.export(lun=2)

    def judge(request: Request) -> Action:
        assert request.fields is not None
        wrong = request.fields["password"] != CHAP.password
        return Answer(error=24, delay=0.3) if wrong else Default()

    host.iscsid.handlers[LOGIN] = judge
    wrong = host.handle.attach(host.targets(1, lun=1), chap=Chap("user", b"not the secret"))
    assert until(lambda: host.logins == 1)
    right = host.handle.attach(host.targets(1, lun=2), chap=CHAP)
    assert wrong.failure().code == "AUTH"
    assert right.finish().path_count == 1
    assert host.logins == 2


@pytest.mark.parametrize(
    ("chap", "names"),
    [
        (Chap("", b"secret"), "username"),
        (Chap("u" * 256, b"secret"), "username"),
        (Chap("user", b""), "password"),
        (Chap("user", b"secret" * 50), "password"),
        (Chap("user", b"secret", None, b"secret in"), "username_in"),
        (Chap("user", b"secret", "target", None), "password_in"),
        (Chap("user", b"secret", "target", b""), "password_in"),
        (Chap("user", b"secret", "target", b"secret in" * 40), "password_in"),
        (Chap("user", b"secret", "target", b"secret"), "password_in must differ"),
        (Chap("user", b"secret", algorithms=(9,)), "algorithm 9"),
        (Chap("user", b"secret", algorithms=(5, 5)), "algorithm 5"),
    ],
)
def test_traps(host: FakeHost, chap: Chap, names: str) -> None:
    """Refused before anything is sent, without a word about what the secret is."""
    host.export()
    with pytest.raises(Failure, match=names) as caught:
        host.handle.attach(host.targets(1), chap=chap)
    assert caught.value.code == "INVALID"
    assert "secret" not in caught.value.message
    assert not host.iscsid.requests


def test_the_target_cannot_prove_itself(host: FakeHost) -> None:
    """iscsid has no word of its own for it."""
    host.export()
    host.iscsid.handlers[LOGIN] = lambda _: Answer(error=19)
    assert host.handle.attach(host.targets(1), chap=MUTUAL).failure().code == "AUTH"
    error = host.handle.attach(host.targets(1), chap=CHAP).failure()
    assert (error.code, error.iscsid_code) == ("LOGIN_REJECTED", 19)
