"""The servers' own tools, as plain data: what each is and needs, apart from how a runtime runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meteo_common.errors import UsageError

_JAVA = ("{JAVA_HOME}/bin/java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_KAFKA = (*_JAVA, "-cp", "{KAFKA_CLASSPATH_JARS}/*")
_HADOOP = (
    *(*_JAVA, "--add-opens=java.base/java.lang=ALL-UNNAMED", "-Dhadoop.root.logger=WARN,console"),
    *("-cp", "{HADOOP_CONF_DIR}:{HADOOP_CLASSPATH_JARS}/*"),
)
_HBASE = (
    *(*_JAVA, "--add-opens=java.base/java.nio=ALL-UNNAMED", "-Dhbase.root.logger=ERROR,console"),
    *("-cp", "{HBASE_CONF_DIR}:{HBASE_CLASSPATH_JARS}/*"),
)
_AS_WRITER = {"HADOOP_USER_NAME": "{HDFS_USER}"}
DEPLOYED = (
    *("JAVA_HOME", "POSTGRES_BIN", "KAFKA_CLASSPATH_JARS", "HADOOP_CONF_DIR", "HADOOP_CLASSPATH_JARS"),
    *("HBASE_CONF_DIR", "HBASE_CLASSPATH_JARS"),
)
"""What only the deployment knows: a shell's own JAVA_HOME may be too old. PYTHON is the platform's."""


@dataclass(frozen=True)
class Tool:
    """A tool as it is in every runtime: {NAME} is a setting, or one of DEPLOYED.

    `server`: whose programs it is one of; None = the platform's own. `given`: an option with its value, unless the user
    gives it another. `commands`: what each first argument stands for; `own`: those that run as the servers' own user,
    without `env`.
    """

    name: str
    server: str | None
    about: str
    argv: tuple[str, ...]
    given: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def command(self, arguments: Sequence[str], values: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Return command line and environment of a call; `values`: what stands for each {NAME} where it will run."""
        argv = [word.format_map(values) for word in self.argv]
        env = {name: value.format_map(values) for name, value in self.env.items()}
        rest = list(arguments)
        if self.commands:
            command = rest.pop(0) if rest else ""
            argv += self._meant(command)
            if command in self.own:
                env = {}
        if self.given and not any(word.partition("=")[0] == self.given[0] for word in rest):
            argv += [word.format_map(values) for word in self.given]
        return [*argv, *rest], env

    def _meant(self, command: str) -> tuple[str, ...]:
        if "." in command:  # a class, as the tools' own scripts take it
            return (command,)
        try:
            return self.commands[command]
        except KeyError:
            wrong = f"has no command '{command}'" if command else "needs a command"
            raise UsageError(f"{self.name} {wrong}: {', '.join(self.commands)}, or a Java class.") from None


def _kafka(name: str, main: str, about: str) -> Tool:
    return Tool(name, "kafka", about, (*_KAFKA, main), given=("--bootstrap-server", "{BOOTSTRAP_SERVERS}"))


_HDFS_COMMANDS = {
    "dfs": "org.apache.hadoop.fs.FsShell",
    "balancer": "org.apache.hadoop.hdfs.server.balancer.Balancer",
    "debug": "org.apache.hadoop.hdfs.tools.DebugAdmin",
    "dfsadmin": "org.apache.hadoop.hdfs.tools.DFSAdmin",
    "fsck": "org.apache.hadoop.hdfs.tools.DFSck",
    "getconf": "org.apache.hadoop.hdfs.tools.GetConf",
    "lsSnapshottableDir": "org.apache.hadoop.hdfs.tools.snapshot.LsSnapshottableDir",
    "oev": "org.apache.hadoop.hdfs.tools.offlineEditsViewer.OfflineEditsViewer",
    "oiv": "org.apache.hadoop.hdfs.tools.offlineImageViewer.OfflineImageViewerPB",
    "snapshotDiff": "org.apache.hadoop.hdfs.tools.snapshot.SnapshotDiff",
    "storagepolicies": "org.apache.hadoop.hdfs.tools.StoragePolicyAdmin",
    "version": "org.apache.hadoop.util.VersionInfo",
}
_YARN_CLIENT = "org.apache.hadoop.yarn.client.cli."
_HBASE_COMMANDS = {
    "hbck": "org.apache.hadoop.hbase.util.HBaseFsck",
    "hfile": "org.apache.hadoop.hbase.io.hfile.HFilePrettyPrinter",
    "wal": "org.apache.hadoop.hbase.wal.WALPrettyPrinter",
    "zkcli": "org.apache.hadoop.hbase.zookeeper.ZKMainServer",
    "version": "org.apache.hadoop.hbase.util.VersionInfo",
}

_ALL = (
    Tool("psql", "postgres", "SQL, as the platform's user in its database", ("{POSTGRES_BIN}/psql",)),
    Tool("pg_dump", "postgres", "a copy of the platform's database", ("{POSTGRES_BIN}/pg_dump",)),
    Tool("pg_restore", "postgres", "puts such a copy into a database, or shows it", ("{POSTGRES_BIN}/pg_restore",)),
    _kafka("kafka-topics", "org.apache.kafka.tools.TopicCommand", "list, describe, create, alter, delete topics"),
    _kafka(
        "kafka-consumer-groups",
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "groups, their members and how far they are",
    ),
    _kafka("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell", "where each partition begins and ends"),
    _kafka("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer", "show records"),
    _kafka("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer", "send lines of the input as records"),
    _kafka("kafka-configs", "kafka.admin.ConfigCommand", "settings of topics and of the broker"),
    _kafka("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand", "delete records below an offset"),
    Tool(
        "hdfs",
        "namenode",
        "dfs as the platform's writer, HDFS_USER; dfsadmin, fsck and others as HDFS's superuser",
        _HADOOP,
        env=_AS_WRITER,
        commands={name: (main,) for name, main in _HDFS_COMMANDS.items()},
        own=frozenset(_HDFS_COMMANDS) - {"dfs"},
    ),
    Tool(
        "yarn",
        "resourcemanager",
        "applications, nodes, queues, logs",
        _HADOOP,
        env=_AS_WRITER,
        commands={
            # One class for three, which wants to hear which one was meant.
            **{
                name: (f"{_YARN_CLIENT}ApplicationCLI", name)
                for name in ("application", "applicationattempt", "container")
            },
            **{
                name: (f"{_YARN_CLIENT}{name.capitalize()}CLI",) for name in ("cluster", "logs", "node", "queue", "top")
            },
            "rmadmin": (f"{_YARN_CLIENT}RMAdminCLI",),
            "version": ("org.apache.hadoop.util.VersionInfo",),
        },
    ),
    Tool(
        "hbase",
        "hbase-master",
        "hbck, hfile, wal, zkcli; its shell is not among the jars: python and ./meteo query read tables",
        _HBASE,
        commands={name: (main,) for name, main in _HBASE_COMMANDS.items()},
    ),
    Tool("python", None, "the platform's Python with its packages; the settings are in the environment", ("{PYTHON}",)),
)
TOOLS = {tool.name: tool for tool in _ALL}
