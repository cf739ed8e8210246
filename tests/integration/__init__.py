"""
Tests of hubmirror between real programs: docker-registry and nginx as upstreams, and dockerd,
containerd, podman and skopeo as clients.

The upstreams are a stand-in of the Hub and two other registries, one with a token service of its
own, and one without authentication.  All of them are separate processes on loopback, so that a test
may block while a client pulls.  The tests need root (for mount namespaces and image stores) and
programs from Debian's packages.  They are skipped when something is missing; with
``HUBMIRROR_NO_SKIP=1`` in the environment they fail instead.
"""
