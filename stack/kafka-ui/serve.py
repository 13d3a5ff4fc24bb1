"""kaskade in a browser: topics and groups at /, the messages of one topic at /messages."""

from __future__ import annotations

import asyncio
import ipaddress
import shlex
import sys
from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote, urlsplit

import textual_serve
from aiohttp import web
from confluent_kafka import Consumer, KafkaException, TopicPartition
from textual_serve.server import Server

KASKADE = Path(sys.executable).with_name("kaskade")
STATIC = Path(textual_serve.__file__).with_name("static")
PAGE = Template(Path(__file__).with_name("page.html").read_text("utf-8"))
POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self' ws:; frame-ancestors 'none'"
SECONDS = 10
NEWEST = 25
"""What kaskade shows before it is asked for more."""


@web.middleware
async def refuse_other_sites(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Kafka asks for no password: a site that the same browser has open must not speak to it through this server."""
    host = urlsplit(f"//{request.host}")
    try:
        ipaddress.ip_address(host.hostname or "")
    except ValueError:
        if host.hostname != "localhost":  # a name may be made to mean this machine
            raise web.HTTPForbidden(text="Open this page as localhost or by an IP address.") from None
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise web.HTTPForbidden(text="This server answers its own page only.")
    return await handler(request)


class Interface:
    """The pages, and one process of kaskade for each that is open."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    def application(self) -> web.Application:
        application = web.Application(middlewares=[refuse_other_sites])
        application.add_routes(
            [
                web.get("/", self.topics),
                web.get("/messages", self.messages),
                web.get("/healthz", self.healthz),
                web.get("/sessions/topics", self.show_topics),
                web.get("/sessions/messages/{topic}", self.show_messages),
                web.get("/download/{key}", self.download),
                web.static("/static", STATIC),
            ]
        )
        self.server = Server(f"{KASKADE} admin -b {shlex.quote(self.bootstrap_servers)}")
        return application

    async def healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def topics(self, request: web.Request) -> web.Response:
        return await self.page(request, "/sessions/topics")

    async def messages(self, request: web.Request) -> web.Response:
        return await self.page(request, f"/sessions/messages/{quote(request.query.get('topic', ''), safe='')}")

    async def page(self, request: web.Request, session: str) -> web.Response:
        names = await self.names()
        chosen = request.query.get("topic")
        if chosen is not None and chosen not in names:
            raise web.HTTPNotFound(text=f"There is no such topic; there are {', '.join(names)}.")
        options = "".join(f"<option{' selected' * (name == chosen)}>{escape(name)}</option>" for name in names)
        text = PAGE.substitute(session=escape(f"ws://{request.host}{session}"), options=options)
        policy = (
            "default-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self' ws:; frame-ancestors 'none'"
        )
        return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def names(self) -> list[str]:
        def ask() -> list[str]:
            with self.consumer() as consumer:
                # All of them: to ask for one may create it. Kafka's own, such as __consumer_offsets, come last.
                return sorted(consumer.list_topics(timeout=SECONDS).topics, key=lambda name: (name[:2] == "__", name))

        return await self.answer(ask)

    async def newest(self, topic: str) -> list[str]:
        """Return where to begin so that each partition shows its newest messages."""

        def ask() -> list[str]:
            with self.consumer() as consumer:
                partitions, begin = consumer.list_topics(timeout=SECONDS).topics[topic].partitions, []
                share = max(1, NEWEST // len(partitions))
                for number in partitions:
                    low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=SECONDS)
                    begin.append(f"--partition={number}:{max(low, high - share)}")
                return begin

        return await self.answer(ask)

    def consumer(self) -> Consumer:
        return Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "kafka-ui", "log_level": 2})

    async def answer(self, ask: Callable[[], list[str]]) -> list[str]:
        try:
            return await asyncio.to_thread(ask)
        except KafkaException:
            text = f"Kafka at {self.bootstrap_servers} cannot be reached; ./meteo status tells more."
            raise web.HTTPServiceUnavailable(text=text) from None

    async def show_topics(self, request: web.Request) -> web.StreamResponse:
        return await self.server.handle_websocket(request)

    async def show_messages(self, request: web.Request) -> web.StreamResponse:
        topic = request.match_info["topic"]
        if topic not in await self.names():
            raise web.HTTPNotFound
        command = [KASKADE, "consumer", "-b", self.bootstrap_servers, "-t", topic, "-k", "string", "-v", "json"]
        server = Server(shlex.join(map(str, [*command, *await self.newest(topic)])))
        server.download_manager = self.server.download_manager
        return await server.handle_websocket(request)

    async def download(self, request: web.Request) -> web.StreamResponse:
        return await self.server.handle_download(request)


def main() -> None:
    bootstrap_servers, host, port = sys.argv[1:]
    # An open page would hold the end up for a minute.
    web.run_app(
        Interface(bootstrap_servers).application(),
        host=host,
        port=int(port),
        shutdown_timeout=2,
        access_log=None,
        print=None,
    )


if __name__ == "__main__":
    main()
