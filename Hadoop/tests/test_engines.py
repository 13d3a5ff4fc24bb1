"""Every engine, any split and any order: the same bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weather_rows import PARIS, assert_close, compute, expected, random_rows, row

from meteo_common.errors import UnreachableError
from meteo_common.settings import load_settings
from meteo_hadoop import observations, rows, rows_plain
from meteo_hadoop.bundle import pack
from meteo_hadoop.daily import daily_job
from meteo_hadoop.engines import YARN_FROM_BYTES, choose_engine
from meteo_hadoop.job import Job, gather, merge, reduce_groups
from meteo_hadoop.local import LocalEngine
from meteo_hadoop.source import FileVanishedError, Source
from meteo_hadoop.streaming import run_role

JOB = daily_job(PARIS, None)
SAMPLE = random_rows(seed=1, number=400)


def reference(lines: Sequence[bytes], job: Job = JOB) -> list[tuple[tuple[str, ...], bytes]]:
    return reduce_groups(job, gather(job, lines, lambda *_: None))


@dataclass(frozen=True)
class Memory:
    files: dict[str, bytes]
    chunk: int = 7

    def open(self, path: str) -> Iterator[bytes]:
        content = self.files[path]
        for first in range(0, len(content), self.chunk):
            yield content[first : first + self.chunk]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_split_and_any_order_give_the_same_bytes(number: int, mappers: int, chance: random.Random) -> None:
    lines = chance.choices(SAMPLE, k=number)
    shares: list[list[bytes]] = [[] for _ in range(mappers)]
    for line in lines:
        chance.choice(shares).append(line)
    records = []
    for share in shares:
        groups = gather(JOB, share, lambda *_: None)
        # Through text, as between processes; some of it combined once more, some of it sent twice.
        texts = [(key, JOB.encode(value)) for key, value in groups.items()]
        again = merge(JOB, [(key, JOB.decode(text)) for key, text in texts + texts[:2]])
        records += list(again.items())
    chance.shuffle(records)
    assert reduce_groups(JOB, merge(JOB, records)) == reference(sorted(lines))


def streamed(lines: list[bytes], mappers: int, combine: bool) -> tuple[bytes, dict[str, int]]:
    mapped: list[bytes] = []
    counters: dict[str, int] = {}
    for number in range(mappers):
        output: list[bytes] = []
        for name, value in run_role("mapper", JOB, lines[number::mappers], output.append).items():
            counters[name] = counters.get(name, 0) + value
        if combine:
            combined: list[bytes] = []
            run_role("combiner", JOB, [line[:-1] for line in sorted(output)], combined.append)
            output = combined
        mapped += output
    result: list[bytes] = []
    run_role("reducer", JOB, [line[:-1] for line in sorted(mapped)], result.append)
    return b"".join(result), counters


def as_text(result: list[tuple[tuple[str, ...], bytes]]) -> bytes:
    return b"".join("\t".join(key).encode() + b"\t" + line + b"\n" for key, line in result)


@pytest.mark.parametrize("mappers", [1, 3])
@pytest.mark.parametrize("combine", [False, True])
def test_the_roles_of_streaming_give_the_same_bytes(mappers: int, combine: bool) -> None:
    lines = [*SAMPLE, b"{", row("2026-11-20T10:00:00", collected_at="2026-11-20T10:00:00Z")]
    text, counters = streamed(lines, mappers, combine)
    assert text == as_text(reference(SAMPLE))
    assert counters == {"lines": len(lines), "bad_json": 1, "bad_time": 1}


def test_the_mapper_writes_its_winners_before_they_fill_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meteo_hadoop.streaming._HELD", 10)
    assert streamed(SAMPLE, 1, combine=False)[0] == as_text(reference(SAMPLE))


def pipe(command: list[str], environment: dict[str, str], content: bytes) -> tuple[bytes, bytes]:
    script = " | LC_ALL=C sort | ".join(f'"$@" {role}' for role in ("mapper", "reducer"))
    run = subprocess.run(["sh", "-c", script, "sh", *command], input=content, capture_output=True, env=environment)
    assert run.returncode == 0, run.stderr
    return run.stdout, run.stderr


def test_by_hand_with_sort() -> None:
    content = b"\n".join([*SAMPLE, b"nonsense"])
    role = f'{sys.executable} -m meteo_hadoop.streaming "$1" daily --zone {PARIS}'
    text, told = pipe(["sh", "-c", role, "sh"], dict(os.environ), content)
    assert text == as_text(reference(SAMPLE))
    assert sorted(told.splitlines()) == [
        b"reporter:counter:meteo,bad_json,1",
        f"reporter:counter:meteo,lines,{len(SAMPLE) + 1}".encode(),
    ]


@pytest.mark.parametrize("with_msgspec", [True, False])
def test_packed_for_a_node_with_nothing_but_python(tmp_path: Path, with_msgspec: bool) -> None:
    pack(daily_job(PARIS, {date(2026, 10, 25), date(2026, 10, 26)}), tmp_path / "job.zip")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", "job.zip", "job"], cwd=tmp_path, check=True)
    if not with_msgspec:
        for file in (tmp_path / "job/msgspec").glob("*.so"):
            file.unlink()
    # Isolated from this environment's packages and from the machine's time zones.
    content = b"\n".join(SAMPLE) + b"\n"
    text, _ = pipe([sys.executable, "-S", "-E", str(tmp_path / "job")], {"PATH": os.environ["PATH"]}, content)
    days = {"2026-10-25", "2026-10-26"}
    assert text == as_text([(key, line) for key, line in reference(SAMPLE) if key[0] in days])


def test_wrong_usage_by_hand_is_a_sentence() -> None:
    for arguments in (["mapper"], ["mapper", "weekly"], ["mapper", "daily"], ["sorter", "daily", "--zone", "UTC"]):
        run = subprocess.run(
            [sys.executable, "-m", "meteo_hadoop.streaming", *arguments], input=b"", capture_output=True, check=False
        )
        assert run.returncode == 1
        assert b"expected" in run.stderr
        assert b"Traceback" not in run.stderr


def test_both_decoders_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_daily import BAD

    lines = [line for line, _ in BAD] + SAMPLE
    with_msgspec = compute(lines)
    for name in ("ROW_ERRORS", "Row", "decode_row", "encode_row"):
        monkeypatch.setattr(observations, name, getattr(rows_plain, name))
    assert compute(lines, daily_job(PARIS, None)) == with_msgspec


def test_a_row_survives_either_encoder_and_either_decoder() -> None:
    for line in SAMPLE:
        for encoded in (rows.encode_row(rows.decode_row(line)), rows_plain.encode_row(rows_plain.decode_row(line))):
            assert rows.decode_row(encoded) == rows.decode_row(line)
            assert rows_plain.decode_row(encoded) == rows_plain.decode_row(line)
            assert b"\n" not in encoded
            assert b"\t" not in encoded


def test_instants_beyond_the_microsecond_are_rounded_alike() -> None:
    at = "2026-11-20T10:00:00"
    for fraction in (".1234564Z", ".1234565Z", ".9999995Z", ".5+01:30", ".123456789-00:30"):
        line = row("2026-11-20T10:00:00Z", collected_at=at + fraction)
        assert rows.decode_row(line).value.collected_at == rows_plain.decode_row(line).value.collected_at


def in_folders(lines: Sequence[bytes], folders: int, per_folder: int) -> dict[str, bytes]:
    files: dict[str, list[bytes]] = {}
    for number, line in enumerate(lines):
        folder, name = number % folders, number // folders % per_folder
        files.setdefault(f"/w/f{folder}/{name}", []).append(line)
    # Some files end with a newline, some without.
    return {path: b"\n".join(some) + b"\n" * (int(path[-1]) % 2) for path, some in files.items()}


@pytest.mark.parametrize("task_files", [1, 2, 100])
def test_local_where_folders_share_partitions(monkeypatch: pytest.MonkeyPatch, task_files: int) -> None:
    monkeypatch.setattr("meteo_hadoop.local.TASK_FILES", task_files)
    files = in_folders([*SAMPLE, b"nonsense"], folders=5, per_folder=3)
    result = LocalEngine(Memory(files)).run(JOB, list(files))
    assert result.lines == reference(SAMPLE)
    assert result.counters == {"lines": len(SAMPLE) + 1, "bad_json": 1}
    assert result.bad_lines == {"bad_json": 1}


def test_local_where_one_folder_is_too_large_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    files = in_folders(SAMPLE, folders=2, per_folder=4)
    # The other folder is small, and holds rows of the same partitions.
    engine = LocalEngine(Memory(files), processes=2, sizes={path: 1 << 28 for path in files if "/f0/" in path})
    assert [task.reduces for task in engine._tasks(JOB, list(files))] == [False] * 4 + [True]
    # The same tasks in this process.
    monkeypatch.setattr("meteo_hadoop.local.POOL_FROM_SECONDS", 1e9)
    assert engine.run(JOB, list(files)).lines == reference(SAMPLE)


def test_no_input_is_no_line() -> None:
    result = LocalEngine(Memory({})).run(JOB, [])
    assert (result.lines, result.counters, result.by_day()) == ([], {}, {})


def test_results_by_day() -> None:
    files = in_folders(SAMPLE, folders=1, per_folder=1)
    by_day = LocalEngine(Memory(files)).run(JOB, list(files)).by_day()
    assert list(by_day) == sorted(by_day)
    assert all(
        [station for station, _ in lines] == sorted(station for station, _ in lines) for lines in by_day.values()
    )


class WebHdfs(ThreadingHTTPServer):
    """Answers OPEN as a NameNode and a DataNode do: a redirect, then the file."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.cut = files, 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebHdfs

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        assert parse_qs(parts.query)["op"] == ["OPEN"]
        path = parts.path.removeprefix("/webhdfs/v1")
        content = self.server.files.get(path.removeprefix("/data"))
        if content is None:
            self.answer(404, b'{"RemoteException": {"exception": "FileNotFoundException", "message": "gone"}}')
        elif not path.startswith("/data"):
            self.send_response(307)
            self.send_header("Location", f"{self.server.url}/webhdfs/v1/data{path}?{parts.query}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.answer(200, content)

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - self.server.cut])
        if self.server.cut:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """The test says what matters."""


@pytest.fixture
def webhdfs() -> Iterator[WebHdfs]:
    server = WebHdfs(in_folders(SAMPLE, folders=6, per_folder=3))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_local_over_processes(webhdfs: WebHdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meteo_hadoop.local.POOL_FROM_SECONDS", 0.0)
    monkeypatch.setattr("meteo_hadoop.local.TASK_FILES", 3)
    read: list[int] = []
    engine = LocalEngine(Source(webhdfs.url, "hdfs"), processes=2, progress=read.append)
    assert engine.run(JOB, list(webhdfs.files)).lines == reference(SAMPLE)
    assert sum(read) == len(webhdfs.files)
    # What a worker raises arrives as it was raised.
    with pytest.raises(FileVanishedError, match="no longer in HDFS"):
        engine.run(JOB, [*webhdfs.files, "/w/none"])


def test_a_vanished_file_and_a_cut_one_are_errors(webhdfs: WebHdfs) -> None:
    engine = LocalEngine(Source(webhdfs.url, "hdfs"))
    with pytest.raises(FileVanishedError, match="/w/none is no longer in HDFS"):
        engine.run(JOB, ["/w/none", *webhdfs.files])
    webhdfs.cut = 10
    with pytest.raises(UnreachableError):
        engine.run(JOB, list(webhdfs.files))
    with pytest.raises(UnreachableError, match="broke off"):
        Source("http://127.0.0.1:1", "hdfs").read("/x")


def test_duckdb_agrees(tmp_path: Path) -> None:
    lines = random_rows(seed=7, number=3000)
    (tmp_path / "rows.json").write_bytes(b"\n".join(lines) + b"\n")
    found, _ = compute(lines)
    wanted = expected(lines)
    assert_close(found, wanted)
    found_by_duckdb = (
        duckdb.connect()
        .execute(f"""
        SET timezone = '{PARIS}';
        WITH read AS (SELECT date_time::TIMESTAMPTZ AS instant, * FROM read_json('{tmp_path}/rows.json', format = 'nd',
                columns = {{date_time: 'VARCHAR', partition: 'INT', msg_offset: 'BIGINT', topic_generation: 'INT',
                    value: 'STRUCT(station_id VARCHAR, collected_at VARCHAR, normaliser_version INT, observation STRUCT(
                        temperature_celsius DOUBLE, pressure_hpa DOUBLE, precipitation_1h_mm DOUBLE))'}})),
            winners AS (SELECT instant, value.station_id AS station, value.observation AS seen FROM read
                QUALIFY row_number() OVER (PARTITION BY value.station_id, instant ORDER BY
                    value.collected_at::TIMESTAMPTZ DESC, value.normaliser_version DESC,
                    coalesce(topic_generation, 1) DESC, partition DESC, msg_offset DESC) = 1),
            hours AS (SELECT station, epoch(instant)::BIGINT // 3600, instant::DATE AS day,
                    arg_max(seen.precipitation_1h_mm, instant) AS mm FROM winners
                WHERE seen.precipitation_1h_mm IS NOT NULL GROUP BY ALL)
        SELECT day::VARCHAR, station, count(*), fsum(seen.temperature_celsius) / count(seen.temperature_celsius),
            min(seen.temperature_celsius), avg(seen.pressure_hpa), any_value(rain)
        FROM (SELECT *, instant::DATE AS day FROM winners)
            LEFT JOIN (SELECT day, station, sum(mm) AS rain FROM hours GROUP BY ALL) USING (day, station)
        GROUP BY day, station ORDER BY day, station""")
        .fetchall()
    )
    names = ["date", "station_id", "observations", "temperature_avg_celsius", "temperature_min_celsius"]
    names += ["pressure_avg_hpa", "precipitation_1h_sum_mm"]
    assert [tuple(item[name] for name in names) for item in found] == [
        (*one[:3], *(pytest.approx(value, abs=1e-9) for value in one[3:])) for one in found_by_duckdb
    ]


def test_the_size_of_the_input_chooses_where_nobody_does() -> None:
    here = load_settings(hadoop_conf_dir=Path("conf"), hadoop_classpath_jars=Path("jars"))
    without_yarn = here.model_copy(update={"hadoop_conf_dir": None})
    year, large = 28_000_000, YARN_FROM_BYTES
    assert [choose_engine("auto", here, size) for size in (0, year, large - 1, large)] == [
        *("local", "local", "local", "yarn"),
    ]  # fmt: skip
    assert choose_engine("auto", without_yarn, large) == "local"
    assert [choose_engine(name, without_yarn, size) for name in ("local", "yarn") for size in (0, large)] == [
        *("local", "local", "yarn", "yarn"),
    ]  # fmt: skip
