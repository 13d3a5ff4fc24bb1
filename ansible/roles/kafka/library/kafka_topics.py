#!/usr/bin/python
"""Topics as one list describes them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kafka_topics
short_description: Topics with their partitions, replication and configuration
description: Creates, adds partitions and sets configuration; never deletes a topic or a partition.
options: {}
"""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "bootstrap_servers": {"type": "str", "required": True},
    "topics": {"type": "list", "elements": "dict", "required": True},
}


def converge(admin: Any, topic: dict[str, Any], partitions: int | None, *, check: bool) -> list[str]:
    """Make one topic what it should be; what was done, or with `check` would be."""
    name, wanted = topic["name"], {key: str(value) for key, value in topic.get("config", {}).items()}
    if partitions is None:
        options = {
            "num_partitions": int(topic["partitions"]),
            "replication_factor": int(topic["replication"]),
            "configs": wanted,
        }
        if not check:
            admin.create_topics({name: options}, wait_for_metadata=True)
        return [f"{name} created"]
    done = []
    if partitions < int(topic["partitions"]):
        if not check:
            admin.create_partitions({name: int(topic["partitions"])})
        done.append(f"{name} has {topic['partitions']} partitions")
    done += configure(admin, name, wanted, check=check)
    return done


def configure(admin: Any, name: str, wanted: dict[str, str], *, check: bool) -> list[str]:
    from kafka.admin import ConfigResource, ConfigResourceType

    resource = ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(wanted))
    answer = admin.describe_configs([resource], config_filter="all")
    present = next(iter(answer.values()))[name]
    different = {key: value for key, value in wanted.items() if str(present.get(key, {}).get("value")) != value}
    if different and not check:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, different)])
    return [f"{name} {key}={value}" for key, value in different.items()]


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    servers, check = module.params["bootstrap_servers"], module.check_mode
    try:
        admin = KafkaAdminClient(bootstrap_servers=servers)
        present = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
        done = [
            line
            for topic in module.params["topics"]
            for line in converge(admin, topic, present.get(topic["name"]), check=check)
        ]
        admin.close()
    except (KafkaError, OSError) as error:
        if check:
            module.exit_json(changed=True, done=["Kafka does not run: it would be started, and every topic made"])
        module.fail_json(msg=f"Kafka at {servers} did not accept the list of topics: {error}.")
    module.exit_json(changed=bool(done), done=done)


if __name__ == "__main__":
    main()
