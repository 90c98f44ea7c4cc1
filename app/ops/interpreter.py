"""How the Python that runs was built: without optimizations it costs up to half as much again."""

from __future__ import annotations

import sysconfig

DISTRIBUTION = "/usr"
"""Where a system's own Python lives. Debian and Ubuntu optimize theirs without that option."""


def unoptimized() -> bool:
    """Tell whether Python was compiled without ``--enable-optimizations``.

    That is what pyenv and a plain ``./configure`` do. Where that is not known: no.
    """
    arguments, prefix = sysconfig.get_config_vars("CONFIG_ARGS", "installed_base")
    if not arguments or prefix == DISTRIBUTION:
        return False
    return "--enable-optimizations" not in arguments
