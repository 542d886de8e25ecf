"""Publishes events with pika until the broker has confirmed each, over any loss of the connection.

usage: publish.py AMQP_URL COUNT LEDGER

An event is written to LEDGER, and to the disk, after its confirm, as a line that postrider verify reads. An event whose confirm did not come is
published again with the same id.
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


channel = open_channel()
with open(path, "w") as ledger:
    for number in range(count):
        event_id = f"pika-{number}"
        body = json.dumps({"event_type": "USER_LOGIN", "id": event_id, "data": {"id": event_id}})
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
        line = {"tenant": "default", "id": event_id, "at": time.time_ns() // 1_000_000}
        ledger.write(json.dumps(line) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
        time.sleep(0.004)
