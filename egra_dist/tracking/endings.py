"""How a run ends: what its status is, and that a stopped process unwinds."""

import os
import signal
import sys
import threading

from egra_dist.errors import EXIT_STOPPED


def exit_on_sigterm() -> None:
    """A stopped job unwinds, so that its runs are ended; Ray, once started, does the same."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_STOPPED))
        sys.unraisablehook = _stop_again


def _stop_again(lost: "sys.UnraisableHookArgs") -> None:
    """Python drops what is raised within a finaliser, and the signal may have come just there."""
    if issubclass(lost.exc_type, SystemExit):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(lost)


def status_of(error: BaseException) -> str:
    """MLflow's word for a run that ended by an exception."""
    return "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED"
