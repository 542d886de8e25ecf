-- Deliveries made again by filter. `asked` is what was asked for, JSON; `event_ids` the events that were named, JSON, if any.
-- What is looked at is fixed when the replay is made: events accepted from `since` and before `until`, up to `last_event`,
-- and their deliveries up to `last_delivery`. (`at_time`, `at_event`) is the last event that planning has looked at.
-- `left_out` counts what was not chosen, `dropped` what was chosen and not sent when its turn came; JSON, by reason.
CREATE TABLE replays (
    seq           INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    tenant        TEXT    NOT NULL REFERENCES tenants (id),
    asked         TEXT    NOT NULL,
    event_ids     TEXT,
    rate          INTEGER NOT NULL,
    state         TEXT    NOT NULL CHECK (state IN ('planning', 'planned', 'running', 'done', 'cancelled', 'failed')),
    run           INTEGER NOT NULL,
    reason        TEXT    NOT NULL,
    since         INTEGER,
    until         INTEGER NOT NULL,
    last_event    INTEGER NOT NULL,
    last_delivery INTEGER NOT NULL,
    at_time       INTEGER NOT NULL,
    at_event      INTEGER NOT NULL,
    looked_at     INTEGER NOT NULL,
    chosen        INTEGER NOT NULL,
    left_out      TEXT    NOT NULL,
    sent          INTEGER NOT NULL,
    dropped       TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    planned_at    INTEGER,
    started_at    INTEGER,
    finished_at   INTEGER
) STRICT;
CREATE INDEX replays_of_tenant ON replays (tenant, seq);
CREATE INDEX replays_of_state ON replays (state, seq);
CREATE INDEX replays_over ON replays (finished_at) WHERE finished_at IS NOT NULL;

-- What is chosen and not sent yet: `series` is the delivery's latest when it was chosen, 0 for one that is not there yet.
-- A row goes in the transaction that makes its delivery again.
CREATE TABLE replay_items (
    replay  INTEGER NOT NULL,
    event   INTEGER NOT NULL,
    webhook INTEGER NOT NULL,
    series  INTEGER NOT NULL,
    PRIMARY KEY (replay, event, webhook)
) STRICT, WITHOUT ROWID;

-- The replay that a series is of. How what it sent ended is counted from these rows.
ALTER TABLE series ADD COLUMN replay INTEGER;
CREATE INDEX series_of_replay ON series (replay, state) WHERE replay IS NOT NULL;

CREATE INDEX events_by_acceptance ON events (tenant, accepted_at);
