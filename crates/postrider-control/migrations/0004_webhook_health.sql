-- How deliveries to each webhook ended lately. `in_a_row` counts those given up since the last that was delivered, or since
-- the webhook was enabled (`counted_from`); `told` is 1 when the tenant has been told of them.
CREATE TABLE webhook_health (
    webhook         TEXT    NOT NULL PRIMARY KEY,
    in_a_row        INTEGER NOT NULL,
    told            INTEGER NOT NULL,
    failing_since   INTEGER,
    last_failure_at INTEGER,
    last_success_at INTEGER,
    counted_from    INTEGER
) STRICT;
