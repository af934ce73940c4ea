"""The README promises what is there."""

from tests.conftest import ROOT


def test_readme_names_the_two_commands() -> None:
    blocks = (ROOT / "README.md").read_text().split("```sh\n")[1:]
    commands = {line for block in blocks for line in block.split("```")[0].splitlines()}
    assert {"make demo", "make test"} <= commands
