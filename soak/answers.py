"""Send unary and streamed requests to one server until the time is over; check every answer."""

from pathlib import Path

from measure.core.local_server import running_server
from measure.core.verification import Experiment
from soak.clients import Asking, Question, known, wrong
from soak.known_answers import Labels, Questions, put_model
from soak.tally import Tally

UNARY, STREAMS = 2, 2
_PER_STREAM = 1000
_DEADLINE_S = 120.0


def run(tally: Tally, folder: Path, experiment: Experiment, most_rows: int) -> None:
    """Count requests that got the expected labels."""
    put_model(folder, experiment)
    with running_server(folder) as server:
        ask(tally, server.address, Questions(experiment, most_rows))


def ask(tally: Tally, address: str, questions: Questions) -> None:
    """Send requests from several clients in parallel until the tally is over."""
    numbers = list(range(UNARY + STREAMS))

    def draw(client: int) -> Question | None:
        if not tally.take():
            return None
        numbers[client] += len(numbers)
        return known(questions, numbers[client])

    def judge(client: int, question: Question, labels: Labels) -> str | None:
        fault = wrong(labels, question.known)
        if fault is None:
            tally.add()
        tally.note(clients.kind(client))
        return fault

    clients = Asking(
        address,
        draw,
        judge,
        tally.fail,
        unary=UNARY,
        streams=STREAMS,
        per_stream=_PER_STREAM,
        patience_s=_DEADLINE_S,
    )
    clients.run()
