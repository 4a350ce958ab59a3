"""An S3 server on this machine."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def object_store(bucket: str) -> Iterator[Callable[[str], str]]:
    """A bucket of it: gives the URI of a path, with the options that lead there."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    try:
        yield lambda path: f"s3://{bucket}/{path}?{options}"
    finally:
        server.stop()
