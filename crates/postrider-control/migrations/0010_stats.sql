-- What happened over time, added up in steps: of a tenant (`webhook` is empty) by the minute, ten minutes and the hour, of a
-- webhook by ten minutes and the hour. `at` is when the step begins. What is written at one time lies together, so that a turn
-- writes few pages. The last three columns are histograms as `postrider_core::histogram` writes them.
CREATE TABLE stats (
    step_ms         INTEGER NOT NULL,
    at              INTEGER NOT NULL,
    tenant          TEXT    NOT NULL,
    webhook         TEXT    NOT NULL,
    accepted        INTEGER NOT NULL,
    first_tried     INTEGER NOT NULL,
    first_delivered INTEGER NOT NULL,
    delivered       INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    dead            INTEGER NOT NULL,
    status_2xx      INTEGER NOT NULL,
    status_3xx      INTEGER NOT NULL,
    status_4xx      INTEGER NOT NULL,
    status_429      INTEGER NOT NULL,
    status_5xx      INTEGER NOT NULL,
    status_none     INTEGER NOT NULL,
    last_at         INTEGER,
    first_attempt   BLOB    NOT NULL,
    delivery        BLOB    NOT NULL,
    attempt         BLOB    NOT NULL,
    PRIMARY KEY (step_ms, at, tenant, webhook)
) STRICT, WITHOUT ROWID;

-- The same of webhooks by event type: no more than how attempts ended.
CREATE TABLE stats_by_type (
    step_ms    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    tenant     TEXT    NOT NULL,
    webhook    TEXT    NOT NULL,
    event_type TEXT    NOT NULL,
    delivered  INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    PRIMARY KEY (step_ms, at, tenant, webhook, event_type)
) STRICT, WITHOUT ROWID;

-- Up to which row of each table everything is added up: `seq` of events and dead letters, the row's own number of attempts.
INSERT INTO counters (name, n) VALUES ('stats_events', 0), ('stats_attempts', 0), ('stats_dead_letters', 0);
