#!/usr/bin/python
from __future__ import annotations
import os, shutil
from pathlib import Path
from ansible.module_utils.basic import AnsibleModule
m = AnsibleModule(argument_spec={"stack_directory": {"type": "path"}})
java = Path(shutil.which("java")).resolve().parent.parent
pg = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))[-1]
m.exit_json(changed=False, java_home=str(java), postgres_bin=str(pg))
