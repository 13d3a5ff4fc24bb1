"""Run by root, our services' commands give root up for the user that owns their data."""

from __future__ import annotations

import os
import pwd

from dotenv import dotenv_values

from meteo_common.settings import meteo_home, project_root

SERVICE_USER = "meteo"


def become_service_user() -> None:
    """Become the owner of METEO_HOME; nothing happens when root does not run this, or owns it."""
    home = meteo_home()
    if os.geteuid() != 0 or not home.is_dir():
        return
    try:
        owner = pwd.getpwuid(home.stat().st_uid)
    except KeyError:
        return
    if owner.pw_uid == 0:
        return
    # Root's checkout may be closed to the service user: its .env is read while it can be.
    for name, value in dotenv_values(project_root() / ".env").items():
        if value is not None:
            os.environ.setdefault(name, value)
    os.initgroups(owner.pw_name, owner.pw_gid)
    os.setgid(owner.pw_gid)
    os.setuid(owner.pw_uid)
    os.environ["HOME"] = str(home)
    # Names of files are relative to where the command was typed, if the service user may be there.
    if not os.access(".", os.X_OK):
        os.chdir(home)
