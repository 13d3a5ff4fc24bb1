"""What a person wants to see of a deployment: each step as one line, what changed, and a failure as its sentence."""

from __future__ import annotations

import sys
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: plain
type: stdout
short_description: One line a step
description: Steps that only include others or check arguments are left out; a failure is shown once, as it was written.
"""

# Of 200 tasks these say nothing to a reader.
SILENT = {
    "include_role",
    "include_tasks",
    "validate_argument_spec",
    "set_fact",
    "set_stats",
    "include_vars",
    "meta",
    "fail",
}


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "plain"

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()
        self.open_line = False
        self.title = ""

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.title = play.get_name()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        del is_conditional
        self.close()
        # Not before: a play may have no host.
        if self.title:
            self.line(self.title)
            self.title = ""
        if task.action.rpartition(".")[2] not in SILENT | {"debug"}:
            sys.stdout.write(f"  {task.name}")
            sys.stdout.flush()
            self.open_line = True

    def v2_runner_on_ok(self, result: Any) -> None:
        message = result._result.get("msg")
        if result._task.action.rpartition(".")[2] == "debug":
            self.line("\n".join(message) if isinstance(message, list) else str(message).strip())
        elif self.open_line and result._result.get("changed"):
            sys.stdout.write(" - changed")
        self.close()

    def v2_on_file_diff(self, result: Any) -> None:
        for said in result._result.get("results", [result._result]):
            if said.get("diff") and said.get("changed") and (text := self._get_diff(said["diff"])):
                if self.open_line:
                    sys.stdout.write(" - changed")
                self.line(text.rstrip())

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.close()
        if not ignore_errors:
            said = result._result
            if said.get("censored"):
                said = {"msg": "It failed, and what it said is hidden because it holds secrets."}
            words = str(said.get("msg") or said).removeprefix("Task failed: ").removeprefix("Module failed: ")
            self.line(f"\n{result._task.name}: {words.strip()}" if "\n" not in words else f"\n{words.strip()}")
            if said.get("module_stderr") or said.get("stderr"):
                self.line(str(said.get("module_stderr") or said.get("stderr")).strip())

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self.v2_runner_on_failed(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        del result
        self.close()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.close()
        for host in sorted(stats.processed):
            seen = stats.summarize(host)
            took = time.monotonic() - self.began
            self.line(
                f"{host}: ok={seen['ok']} changed={seen['changed']} "
                f"failed={seen['failures'] + seen['unreachable']} in {took:.0f} s"
            )

    def line(self, text: str) -> None:
        self.close()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def close(self) -> None:
        if self.open_line:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self.open_line = False
