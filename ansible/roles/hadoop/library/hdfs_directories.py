#!/usr/bin/python
"""Directories of HDFS with their owners and permissions."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: hdfs_directories
short_description: Directories of HDFS, by WebHDFS
description: Waits for the end of the safe mode; changes only what differs.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "required": True},
    "superuser": {"type": "str", "required": True},
    "directories": {"type": "list", "elements": "dict", "required": True},
}
SAFE_MODE_TIMEOUT = 120.0


def call(params: dict[str, Any], method: str, path: str, operation: str, **query: str) -> dict[str, Any] | None:
    """One WebHDFS operation; None when the path does not exist."""
    asked = urllib.parse.urlencode({"op": operation, "user.name": params["superuser"], **query})
    address = f"{params['url']}/webhdfs/v1{urllib.parse.quote(path)}?{asked}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(address, method=method)  # noqa: S310 - always our own http address
    try:
        with opener.open(request, timeout=30) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    loaded: dict[str, Any] = json.loads(body) if body else {}
    return loaded


def wait_for_safe_mode(params: dict[str, Any]) -> None:
    """Until every known block is reported, the NameNode refuses writes with 403."""
    deadline = time.monotonic() + SAFE_MODE_TIMEOUT
    probe = f"{params['url']}/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        with opener.open(probe, timeout=10) as answer:
            safe_mode = json.load(answer)["beans"][0]["Safemode"]
        if not safe_mode:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"HDFS stays in safe mode: {safe_mode}")
        time.sleep(0.5)


def converge(params: dict[str, Any], directory: dict[str, str], *, check: bool) -> bool:
    """Make one directory what it should be; whether that was, or with `check` would be, a change."""
    path = directory["path"]
    found = call(params, "GET", path, "GETFILESTATUS")
    if found is None:
        if check:
            return True
        call(params, "PUT", path, "MKDIRS", permission=directory["mode"])
        found = call(params, "GET", path, "GETFILESTATUS") or {}
    status = found["FileStatus"]
    theirs = (status["owner"], status["group"]) != (directory["owner"], directory["group"])
    wrong_mode = int(status["permission"], 8) != int(directory["mode"], 8)
    if theirs and not check:
        call(params, "PUT", path, "SETOWNER", owner=directory["owner"], group=directory["group"])
    if wrong_mode and not check:
        call(params, "PUT", path, "SETPERMISSION", permission=directory["mode"])
    return theirs or wrong_mode


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params, check = module.params, module.check_mode
    try:
        if not check:
            wait_for_safe_mode(params)
        changed = [each["path"] for each in params["directories"] if converge(params, each, check=check)]
    except urllib.error.HTTPError as error:
        module.fail_json(msg=f"HDFS refused to prepare its directories: {error.read().decode(errors='replace')}")
    except OSError as error:
        if check:
            module.exit_json(changed=True, directories=[each["path"] for each in params["directories"]])
        module.fail_json(msg=f"HDFS at {module.params['url']} could not prepare its directories: {error}.")
    module.exit_json(changed=bool(changed), directories=changed)


if __name__ == "__main__":
    main()
