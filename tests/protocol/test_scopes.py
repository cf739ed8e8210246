"""
Tests of the scopes of token requests and challenges: only names of repositories change.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.scopes import changeForm, changeScopes, namesIn


def complete(name: bytes) -> bytes | None:
    """Complete names without a slash, and remove those of C{other}."""
    if name.startswith(b"other/"):
        return None
    return name if b"/" in name else b"library/" + name


class ScopesTests(SynchronousTestCase):
    def test_scopes(self) -> None:
        for scopes, changed in (
            (b"repository:a:pull", b"repository:library/a:pull"),
            (b"repository:o/a:pull,push", b"repository:o/a:pull,push"),
            (b"repository(plugin):a:pull", b"repository(plugin):library/a:pull"),
            (b"repository:localhost:5000/a:pull", b"repository:localhost:5000/a:pull"),
            (
                b"repository:a:pull repository:b:pull",
                b"repository:library/a:pull repository:library/b:pull",
            ),
            (b"repository:a:pull repository:library/a:pull", b"repository:library/a:pull"),
            (b"repository:other/a:pull repository:b/c:pull", b"repository:b/c:pull"),
            (b"registry:catalog:*", b"registry:catalog:*"),
            (b"a", b"a"),
            (b"", b""),
        ):
            self.assertEqual(changeScopes(scopes, complete), changed)

    def test_form(self) -> None:
        for form, changed in (
            (
                b"service=x&scope=repository%3Aa%3Apull&account=y",
                b"service=x&scope=repository:library/a:pull&account=y",
            ),
            (
                b"scope=repository:a:pull&scope=repository:b:push",
                b"scope=repository:library/a:pull&scope=repository:library/b:push",
            ),
            (
                b"scope=repository:a:pull+repository:b:pull",
                b"scope=repository:library/a:pull%20repository:library/b:pull",
            ),
            # containerd joins its own scope and the challenge's.
            (
                b"scope=repository:a:pull&scope=repository:library/a:pull",
                b"scope=repository:library/a:pull",
            ),
            (b"scope=repository:other/a:pull&x", b"x"),
            # What does not change stays byte for byte.
            (b"scope=repository%3ao%2Fa:pull&&=&scope", b"scope=repository%3ao%2Fa:pull&&=&scope"),
            (b"a=scope=repository:a:pull", b"a=scope=repository:a:pull"),
            (b"", b""),
        ):
            self.assertEqual(changeForm(form, complete), changed)

    def test_names(self) -> None:
        form = b"a=b&scope=repository%3Aa%2Fb%3Apull+registry:catalog:*&scope=repository:c:pull"
        self.assertEqual(namesIn(form), [b"a/b", b"c"])

    @given(st.binary())
    def test_anything(self, form: bytes) -> None:
        """Scopes that are not for repositories stay."""
        if b"repository" not in form and form.count(b"scope=") < 2:
            self.assertEqual(changeForm(form, complete), form)
        changeForm(form, complete)
