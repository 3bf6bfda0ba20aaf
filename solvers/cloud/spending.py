"""Amazon Braket's own spending limits: a second lock on a device, beside `max_cost`.

The service refuses a task that would lift what is spent on a QPU above its limit, whoever sends it.
A device has one limit at a time and simulators have none. A limit made here carries a tag with the
run it is for, by which the same run knows it again after a crash; those of others are left alone.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from solvers.cloud.devices import Device
from solvers.cloud.service import AwsService
from solvers.errors import OfflineError

TAG = "icbs-bench-run"


@dataclass(frozen=True)
class SpendingLimit:
    """A limit on one device.

    Attributes:
        arn: of the limit.
        device: name of the device.
        usd: that may be spent in its period.
        spent: USD of it, queued tasks included.
        until: end of its period.
        run: that it was made for here; empty for those of others.
    """

    arn: str
    device: str
    usd: float
    spent: float
    until: datetime
    run: str

    def __str__(self) -> str:
        return (
            f"${self.usd:.2f} on {self.device} until {self.until:%F %H:%M} UTC, "
            f"${self.spent:.2f} of it spent or queued"
        )


class SpendingLimits:
    """The spending limits of one QPU.

    Args:
        device: a QPU.

    Raises:
        OfflineError: no region or no credentials.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._client = AwsService(device).client

    def existing(self) -> list[SpendingLimit]:
        """The limits there are now, those whose period is over left out.

        Raises:
            OfflineError: the region refuses to tell, or does not answer.
        """
        filters = [{"name": "deviceArn", "operator": "EQUAL", "values": [self._device.arn]}]
        found: list[dict[str, Any]] = []
        with self._asking("look up"):
            for page in self._client.get_paginator("search_spending_limits").paginate(
                filters=filters
            ):
                found += page["spendingLimits"]
        limits = [self._read(one) for one in found if one["deviceArn"] == self._device.arn]
        return [limit for limit in limits if limit.until > datetime.now(UTC)]

    def create(self, usd: float, seconds: float, run: str) -> SpendingLimit:
        """Makes a limit that holds from now on.

        Args:
            usd: > 0; rounded up to cents, since `max_cost` is what holds exactly.
            seconds: after which it ends by itself.
            run: what it is for.

        Raises:
            OfflineError: the service did not make it.
        """
        now = datetime.now(UTC)
        until = now + timedelta(seconds=seconds)
        amount = math.ceil(round(usd * 100, 6)) / 100
        with self._asking("create"):
            made = self._client.create_spending_limit(
                clientToken=str(uuid.uuid4()),
                deviceArn=self._device.arn,
                spendingLimit=f"{amount:.2f}",
                timePeriod={"startAt": now, "endAt": until},
                tags={TAG: run},
            )
        return SpendingLimit(made["spendingLimitArn"], self._device.name, amount, 0.0, until, run)

    def remove(self, limit: SpendingLimit) -> None:
        """Takes a limit away.

        Raises:
            OfflineError: the service did not.
        """
        with self._asking("remove"):
            self._client.delete_spending_limit(spendingLimitArn=limit.arn)

    def _read(self, one: dict[str, Any]) -> SpendingLimit:
        return SpendingLimit(
            one["spendingLimitArn"],
            self._device.name,
            float(one["spendingLimit"]),
            float(one["totalSpend"]) + float(one["queuedSpend"]),
            one["timePeriod"]["endAt"].astimezone(UTC),
            one.get("tags", {}).get(TAG, ""),
        )

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise OfflineError(
                f"AWS did not {what} a spending limit of {self._device.name}: {error}; leave out "
                "--aws-spending-limit (max_cost holds without it), or allow the account to search, "
                "create and delete spending limits of Amazon Braket"
            ) from error
