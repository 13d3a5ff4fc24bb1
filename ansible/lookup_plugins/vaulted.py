"""A file's content as Vault encrypts it, with the password that the user gave Ansible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: vaulted
short_description: A file, encrypted by Vault
description: What ansible-vault encrypt would make of it; ansible.builtin.unvault is the way back.
options:
  _terms:
    description: The file.
    required: true
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **_: Any) -> list[str]:
        del variables
        # Where unvault finds it, too: the loader has what --vault-password-file or --ask-vault-pass said.
        vault = self._loader._vault
        if not vault.secrets:
            raise AnsibleLookupError(
                "There is no Vault password: give --vault-password-file FILE or --ask-vault-pass, or set"
                " ANSIBLE_VAULT_PASSWORD_FILE. A backup never has the stack's passwords in plain."
            )
        try:
            return [vault.encrypt(Path(terms[0]).read_bytes()).decode()]
        except OSError as error:
            raise AnsibleLookupError(f"{terms[0]} cannot be read: {error.strerror}.") from error
