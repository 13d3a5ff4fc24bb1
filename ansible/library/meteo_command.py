#!/usr/bin/python
"""A command of ./meteo against the stack, with a file for its input."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils import backups

DOCUMENTATION = """
module: meteo_command
short_description: A command of the platform's command line
description: Speaks to the stack, whatever the shell's own settings say; a failure is the command's own sentence.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    **backups.ARGUMENTS,
    "argv": {"type": "list", "elements": "str", "required": True},
    "stdin": {"type": "path"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS)
    params = module.params
    with Path(params["stdin"]).open("rb") if params["stdin"] else nullcontext(subprocess.DEVNULL) as given:
        ran = subprocess.run(
            backups.command(params, *params["argv"]),
            env=backups.environment(params),
            stdin=given,
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        module.fail_json(msg=backups.sentence(ran.stderr), rc=ran.returncode, stdout=ran.stdout)
    module.exit_json(changed=True, stdout=ran.stdout.strip())


if __name__ == "__main__":
    main()
