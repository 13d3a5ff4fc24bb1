"""The exit code that a playbook has chosen by set_stats: 1 of a check whose answer is no; Ansible has only 2."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: exit_code
type: notification
short_description: Ends with the exit_code of set_stats
description: Playbooks that set none end as always.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "exit_code"
    CALLBACK_NEEDS_ENABLED = False

    def v2_playbook_on_stats(self, stats: Any) -> None:
        # Last of all, after the callbacks that print; Ansible cleans up on its way out.
        if code := int(stats.custom.get("_run", {}).get("exit_code", 0)):
            raise SystemExit(code)
