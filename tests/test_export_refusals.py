"""What HDFS refuses an export, and what an export refuses to overwrite: told in a sentence, and gone on from."""

from __future__ import annotations

import http.client
import signal
from contextlib import closing
from pathlib import Path

import pytest
import requests
import tiers
from exporting import Work

from conftest import TenantMaker
from meteo_hadoop.webhdfs import FileSystem

DAY = "2013-03-31"


@pytest.fixture(scope="module")
def work(make_tenant: TenantMaker) -> Work:
    work = Work(make_tenant())
    work.give()
    tiers.export(work.tenant)
    return work


class Place:
    """The tenant's file of a day, as the next slice of partition 0 will name it."""

    def __init__(self, work: Work) -> None:
        self.settings = work.tenant.settings
        self.files = FileSystem(self.settings)
        (((first,),)) = work.tenant.query("SELECT min(next_offset) FROM positions")
        self.directory = f"{self.settings.hdfs_base_path}/dt={DAY}"
        self.name = f"weather_p0_{first}-{int(str(first)) + 6}.json"
        self.path = f"{self.directory}/{self.name}"
        self.temporary = f"{self.directory}/_{self.name}.tmp"


def test_a_strangers_file_is_refused_and_not_overwritten(work: Work) -> None:
    place = Place(work)
    place.files.publish(place.path, [b"somebody's own\n"])
    work.give()
    said = tiers.sentence(tiers.run(work.tenant, "export"), 1)
    assert said == (
        f"{place.path} is taken by a file that is none of ours, or was changed; it was not overwritten: move it away."
        " All other days were exported."
    )
    assert place.files.read(place.path) == b"somebody's own\n"
    assert place.files.length(place.temporary) is None
    place.files.delete(place.path)
    tiers.export(work.tenant)
    work.assert_whole()


def test_what_a_killed_export_renamed_is_no_strangers(work: Work) -> None:
    work.give()
    process = tiers.start(work.tenant, "export", extra={"METEO_FAILPOINT": "export.before_manifest"})
    assert process.wait(60) == -signal.SIGKILL
    tiers.export(work.tenant)
    work.assert_whole()


def test_a_file_that_a_dead_writer_still_holds_open_is_written_anew(work: Work) -> None:
    """The writer's lease would last an hour; when the dead one's bytes come after all, they go nowhere."""
    place = Place(work)
    work.give()
    asked = {"op": "CREATE", "overwrite": "true", "user.name": place.settings.hdfs_user}
    url = f"{place.settings.hdfs_url}/webhdfs/v1{place.temporary}"
    located = requests.put(url, params=asked, allow_redirects=False, timeout=10).headers["Location"]
    host, _, path = located.removeprefix("http://").partition("/")
    with closing(http.client.HTTPConnection(host, timeout=30)) as dead:
        dead.putrequest("PUT", f"/{path}")
        dead.putheader("Transfer-Encoding", "chunked")
        dead.endheaders(b"6\r\nbroken\r\n")
        tiers.eventually("the dead writer's file", lambda: place.files.length(place.temporary) is not None)
        tiers.export(work.tenant)
        dead.send(b"0\r\n\r\n")
        assert dead.getresponse().status >= 400
    work.assert_whole()


def test_a_full_quota_is_told_and_the_export_goes_on_when_it_is_raised(work: Work) -> None:
    tiers.set_space_quota(work.tenant, 1 << 20)  # a block is 16 MB, and its whole space is asked for
    try:
        work.give()
        said = tiers.sentence(tiers.run(work.tenant, "export"), 3)
        assert said.startswith("HDFS has no room for /user/hdfs/")
        assert said.endswith("raise the quota.")
    finally:
        tiers.set_space_quota(work.tenant, None)
    tiers.export(work.tenant)
    work.assert_whole()


def test_a_namenode_in_safe_mode_is_told_and_waited_for(work: Work, stack: Path) -> None:
    work.give()
    tiers.set_safe_mode(work.tenant, stack.owner(), "enter")
    try:
        said = tiers.sentence(tiers.run(work.tenant, "export"), 3)
        assert said.startswith("The NameNode is in safe mode and takes no writes yet (/user/hdfs/")
    finally:
        tiers.set_safe_mode(work.tenant, stack.owner(), "leave")
    tiers.export(work.tenant)
    work.assert_whole()
