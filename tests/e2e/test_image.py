"""The image's parts that need a running gateway, without Docker."""

from __future__ import annotations

import subprocess
import sys

from tests.deploy.test_deploy_files import healthcheck


def test_the_health_check_says_what_is(gateway):
    running = gateway()
    program, *arguments = healthcheck()
    assert program == "python"

    def check():
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env={"PORT": str(running.port)}, capture_output=True, check=False
        ).returncode

    assert check() == 0
    running.terminate()
    assert running.wait() == 0
    assert check() != 0
