"""
The contents of a registry: repositories, users, and the users' permissions.
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
    One repository.

    @ivar blobs: the blobs, by digest.
    @ivar manifests: the manifests, by digest.
    @ivar tags: the digests of manifests, by tag.
    """

    blobs: dict[str, Blob] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def addImage(self, image: Image) -> None:
        """
        Add an image with its config and layers, but without a tag.
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
    A user of a registry.

    @ivar push: patterns (as in L{fnmatch}) of the repositories that the user may push to.
    @ivar pull: patterns of the private repositories that the user may pull from.
    """

    name: str
    password: str = field(repr=False)
    push: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()


@dataclass
class Contents:
    """
    The contents that all services of one registry share.

    @ivar private: patterns of the repositories that are hidden from anonymous clients.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)

    def repository(self, name: str) -> Repository:
        """
        The repository of this name, which is created when it does not exist.
        """
        return self.repositories.setdefault(name, Repository())

    def blob(self, digest: str) -> Blob | None:
        """
        Find a blob in any repository, because object storage has no repositories.
        """
        found = (repository.blobs.get(digest) for repository in self.repositories.values())
        return next((blob for blob in found if blob is not None), None)

    def allowed(self, user: User | None, name: str) -> frozenset[str]:
        """
        The actions that a user may take on a repository.

        @param user: the user; L{None} for anonymous clients.
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
        The user with this name and password; L{None} when there is none.
        """
        user = self.users.get(name)
        return user if user is not None and user.password == password else None

    def isPrivate(self, name: str) -> bool:
        """
        Whether a repository is hidden from anonymous clients.
        """
        return _matches(name, self.private)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
