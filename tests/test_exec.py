"""`./meteo exec` on real servers: each tool does its work, its input, output, exit code and process are its own."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
import tiers
from dotenv import dotenv_values

from conftest import METEO, Tenant, TenantMaker
from meteo_cli.execute import as_process
from meteo_cli.tools import TOOLS
from meteo_common.settings import stack_directory


@pytest.fixture(scope="module")
def tenant(make_tenant: TenantMaker) -> Tenant:
    """One for all: each test leaves the others' things alone."""
    return make_tenant()


def run(
    tenant: Tenant, *arguments: str, given: str = "", extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [METEO, "exec", *arguments],
        env={**tenant.environment, **(extra or {})},
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(tenant: Tenant, *arguments: str, given: str = "") -> str:
    ran = run(tenant, *arguments, given=given)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.strip()


def test_psql_is_the_platforms_user_in_its_database(tenant: Tenant) -> None:
    name = tenant.settings.topic_name
    assert said(tenant, "psql", "-At", given="SELECT current_user, current_database()") == f"meteo|{name}"
    wrong = run(tenant, "psql", "-c", "SELEC")
    assert wrong.returncode == 1
    assert "syntax error" in wrong.stderr
    assert run(tenant, "psql", "-v", "ON_ERROR_STOP=1", given="SELEC").returncode == 3


def test_what_is_sent_to_kafka_comes_back(tenant: Tenant) -> None:
    topic = ("--topic", tenant.settings.topic_name)
    said(tenant, "kafka-console-producer", *topic, given="{braces} stay\n")
    consumer = ("kafka-console-consumer", *topic, "--from-beginning", "--max-messages", "1")
    # An address that the user gives is not given twice, which the tools refuse.
    assert said(tenant, *consumer, "--bootstrap-server", tenant.settings.bootstrap_servers) == "{braces} stay"
    offsets = [line.rpartition(":")[2] for line in said(tenant, "kafka-get-offsets", *topic).splitlines()]
    assert sorted(offsets) == ["0", "0", "1"]
    said(tenant, "kafka-configs", "--alter", *topic, "--add-config", "retention.ms=1000000")
    assert "retention.ms=1000000" in said(tenant, "kafka-topics", "--describe", *topic)
    assert "console-consumer" in said(tenant, "kafka-consumer-groups", "--list")


def test_hdfs_is_written_as_the_writer_and_administered_as_the_superuser(tenant: Tenant) -> None:
    path = f"{tenant.settings.hdfs_base_path}.txt"
    said(tenant, "hdfs", "dfs", "-put", "-", path, given="kept\n")
    assert said(tenant, "hdfs", "dfs", "-cat", path) == "kept"
    assert said(tenant, "hdfs", "dfs", "-stat", "%u", path) == tenant.settings.hdfs_user
    assert run(tenant, "hdfs", "dfs", "-test", "-e", f"{path}.not").returncode == 1
    assert (
        "Permission denied: user=dr.who"
        in run(tenant, "hdfs", "dfs", "-rm", path, extra={"HADOOP_USER_NAME": "dr.who"}).stderr
    )
    assert "Live datanodes (1)" in said(tenant, "hdfs", "dfsadmin", "-report")


def test_yarn_and_hbase_answer(tenant: Tenant) -> None:
    assert "Total Nodes:1" in said(tenant, "yarn", "node", "-list")
    assert "Total number of applications" in said(tenant, "yarn", "application", "-list")
    assert "meta-region-server" in said(tenant, "hbase", "zkcli", "ls", "/hbase")


def test_python_has_the_settings_and_takes_every_argument(tenant: Tenant) -> None:
    script = 'import os, sys; print(os.environ["TOPIC_NAME"], os.environ["HDFS_USER"], *sys.argv[1:])'
    expected = f"{tenant.settings.topic_name} hdfs --help -h -- x"
    assert said(tenant, "python", "-c", script, "--help", "-h", "--", "x") == expected
    assert said(tenant, "python", "-", given="print(6 * 7)") == "42"
    assert run(tenant, "python", "-c", "raise SystemExit(7)").returncode == 7


def test_the_tool_takes_the_place_of_the_command(tenant: Tenant) -> None:
    command = [METEO, "exec", "python", "-c", "import os; print(os.getpid(), os.getuid())"]
    process = subprocess.Popen(command, env=tenant.environment, stdout=subprocess.PIPE, text=True)
    stdout, _ = process.communicate(timeout=60)
    owner = Path(METEO).stat().st_uid
    assert stdout.split() == [str(process.pid), str(owner)]


def test_no_password_is_an_argument(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tenant.environment.items():
        monkeypatch.setenv(name, value)
    password = tenant.settings.database_url.get_secret_value().split(":")[2].partition("@")[0]
    assert len(password) == 32
    for tool in TOOLS.values():
        argv, environment = as_process(tool, [next(iter(tool.commands), "--help")])
        assert environment["PGPASSWORD"] == password
        assert not any(password in word for word in argv), tool.name


def test_every_class_is_in_the_jars(stack: Path) -> None:
    deployed = dotenv_values(stack / "settings.env")
    for tool in TOOLS.values():
        wanted = {words[0] for words in tool.commands.values()} or {word for word in tool.argv[-1:] if "." in word}
        jars = next((str(deployed[name]) for name in deployed if f"{{{name}}}/*" in " ".join(tool.argv)), None)
        if jars is None:
            assert tool.name in {"psql", "pg_dump", "pg_restore", "python"}
            continue
        assert wanted
        for jar in Path(jars).glob("*.jar"):
            with zipfile.ZipFile(jar) as content:
                names = set(content.namelist())
            wanted = {name for name in wanted if f"{name.replace('.', '/')}.class" not in names}
        assert wanted == set(), tool.name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("hdfs",), "hdfs needs a command: dfs, "),
        (("hbase", "shell"), "hbase has no command 'shell': hbck, "),
    ],
)
def test_a_command_that_a_tool_does_not_have_is_one_sentence(
    tenant: Tenant, arguments: tuple[str, ...], says: str
) -> None:
    assert says in tiers.sentence(run(tenant, *arguments), 2)


def test_a_server_that_is_not_there_is_one_sentence(tenant: Tenant, tmp_path: Path) -> None:
    """A stack whose description is that of the session's, but for an address where nothing listens."""
    original = stack_directory()
    copy = tmp_path / "stacks" / original.name
    copy.mkdir(parents=True)
    description = (original / "stack.json").read_text("utf-8")
    port = tenant.settings.bootstrap_servers.rpartition(":")[2]
    (copy / "stack.json").write_text(description.replace(f'"tcp": {port}', '"tcp": 1'), "utf-8")
    (copy / "settings.env").write_text((original / "settings.env").read_text("utf-8"), "utf-8")
    away = run(tenant, "kafka-topics", "--list", extra={"METEO_HOME": str(tmp_path)})
    assert "kafka does not answer; ./meteo logs kafka" in tiers.sentence(away, 3)
    settings = (copy / "settings.env").read_text("utf-8").replace("POSTGRES_BIN", "OTHER")
    (copy / "settings.env").write_text(settings, "utf-8")
    old = run(tenant, "psql", extra={"METEO_HOME": str(tmp_path)})
    assert "a version that did not note POSTGRES_BIN; run ./meteo up." in tiers.sentence(old, 2)
