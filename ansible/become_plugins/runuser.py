"""Give root up for another user, without a password, a terminal or sudo.

The built-in su counts as in need of a terminal: Ansible then copies each module to a file first, 0.3 s a task.
"""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.become import BecomeBase

DOCUMENTATION = """
name: runuser
short_description: Become another user by runuser of util-linux
description: For root only; the user needs neither a password nor a login shell.
options:
  become_user:
    description: The user to become.
    keyword:
      - name: become_user
    vars:
      - name: ansible_become_user
    default: root
"""


class BecomeModule(BecomeBase):  # type: ignore[misc]
    name = "runuser"

    def build_become_command(self, cmd: str, shell: Any) -> str:
        super().build_become_command(cmd, shell)
        if not cmd:
            return cmd
        script = self._build_success_command(cmd, shell)
        return f"runuser {shlex.quote(self.get_option('become_user'))} -s /bin/sh -c {shlex.quote(script)}"
