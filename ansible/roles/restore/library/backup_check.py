#!/usr/bin/python
"""Whether a backup is whole, before anything is changed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils import backups

DOCUMENTATION = """
module: backup_check
short_description: Reads a whole backup
description: Compares size and SHA-256 of each file with the manifest, and the time zone with the stack's.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "weather_timezone": {"type": "str", "required": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        manifest = backups.read_manifest(Path(module.params["directory"]))
    except (ValueError, OSError) as sentence:
        module.fail_json(msg=str(sentence))
    zone, own = manifest["weather_timezone"], module.params["weather_timezone"]
    if zone != own:
        module.fail_json(
            msg=f"The days of the backup are those of {zone}, WEATHER_TIMEZONE is '{own}': set it to the backup's;"
            " ./meteo export --rebuild changes it afterwards."
        )
    module.exit_json(changed=False, manifest=manifest)


if __name__ == "__main__":
    main()
