"""The command that plans, called as a user does."""

from pathlib import Path

from typer.testing import CliRunner

CONFIGS = Path(__file__).parents[1] / "configs"


def call(*arguments):
    import typer

    from egra_dist.cli import plan

    app = typer.Typer()
    plan.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
