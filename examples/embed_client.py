"""Submit a job to a cluster, follow it, and print where its dataset is: what a tool of your own would do.

    nimbusd master                                              # in a terminal of its own
    nimbusd worker                                              # in another one
    python examples/embed_client.py examples/nav_mesh.yaml

Without --master, it is the one of NIMBUS_MASTER or of the settings file, else one on this machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nimbusd.client import ENDED, Client, ClientError, Event, Gap


def main() -> int:
    arguments = argparse.ArgumentParser(description="Run a job on a cluster and print the path of its dataset.")
    arguments.add_argument("job", help="job file")
    arguments.add_argument(
        "--master", help="such as tcp://master.lab:7600; default: of the settings, or this machine's"
    )
    options = arguments.parse_args()
    try:
        with Client.connect(options.master) as client:
            return run(client, options.job)
    except ClientError as error:  # its text is a sentence for people
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(client: Client, job_file: str) -> int:
    """Exit status 0 if every episode of the job was made."""
    cursor = client.cursor()  # taken before, so that no event of the job is missed
    job = client.submit(job_file)
    dataset = Path(job.output) / "dataset"
    for item in client.watch(cursor, job.job):  # goes on by itself when the master was away
        if isinstance(item, Event):
            tell(item)
        if isinstance(item, Event) and item.name == "published":
            dataset = Path(item.fields["dataset"])
        if isinstance(item, Gap) or item.name == "job_ended":  # the end may be among the events that are missing
            job = client.job(job.job).summary
            if job.state in ENDED:
                break
    print(dataset)
    return 0 if job.state == "complete" else 1


def tell(event: Event) -> None:
    """One line for what people want to know."""
    episode = f"{event.fields.get('scene')}/{event.fields.get('index')}"
    match event.name:
        case "episode_committed":
            print(f"{episode}: {event.fields['frames']} frames", file=sys.stderr)
        case "episode_failed" | "attempt_lost":
            print(f"{episode}: {event.fields['reason']}, {event.fields['detail']}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
