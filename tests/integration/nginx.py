"""
The nginx configurations of the stand-in registries: their fronts, the CDN, and a region.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.integration.programs import Server, listens

#: The query with which the front signs a redirect; the CDN serves only requests with it. It
#: contains the digest, so that it is valid for one blob only. Its spelling (lower-case hexadecimal
#: digits, "~", an empty parameter, a trailing ";") is lost when it is parsed and reassembled.
SIGNED_QUERY = "Expires=4102444800&Sig=%2f~$digest%2B+=&&response-content-type=&Key=a%3ab;"

_LOG = {
    "connection": "$connection",
    "method": "$request_method",
    "uri": "$request_uri",
    "status": "$status",
    "host": "$http_host",
    "sni": "$ssl_server_name",
    "authorization": "$authorizationScheme",
    "credentials": "$http_authorization",
    "cookie": "$http_cookie",
    "forwardedFor": "$http_x_forwarded_for",
    "forwardedProto": "$http_x_forwarded_proto",
    "realIp": "$http_x_real_ip",
    "forwarded": "$http_forwarded",
    "via": "$http_via",
    "range": "$http_range",
    "userAgent": "$http_user_agent",
}

_FRAME = """
daemon off;
user root;
worker_processes 1;
pid %(folder)s/nginx.pid;
error_log %(folder)s/error.log;
events { worker_connections 512; }
http {
    map $http_authorization $authorizationScheme { "~^(?<kind>\\w+)" $kind; }
    log_format seen escape=json '%(fields)s';
    access_log %(folder)s/access.log seen;
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
    large_client_header_buffers 4 32k;
    server {
        listen 127.0.0.1:%(port)d ssl;
        ssl_certificate %(certificate)s;
        ssl_certificate_key %(certificate)s;
        location = /settled { access_log off; return 204; }
        %(server)s
    }
}
"""

_FRONT = """
        client_max_body_size 0;
        proxy_request_buffering off;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto https;
        proxy_redirect "~^(https://.*/(?<digest>[0-9a-f]{64})/data)$" "$1?%(query)s";
        location / {
            if (-f %(folder)s/unavailable) { return 503; }
            if (-f %(folder)s/abused) { return 429 "Too Many Requests"; }
            set $fault "";
            if (-f %(folder)s/limited) { set $fault limited; }
            set $fault "$fault:$authorizationScheme:$uri";
            if ($fault ~ "^limited:Bearer:.*/manifests/") {
                add_header Retry-After 30 always;
                return 429 '{"errors":[{"code":"TOOMANYREQUESTS","message":"limit reached"}]}';
            }
            default_type application/json;
            proxy_pass http://127.0.0.1:%(registryPort)d;
        }
"""

# docker-registry returns all tags at once.  Here they are in pages, with links like those of
# quay.io.
_PAGES = """
        location ~ "^/v2/(?<repository>.+)/tags/list$" {
            default_type application/json;
            set $page "$authorizationScheme:$arg_next_page";
            %(pages)s
            proxy_pass http://127.0.0.1:%(registryPort)d;
        }
"""
_PAGE = """
            if ($page = "Bearer:%(this)s") {
                add_header Link '</v2/$repository/tags/list?next_page=%(next)s&n=7>; rel="next"';
                return 200 '{"name":"$repository","tags":%(tags)s}';
            }
"""
_LAST_PAGE = """
            if ($page = "Bearer:%(this)s") {
                return 200 '{"name":"$repository","tags":%(tags)s}';
            }
"""

_REDIRECTING = """
        client_max_body_size 0;
        proxy_request_buffering off;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto https;
        location / { proxy_pass http://127.0.0.1:%(registryPort)d; }
        location ~ "^/v2/.+/(manifests/|blobs/sha256:)" {
            if ($request_method ~ "^(GET|HEAD)$") { return 307 %(region)s$request_uri; }
            proxy_pass http://127.0.0.1:%(registryPort)d;
        }
"""

_REGION = """
        location / {
            if ($http_authorization) { return 400; }
            if ($http_cookie) { return 400; }
            if ($request_method !~ "^(GET|HEAD)$") { return 405; }
            proxy_pass http://127.0.0.1:%(registryPort)d;
        }
"""

_CDN = """
        location ~ "^/docker/registry/v2/blobs/sha256/../(?<digest>[0-9a-f]{64})/data$" {
            if ($http_authorization) { return 400; }
            if ($http_cookie) { return 400; }
            if ($http_host != "%(name)s:%(port)d") { return 403; }
            if ($args != "%(query)s") { return 403; }
            root %(storage)s;
        }
        location / { return 403; }
"""


class Nginx:
    """
    One nginx, and the requests that it has received.

    @ivar server: the process; connections are refused when it is stopped.
    """

    def __init__(self, folder: Path, port: int, certificate: Path, server: str) -> None:
        folder.mkdir()
        self.folder = folder
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _FRAME
            % {
                "folder": folder,
                "fields": json.dumps(_LOG),
                "port": port,
                "certificate": certificate,
                "server": server,
            }
        )
        self._port = port
        self.log = Log(folder / "access.log", self._settle)
        self.server = Server(
            "nginx",
            ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(configuration)],
            folder,
            ready=lambda: listens(port),
        )

    def _settle(self) -> None:
        """
        Wait until everything that has happened is in the log: nginx logs a request shortly after
        its last byte, and its only worker handles one event after another.
        """
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=ssl._create_unverified_context(), timeout=10
        )
        with contextlib.suppress(ConnectionRefusedError):
            connection.request("GET", "/settled")
            connection.getresponse().read()
        connection.close()


class Front(Nginx):
    """
    The server in front of the registry, with switches.

    @cvar LIMITED: 429 in JSON for manifests, to requests with a token, as the Hub responds when the
        quota of pulls is used up.
    @cvar ABUSED: 429 as plain text for everything, as the Hub responds to an address with too many
        requests.
    @cvar UNAVAILABLE: 503 for everything.
    """

    LIMITED, ABUSED, UNAVAILABLE = "limited", "abused", "unavailable"

    def __init__(
        self,
        folder: Path,
        port: int,
        certificate: Path,
        registryPort: int,
        tags: Sequence[Sequence[str]] = (),
    ) -> None:
        """
        @param tags: the pages of tags of every repository; by default, the registry's own response.
        """
        values = {
            "folder": folder,
            "registryPort": registryPort,
            "query": SIGNED_QUERY,
            "pages": _pages(tags),
        }
        server = _FRONT + (_PAGES if tags else "")
        super().__init__(folder, port, certificate, server % values)

    def switchOn(self, fault: str) -> None:
        (self.folder / fault).touch()

    def switchOff(self, fault: str) -> None:
        (self.folder / fault).unlink()


def _pages(tags: Sequence[Sequence[str]]) -> str:
    links = ["", *(f"gAAAA{n}-_%3D%3D" for n in range(1, len(tags))), None]
    return "".join(
        (_PAGE if following else _LAST_PAGE)
        % {"this": this, "next": following, "tags": json.dumps(page)}
        for page, this, following in zip(tags, links, links[1:], strict=False)
    )


class RedirectingFront(Nginx):
    """
    The server in front of a registry whose manifests and blobs are elsewhere, like registry.k8s.io.

    @param region: the origin of the manifests and blobs.
    """

    def __init__(
        self, folder: Path, port: int, certificate: Path, registryPort: int, region: str
    ) -> None:
        values = {"registryPort": registryPort, "region": region}
        super().__init__(folder, port, certificate, _REDIRECTING % values)


class Region(Nginx):
    """
    The server of those manifests and blobs, which accepts requests only without credentials.
    """

    def __init__(self, folder: Path, port: int, certificate: Path, registryPort: int) -> None:
        super().__init__(folder, port, certificate, _REGION % {"registryPort": registryPort})


class Cdn(Nginx):
    """
    Serves the registry's storage to signed requests without a second credential.
    """

    def __init__(
        self, folder: Path, name: str, port: int, certificate: Path, storage: Path
    ) -> None:
        values = {"name": name, "port": port, "storage": storage, "query": SIGNED_QUERY}
        super().__init__(folder, port, certificate, _CDN % values)


class Log:
    """
    The requests in a server's log, one JSON object a line.

    @param settle: returns when everything that has happened is logged.
    """

    def __init__(self, path: Path, settle: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._settle = settle
        path.touch()

    def mark(self) -> int:
        """The present end of the log, for L{since}."""
        self._settle()
        return self._path.stat().st_size

    def since(self, mark: int) -> list[dict[str, str]]:
        """The requests after a mark."""
        self._settle()
        with self._path.open() as log:
            log.seek(mark)
            return [json.loads(line) for line in log]
