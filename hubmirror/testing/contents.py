"""
What a registry holds: repositories, users, and who may do what.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from hubmirror.testing.blobs import Blob
from hubmirror.testing.images import Image, Manifest

PULL = frozenset({"pull"})
PUSH = frozenset({"pull", "push"})


@dataclass
class Repository:
    """
    The blobs, manifests (by digest) and tags of one name.
    """

    blobs: dict[str, Blob] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def addImage(self, image: Image) -> None:
        """
        Take in an image with all that it names, under no tag.
        """
        for blob in (image.config, *image.layers):
            self.blobs[blob.digest] = blob
        self.manifests[image.digest] = image.manifest

    def find(self, reference: str) -> Manifest | None:
        """
        The manifest of a tag or a digest.
        """
        return self.manifests.get(self.tags.get(reference, reference))


@dataclass(frozen=True)
class User:
    """
    Somebody with a password, and patterns (as in L{fnmatch}) of repositories.
    """

    name: str
    password: str = field(repr=False)
    push: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()


@dataclass
class Contents:
    """
    Everything that the services of one registry share.

    @ivar private: patterns of repositories that nobody sees without a user's token.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)

    def repository(self, name: str) -> Repository:
        """
        The repository of this name; a new one when there is none.
        """
        return self.repositories.setdefault(name, Repository())

    def blob(self, digest: str) -> Blob | None:
        """
        A blob of any repository: object storage knows no repositories.
        """
        found = (repository.blobs.get(digest) for repository in self.repositories.values())
        return next((blob for blob in found if blob is not None), None)

    def allowed(self, user: User | None, name: str) -> frozenset[str]:
        """
        The actions that a user, or anybody (L{None}), may take on a repository.
        """
        if user is not None and _matches(name, user.push):
            return PUSH
        if user is not None and _matches(name, user.pull):
            return PULL
        if name in self.repositories and not self.isPrivate(name):
            return PULL
        return frozenset()

    def login(self, name: str, password: str) -> User | None:
        """
        The user with this password; L{None} for nobody.
        """
        user = self.users.get(name)
        return user if user is not None and user.password == password else None

    def isPrivate(self, name: str) -> bool:
        """
        Whether a repository is hidden from the public.
        """
        return _matches(name, self.private)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
