"""Publishes events with pika until the broker has confirmed each, over any loss of the connection.

usage: publish.py AMQP_URL COUNT LEDGER

Some are published alone, some together as an array. An event is written to LEDGER, and to the disk, after its confirm, as a line that
postrider verify reads. What was not confirmed is published again with the same ids.
"""

import json
import os
import sys
import time

import pika
from pika.exceptions import AMQPError

url, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
deadline = time.monotonic() + 120


def open_channel():
    while True:
        try:
            parameters = pika.URLParameters(url)
            parameters.heartbeat = 10
            parameters.blocked_connection_timeout = 20
            channel = pika.BlockingConnection(parameters).channel()
            channel.confirm_delivery()
            return channel
        except (AMQPError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def messages():
    """Events one by one and, every other time, five in an array; each with their ids."""
    number, together = 0, 1
    while number < count:
        ids = [f"pika-{n}" for n in range(number, min(number + together, count))]
        events = [{"event_type": "USER_LOGIN", "id": event_id, "data": {"id": event_id}} for event_id in ids]
        yield ids, json.dumps(events if together > 1 else events[0])
        number, together = number + together, 6 - together


channel = open_channel()
with open(path, "w") as ledger:
    for ids, body in messages():
        while True:
            try:
                channel.basic_publish(
                    exchange="postrider.events",
                    routing_key="default",
                    body=body.encode(),
                    properties=pika.BasicProperties(content_type="application/json", delivery_mode=2),
                    mandatory=True,
                )
                break
            except (AMQPError, OSError):
                if time.monotonic() > deadline:
                    raise
                channel = open_channel()
        for event_id in ids:
            line = {"tenant": "default", "id": event_id, "at": time.time_ns() // 1_000_000}
            ledger.write(json.dumps(line) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
        time.sleep(0.004 * len(ids))
