"""What plans can say, by name, so that a runtime of a later version does not ask for what this spawner would not hear.

A spawner lives as long as its containers, over upgrades of the runtime. Whoever adds a field adds it here and in
docs/spawner-protocol.md; a field within another is one of its own if a start without it would be something else.
"""

PLAN = (
    "id", "argv", "env", "cwd", "user", "groups", "ulimits", "oom_score_adj", "stdio", "cgroups", "capabilities",
    "new_privileges", "seccomp", "apparmor", "keep", "terminal", "container", "hostname", "netns", "sysctls", "init",
    "layers_dir", "layers", "upper", "work", "read_only", "mounts", "userns", "bundle",
)  # fmt: skip
