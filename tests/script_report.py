"""Run named steps against a server and print what became of each, as one JSON object.

Scripts that use it are processes of their own, in which nothing else is imported or running.
"""

import json
import sys
import traceback


def report(steps, *arguments):
    """Print {name: {"value": ...} or {"error": traceback}}; `steps` are functions by name."""
    outcomes = {}
    for name, step in steps.items():
        try:
            outcomes[name] = {"value": step(*arguments)}
        except Exception:
            outcomes[name] = {"error": traceback.format_exc()}
    json.dump(outcomes, sys.stdout)
