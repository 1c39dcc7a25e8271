"""Steps that only some processes need, by the names that they have among those of enter.py and joining.py. Each looks
into the plan whether it is asked for."""

from tinyo_runtime.spawner.asked import raise_limits, set_sysctls
from tinyo_runtime.spawner.label import choose_apparmor_profile
from tinyo_runtime.spawner.readonly import close_root
from tinyo_runtime.spawner.reaper import execute as execute_reaper  # a failure of it is one of the command
from tinyo_runtime.spawner.reaper import keep as keep_reaper
from tinyo_runtime.spawner.tty import make_console, open_terminal, take_terminal
from tinyo_runtime.spawner.userns import enter_userns, give_devices, map_layers

__all__ = [
    "choose_apparmor_profile", "close_root", "enter_userns", "execute_reaper", "give_devices", "keep_reaper", "make_console",
    "map_layers", "open_terminal", "raise_limits", "set_sysctls", "take_terminal",
]  # fmt: skip
