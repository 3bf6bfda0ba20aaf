"""The table of devices, and what the service says of them."""

import json
from datetime import date, timedelta

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from solvers.cloud import devices
from solvers.cloud.devices import MAX_TABLE_DAYS, aged, find_device, known_devices
from solvers.errors import OfflineError


def listed(*options):
    result = CliRunner().invoke(app, ["devices", *options, "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    return {one["name"]: one for one in answer["devices"]}, answer["not_reached"], result.stderr


def test_the_table_is_whole():
    for name, device in known_devices().items():
        assert device.status in ("ONLINE", "OFFLINE", "RETIRED")
        gone = device.status == "RETIRED"
        assert gone == bool(device.retired) == bool(device.replacement) == device.limits.retired
        if gone:
            instead = find_device(device.replacement)
            assert not instead.retired
            assert instead.is_qpu == device.is_qpu
        assert bool(device.native_gates) == (device.is_qpu and name != "Ankaa-3")
    assert known_devices()["Garnet"].region == "eu-north-1"


def test_devices_are_listed_without_asking_anyone(braket):
    found, silent, told = listed()
    assert found.keys() == known_devices().keys()
    assert found["Cepheus-1-108Q"]["native_gates"] == ["rx", "rz", "cz"]
    assert (silent, told) == ([], "")
    text = CliRunner().invoke(app, ["devices"]).stdout
    assert "RETIRED June 2026: take SV1" in text
    assert "1 to 20,000" in text
    assert "committed table of 2026" in text
    assert not braket.calls


def test_live_asks_the_service(braket):
    braket.offline.add("Garnet")
    braket.retired.add("Ibex-Q1")
    found, silent, told = listed("--live")
    assert (found["Garnet"]["status"], found["Ibex-Q1"]["status"]) == ("OFFLINE", "RETIRED")
    # What the endpoint says, not the table.
    assert (found["Ibex-Q1"]["shots"], known_devices()["Ibex-Q1"].shots) == ([1, 1500], (1, 2000))
    assert found["SV1"]["shots"] == [1, 100_000]
    assert (found["SV1"]["native_gates"], found["Garnet"]["native_gates"]) == ([], ["prx", "cz"])
    assert found["Garnet"]["per_shot"] == 0.002
    assert found["Garnet"]["source"].startswith("AWS Price List of 2026-11-01")
    # The endpoint does not have the others: as the table has them, and said so.
    assert len(silent) == 5
    assert found["Emerald"]["shots"] == [1, 20_000]
    assert told.count("as in the table: device arn:aws:braket") == 5
    assert not braket.creates


def test_live_without_an_account_or_a_region_that_answers(braket, monkeypatch):
    braket.deny("eu-north-1", 403, "AccessDeniedException")
    found, silent, _ = listed("--live")
    assert found["SV1"]["shots"] == [1, 100_000]
    assert found["Garnet"]["status"] == "ONLINE"
    assert any("cannot be reached in eu-north-1" in reason for reason in silent)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    refused = CliRunner().invoke(app, ["devices", "--live"])
    assert isinstance(refused.exception, OfflineError)
    assert "no AWS credentials were found" in str(refused.exception)


@pytest.mark.parametrize("reachable", [True, False])
def test_a_table_that_is_old_says_so_where_the_live_prices_are_not_there(
    braket, monkeypatch, reachable
):
    assert aged("2026-01-31", date(2026, 1, 31) + timedelta(MAX_TABLE_DAYS)) == ""
    assert "91 days old" in aged("2026-01-31", date(2026, 1, 31) + timedelta(91))
    words = "days old; prices, limits and status may have changed"
    monkeypatch.setattr(devices, "today", lambda: date(2031, 1, 1))
    if not reachable:
        braket.prices = None
    known_devices.cache_clear()
    try:
        source = devices.priced(find_device("Garnet")).source
        assert words in find_device("Garnet").source
    finally:
        known_devices.cache_clear()
    assert (words in source) != reachable
