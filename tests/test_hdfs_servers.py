"""A DataNode that goes, dies or is full: told in a sentence, nothing lost, and the next command finishes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiers
from between import hdfs_proxy
from exporting import Work, told
from servers import Servers

from conftest import Tenant
from meteo_common.errors import TransientError
from meteo_hadoop.webhdfs import FileSystem


def tenant_of(servers: Servers) -> Tenant:
    """Return a tenant of these servers, which have no HBase."""
    tenant = servers.tenant()
    return replace(tenant, settings=tenant.settings.model_copy(update={"hbase_enabled": False}))


@pytest.fixture(scope="module")
def work(servers: Servers) -> Work:
    """A tenant with a slice in HDFS."""
    work = Work(tenant_of(servers))
    work.give()
    tiers.export(work.tenant)
    return work


def says(tenant: Tenant, *command: str) -> str:
    """Return the sentence with which a command tells that a server is away."""
    return tiers.sentence(tiers.run(tenant, *command), 3)


def finishes(work: Work) -> None:
    """Fail unless the next exports come to an end, as soon as the DataNode is back."""
    tiers.eventually("an export that ends well", lambda: told(work.tenant) is None, 60, 0.5)
    work.assert_whole()


def test_without_the_datanode_each_command_says_so_and_the_next_one_finishes(work: Work, servers: Servers) -> None:
    work.give()
    with servers.without("datanode"):
        # The NameNode does not know yet, and sends us to it.
        said = str(told(work.tenant))
        assert said.startswith("The DataNode at 127.0.0.1:"), said
        assert said.endswith("is the stack up? (./meteo up)") or "broke off reading" in said
        tiers.eventually("the NameNode's notice", lambda: "No DataNode that holds" in str(told(work.tenant)), 60, 1)
        for command in (("export",), ("export", "--compact"), ("aggregate",), ("reconcile",)):
            said = says(work.tenant, *command)
            assert said.startswith("No DataNode that holds /user/hdfs/")
            assert said.endswith(" is up; start it, ./meteo status shows the servers.")
        nothing_yet = Work(tenant_of(servers))
        nothing_yet.give()
        said = str(told(nothing_yet.tenant))
        assert said.startswith("HDFS has no DataNode with room for /user/hdfs/")
        assert said.endswith("none is up, or its disk is full.")
    finishes(work)


def test_a_merge_without_the_datanode_is_finished_by_the_next_command(work: Work, servers: Servers) -> None:
    files = FileSystem(work.tenant.settings)
    with servers.without("datanode"):
        # CONCAT is the NameNode's alone; the manifest that follows it is not.
        says(work.tenant, "export", "--compact")
    tiers.eventually("a merge", lambda: tiers.run(work.tenant, "export", "--compact").returncode == 0, 60)
    names = [entry.name for entry in files.list(f"{work.tenant.settings.hdfs_base_path}/dt=2013-03-31")]
    assert len([name for name in names if name.startswith("weather_")]) == 1
    work.assert_whole()


@pytest.mark.parametrize("step", ["WRITE _weather", "RENAME _weather"])
def test_a_datanode_killed_amid_an_export(work: Work, servers: Servers, step: str) -> None:
    work.give()
    with hdfs_proxy(work.tenant.settings.hdfs_url) as proxy:
        proxy.plan.expect(lambda each: each.startswith(step), "kill", lambda: servers.kill("datanode"))
        tenant = replace(work.tenant, settings=work.tenant.settings.model_copy(update={"hdfs_url": proxy.url}))
        assert isinstance(told(tenant), TransientError)
        assert proxy.plan.happened
    finishes(work)


def test_a_full_disk_is_told_and_the_export_goes_on_when_there_is_room(servers: Servers) -> None:
    work = Work(tenant_of(servers))  # what lies on the other disk cannot be read meanwhile
    work.give()
    with servers.small_datanode(8):  # a block asks for 16 MB
        tiers.eventually("the small DataNode", lambda: "with room for" in str(told(work.tenant)), 60, 0.5)
        said = says(work.tenant, "export")
        assert said.startswith("HDFS has no DataNode with room for /user/hdfs/")
        assert said.endswith("none is up, or its disk is full.")
    finishes(work)
