"""The command line: `mmoe-ranker COMMAND ...`.

Exit status: 0 done; 2 wrong use or bad input, with one sentence on standard error; 1 anything else. Each command
imports what it needs when it runs, so that `--help` is quick and `rank` needs no TensorFlow.
"""

from __future__ import annotations

import logging
import os
import sys

import click

from mmoe_ranker import __version__
from mmoe_ranker.cli import check, data, demo, evidence, models, score, serving, verify
from mmoe_ranker.cli.errors import sentence_for
from mmoe_ranker.cli.terminal import fail
from mmoe_ranker.errors import InputError


def main() -> None:
    """The console script: runs a command and turns what can go wrong into an exit status and a sentence."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        status = cli.main(standalone_mode=False)
    except InputError as error:
        fail(str(error), 2)
    except click.exceptions.Abort:
        fail("Stopped by the user.", 1)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" See `{context.command_path} --help`." if context else ""
        fail(error.format_message() + hint, 2)
    except BrokenPipeError:
        # Whoever read the output has gone, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # to be raised again, unless the system has a sentence for it
        sentence = sentence_for(error)
        if sentence is None:
            raise
        fail(*sentence)
    else:
        # Click hands back the status of `--help` and of a context's exit, and the value of a command.
        sys.exit(status if isinstance(status, int) else 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mmoe-ranker")
def cli() -> None:
    """Multitask ranking from logs to a ranked list: simulate, examples, train, evaluate, export, score, serve, rank."""
    # Libraries may speak of errors; warnings are for our own parts to give, and they are about the user's data.
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("mmoe_ranker", "pipelines", "serving"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


for _command in (
    data.simulate,
    data.convert,
    check.check,
    data.examples,
    models.train,
    models.describe,
    models.tune,
    models.evaluate,
    evidence.compare,
    evidence.report,
    evidence.score_weights,
    models.export,
    verify.verify,
    score.score,
    serving.serve,
    serving.rank,
    demo.demo,
):
    cli.add_command(_command)
