"""
The reference for hits: nginx, one worker, ``proxy_cache`` keyed on target and body.

The rule: it is set up to be fast, not to be beaten: keep-alive on both sides, no access log, bodies in memory, the
cache on tmpfs, ``sendfile``. (``open_file_cache`` would give it about a tenth more; it isn't part of the bars.)
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from tests.bench.machine import SERVER_CORE, Process, tool

_CONFIG = """\
{user}
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log error;
events {{ worker_connections 1024; use epoll; multi_accept on; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    client_body_buffer_size 256k;
    client_max_body_size 64m;
    proxy_cache_path {home}/cache levels=1:2 keys_zone=answers:16m max_size=512m inactive=1h use_temp_path=off;
    upstream provider {{ server 127.0.0.1:{upstream}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache answers;
            proxy_cache_methods POST;
            proxy_cache_key "$request_uri|$request_body";
            proxy_cache_valid 200 1h;
            proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
        }}
    }}
}}
"""


def start(port: int, upstream: int, home: Path) -> Process:
    """Start nginx on *port*, its files in *home*, which should be on tmpfs."""
    program = tool("nginx")
    assert program is not None
    home.mkdir()
    # as root, workers would run as nobody, who cannot look into our folder
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    config = home / "nginx.conf"
    config.write_text(_CONFIG.format(user=user, home=home, port=port, upstream=upstream))
    argv = [program, "-p", str(home), "-e", str(home / "error.log"), "-c", str(config)]
    process = Process("nginx", argv, core=SERVER_CORE, log=home / "output.log")
    process.await_port(port)
    return process
