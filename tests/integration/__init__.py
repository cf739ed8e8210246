"""
hubmirror between real programs: docker-registry and nginx behind it, dockerd, containerd,
podman and skopeo in front of it.

Behind it are a stand-in of the Hub and two other registries, one with a token service of its own,
one that asks nobody who he is.  All of them are separate processes on loopback, so that a test may
block while a client pulls. They need root (mount namespaces, image stores) and programs from
Debian's packages. What is missing skips the tests; with ``HUBMIRROR_NO_SKIP=1`` in the environment
it fails them.
"""
