"""The commands `backup` and `restore`, which run the playbooks of the same names."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from meteo_cli import stack
from meteo_cli.operate import Variables, given
from meteo_common.console import run_command
from meteo_common.errors import UsageError
from meteo_common.settings import stack_directory

PasswordFile = Annotated[
    Path | None,
    typer.Option("--vault-password-file", help="The file of the Vault password; asked for without it."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to a command line."""
    app.command()(backup)
    app.command()(restore)


def backup(
    directory: Annotated[Path, typer.Argument(help="What the backup becomes; it is not there yet.")],
    vault_password_file: PasswordFile = None,
) -> None:
    """Copy PostgreSQL, HDFS and the passwords, these encrypted, into a directory, while everything runs."""

    def take() -> None:
        stack.refuse_containers("backup.yml")
        stack.read_stack()
        variables = stack.named(backup_directory=str(directory.absolute()))
        stack.run_playbook("backup.yml", variables, "There is no backup; see above.", *_vault(vault_password_file))

    run_command(take)


def restore(
    directory: Annotated[Path, typer.Argument(help="The backup.")],
    only: Annotated[
        str | None, typer.Option(metavar="postgres", help="PostgreSQL alone; it is then brought up to HDFS.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the stack holds.")] = False,
    vault_password_file: PasswordFile = None,
    variables: Variables = None,
) -> None:
    """Put a backup into the stack, which is put up for it, and count every record."""

    def put() -> None:
        if only not in {None, "postgres"}:
            raise UsageError(f"--only {only}: expected postgres; without --only all of the backup is restored.")
        stack.refuse_containers("restore.yml")
        chosen = {"restore_only": only or "", "restore_overwrite": overwrite, **given(variables)}
        # A stack that has passwords keeps them: its data was made with them.
        asked = not (stack_directory() / "secrets.yml").exists() and chosen.get("restore_secrets") != "false"
        options = _vault(vault_password_file) if asked or vault_password_file else ()
        stack.run_playbook(
            "restore.yml",
            stack.named(restore_directory=str(directory.absolute()), **chosen),
            "The restore did not come to its end; the last task above says why.",
            *options,
        )

    run_command(put)


def _vault(password_file: Path | None) -> tuple[str, ...]:
    """Return Ansible's options for the Vault password."""
    if password_file is not None:
        if not password_file.is_file():
            raise UsageError(f"--vault-password-file {password_file}: there is no such file.")
        return ("--vault-password-file", str(password_file.absolute()))
    if os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE"):
        return ()
    if not sys.stdin.isatty():
        raise UsageError("The Vault password cannot be asked for here: give --vault-password-file FILE.")
    return ("--ask-vault-pass",)
