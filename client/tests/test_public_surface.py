import subprocess
import sys

import codex_app_server


def test_the_public_names_are_sorted_documented_and_there() -> None:
    names = codex_app_server.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(codex_app_server, name).__doc__, name


def test_importing_the_package_leaves_the_generated_types_alone() -> None:
    code = (
        "import sys, codex_app_server;"
        "print(sorted(m for m in sys.modules if m.endswith('protocol.types')))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert output == b"[]\n"
