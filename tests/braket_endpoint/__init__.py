"""Amazon Braket on a loopback port, for the real SDK: devices, tasks, S3, STS and prices.

Tasks run on Braket's default simulator. Anything can be made to fail, see `Endpoint`.
"""

from tests.braket_endpoint.server import ARNS, Endpoint

__all__ = ["ARNS", "Endpoint"]
