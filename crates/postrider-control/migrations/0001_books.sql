-- Times are milliseconds since the Unix epoch. `seq` orders rows for paging and is never shown.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Numbers that only grow: the revision, the sequences of rows, and what the recorder counts.
CREATE TABLE counters (
    name TEXT    NOT NULL PRIMARY KEY,
    n    INTEGER NOT NULL
) STRICT;

CREATE TABLE tenants (
    id         TEXT    NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;

-- `record` is what goes to the config stream, secrets sealed; nothing when the webhook was deleted.
CREATE TABLE webhooks (
    seq         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,
    tenant      TEXT    NOT NULL REFERENCES tenants (id),
    revision    INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    record      TEXT,
    timeout_ms  INTEGER NOT NULL,
    secret_hint TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    deleted_at  INTEGER
) STRICT;
CREATE INDEX webhooks_of_tenant ON webhooks (tenant, deleted_at, seq);

-- What control still has to tell the broker. Deliveries and events are removed when they are confirmed, configuration is
-- marked then and removed later. `tenant` and `revision` are those of an event; `webhook` is where a delivery goes, and
-- the one webhook that an event is for if it is for one alone.
CREATE TABLE outbox (
    seq        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind       TEXT    NOT NULL CHECK (kind IN ('config', 'delivery', 'event')),
    tenant     TEXT    NOT NULL,
    webhook    TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    message_id TEXT    NOT NULL,
    body       BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    sent_at    INTEGER
) STRICT;
CREATE INDEX outbox_unsent ON outbox (seq) WHERE sent_at IS NULL;
CREATE INDEX outbox_of_kind ON outbox (kind, seq) WHERE sent_at IS NULL;
CREATE INDEX outbox_sent ON outbox (sent_at) WHERE sent_at IS NOT NULL;

-- `owed` says how many series of this event's deliveries are owed: by routing, and by redeliveries. `marks` is what the
-- router noticed about it, in words.
CREATE TABLE events (
    seq         INTEGER NOT NULL PRIMARY KEY,
    tenant      TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    event_type  TEXT    NOT NULL,
    event_time  TEXT    NOT NULL,
    fate        TEXT    NOT NULL,
    owed        INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    marks       TEXT    NOT NULL,
    accepted_at INTEGER NOT NULL,
    UNIQUE (tenant, id)
) STRICT;
CREATE INDEX events_of_tenant ON events (tenant, seq);
CREATE INDEX events_of_fate ON events (tenant, fate, seq);
CREATE INDEX events_of_type ON events (tenant, event_type, seq);
CREATE INDEX events_by_fate ON events (fate, owed);

-- The body of each event, once; apart, so that it can be removed before the books are.
CREATE TABLE bodies (
    event  INTEGER NOT NULL PRIMARY KEY,
    record BLOB    NOT NULL
) STRICT;

-- One row for each delivery, with a summary of its latest series. A delivery that was reported before its event has no
-- event and no tenant yet.
CREATE TABLE deliveries (
    seq         INTEGER NOT NULL PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    webhook     TEXT    NOT NULL,
    tenant      TEXT    NOT NULL,
    event       INTEGER,
    event_id    TEXT    NOT NULL,
    event_type  TEXT    NOT NULL,
    series      INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    held        INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    next_at     INTEGER,
    last_series INTEGER NOT NULL,
    last_n      INTEGER NOT NULL,
    last_class  TEXT    NOT NULL,
    last_status INTEGER,
    last_at     INTEGER,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX deliveries_of_tenant ON deliveries (tenant, seq);
CREATE INDEX deliveries_of_state ON deliveries (tenant, state, seq);
CREATE INDEX deliveries_of_type ON deliveries (tenant, event_type, seq);
CREATE INDEX deliveries_of_webhook ON deliveries (webhook, seq);
CREATE INDEX deliveries_of_event ON deliveries (event);
CREATE INDEX deliveries_held ON deliveries (webhook, seq) WHERE held = 1;
CREATE INDEX deliveries_held_of_tenant ON deliveries (tenant, seq) WHERE held = 1;

-- The books count these rows. `owed` = 0: somebody reported it, nobody has said yet that it is owed. `attempts` is what
-- its end says, `logged` how many attempts of different numbers arrived. `repeats` is how often its messages were handed
-- out without being settled, as far as that was told: so many more requests may have been made than `attempts` has rows.
CREATE TABLE series (
    delivery     TEXT    NOT NULL,
    series       INTEGER NOT NULL,
    owed         INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    held         INTEGER NOT NULL,
    held_attempt INTEGER NOT NULL,
    held_at      INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    attempts     INTEGER NOT NULL,
    logged       INTEGER NOT NULL,
    repeats      INTEGER NOT NULL DEFAULT 0,
    next_at      INTEGER,
    born_at      INTEGER NOT NULL,
    ended_at     INTEGER,
    seen_at      INTEGER NOT NULL,
    PRIMARY KEY (delivery, series)
) STRICT;
CREATE INDEX series_books ON series (owed, state, held);
CREATE INDEX series_unowed ON series (seen_at) WHERE owed = 0;
CREATE INDEX series_short ON series (attempts, logged) WHERE logged < attempts;

-- One row for each request. Copies of a delivery, and a request that was repeated at once over a new connection, have
-- the same number and rows of their own.
CREATE TABLE attempts (
    delivery         TEXT    NOT NULL,
    series           INTEGER NOT NULL,
    n                INTEGER NOT NULL,
    at               INTEGER NOT NULL,
    duration_ms      INTEGER NOT NULL,
    url              TEXT    NOT NULL,
    class            TEXT    NOT NULL,
    status           INTEGER,
    error            TEXT,
    response_body    TEXT,
    response_headers TEXT    NOT NULL,
    next_at          INTEGER,
    worker           TEXT    NOT NULL,
    repeats          INTEGER NOT NULL,
    PRIMARY KEY (delivery, series, n, at, worker)
) STRICT;

-- `delivery` is empty for a message that is no delivery.
CREATE TABLE dead_letters (
    seq          INTEGER NOT NULL PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    kind         TEXT    NOT NULL CHECK (kind IN ('dead', 'invalid', 'poison')),
    tenant       TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    detail       TEXT    NOT NULL,
    class        TEXT    NOT NULL,
    delivery     TEXT    NOT NULL,
    series       INTEGER NOT NULL,
    webhook      TEXT    NOT NULL,
    event_id     TEXT    NOT NULL,
    event_type   TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    body         BLOB,
    at           INTEGER NOT NULL,
    resolved_at  INTEGER,
    resolution   TEXT    NOT NULL
) STRICT;
CREATE INDEX dead_letters_of_tenant ON dead_letters (tenant, seq);
CREATE INDEX dead_letters_of_kind ON dead_letters (tenant, kind, seq);
CREATE INDEX dead_letters_open ON dead_letters (delivery) WHERE resolved_at IS NULL;

-- Which facts of each writer arrived, as ranges from `first` up to and without `past`, merged where they touch.
CREATE TABLE writers (
    writer  TEXT    NOT NULL,
    first   INTEGER NOT NULL,
    past    INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (writer, first)
) STRICT;

-- How many duplicates of events each writer has met.
CREATE TABLE duplicates (
    writer TEXT    NOT NULL PRIMARY KEY,
    n      INTEGER NOT NULL
) STRICT;

-- Answers to requests with an Idempotency-Key, sealed.
CREATE TABLE idempotency (
    key        TEXT    NOT NULL PRIMARY KEY,
    request    TEXT    NOT NULL,
    answer     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX idempotency_age ON idempotency (created_at);
