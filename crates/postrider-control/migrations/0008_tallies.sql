-- Series and attempts name their delivery by its number and not by its id. Ids are as good as random: each new row went to a
-- page of its own, which had to be written with it. Numbers come in order.
CREATE TABLE numbered_series (
    delivery     INTEGER NOT NULL,
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
    asked        INTEGER NOT NULL DEFAULT 0,
    released_at  INTEGER,
    replay       INTEGER,
    PRIMARY KEY (delivery, series)
) STRICT, WITHOUT ROWID;
INSERT INTO numbered_series
    SELECT d.seq, s.series, s.owed, s.state, s.held, s.held_attempt, s.held_at, s.reason, s.attempts, s.logged, s.repeats,
    s.next_at, s.born_at, s.ended_at, s.seen_at, s.asked, s.released_at, s.replay
    FROM series s JOIN deliveries d ON d.id = s.delivery ORDER BY d.seq, s.series;
DROP TABLE series;
ALTER TABLE numbered_series RENAME TO series;
CREATE INDEX series_unowed ON series (seen_at) WHERE owed = 0;
CREATE INDEX series_short ON series (attempts, logged) WHERE logged < attempts;
CREATE INDEX series_of_replay ON series (replay, state) WHERE replay IS NOT NULL;
-- What waits for its next attempt, by when it is due: a first attempt when its series began.
CREATE INDEX series_due ON series (COALESCE(next_at, born_at)) WHERE ended_at IS NULL AND held = 0 AND owed <> 0;

CREATE TABLE numbered_attempts (
    delivery         INTEGER NOT NULL,
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
INSERT INTO numbered_attempts
    SELECT d.seq, a.series, a.n, a.at, a.duration_ms, a.url, a.class, a.status, a.error, a.response_body, a.response_headers,
    a.next_at, a.worker, a.repeats
    FROM attempts a JOIN deliveries d ON d.id = a.delivery ORDER BY d.seq, a.series, a.n;
DROP TABLE attempts;
ALTER TABLE numbered_attempts RENAME TO attempts;

-- How many rows of each kind there are, kept with every change of them: the books are read without counting rows, however
-- many there are. `postrider verify` counts them.
CREATE TABLE tallies (
    what TEXT    NOT NULL,
    kind TEXT    NOT NULL,
    n    INTEGER NOT NULL,
    PRIMARY KEY (what, kind)
) STRICT, WITHOUT ROWID;
DROP INDEX events_by_fate;
DROP INDEX dead_letters_open_of_kind;

-- Lists are read backwards along an index that ends with the time, so that a time to begin or end at is a place in it. Each index
-- is written with every row: what nearly all rows have in common is in none.
DROP INDEX events_of_tenant;
DROP INDEX events_of_fate;
DROP INDEX events_of_type;
CREATE INDEX events_of_type ON events (tenant, event_type, accepted_at);
CREATE INDEX events_in_fate ON events (tenant, fate, accepted_at) WHERE fate <> 'routed';
DROP INDEX deliveries_of_tenant;
DROP INDEX deliveries_of_state;
DROP INDEX deliveries_of_type;
DROP INDEX deliveries_of_webhook;
DROP INDEX deliveries_held;
DROP INDEX deliveries_held_of_tenant;
CREATE INDEX deliveries_of_tenant ON deliveries (tenant, created_at);
CREATE INDEX deliveries_of_type ON deliveries (tenant, event_type, created_at);
CREATE INDEX deliveries_of_webhook ON deliveries (webhook, created_at);
CREATE INDEX deliveries_in_state ON deliveries (tenant, state, created_at) WHERE state <> 'delivered';
CREATE INDEX deliveries_of_webhook_in_state ON deliveries (webhook, state, created_at) WHERE state <> 'delivered';
CREATE INDEX deliveries_held ON deliveries (webhook, created_at) WHERE held = 1;
CREATE INDEX deliveries_held_of_tenant ON deliveries (tenant, created_at) WHERE held = 1;
DROP INDEX dead_letters_of_tenant;
DROP INDEX dead_letters_of_kind;
CREATE INDEX dead_letters_of_tenant ON dead_letters (tenant, at);
CREATE INDEX dead_letters_of_kind ON dead_letters (tenant, kind, at);
CREATE INDEX dead_letters_unresolved ON dead_letters (tenant, at) WHERE resolved_at IS NULL;

-- Events by what became of them, and what they owe.
INSERT INTO tallies SELECT 'events', fate, COUNT(*) FROM events GROUP BY fate;
INSERT INTO tallies SELECT 'owed', '', COALESCE(SUM(owed), 0) FROM events;
CREATE TRIGGER events_more AFTER INSERT ON events BEGIN
    INSERT INTO tallies VALUES ('events', NEW.fate, 1) ON CONFLICT DO UPDATE SET n = n + 1;
    UPDATE tallies SET n = n + NEW.owed WHERE what = 'owed' AND kind = '';
END;
CREATE TRIGGER events_less AFTER DELETE ON events BEGIN
    UPDATE tallies SET n = n - 1 WHERE what = 'events' AND kind = OLD.fate;
    UPDATE tallies SET n = n - OLD.owed WHERE what = 'owed' AND kind = '';
END;
CREATE TRIGGER events_otherwise AFTER UPDATE OF fate ON events WHEN NEW.fate <> OLD.fate BEGIN
    UPDATE tallies SET n = n - 1 WHERE what = 'events' AND kind = OLD.fate;
    INSERT INTO tallies VALUES ('events', NEW.fate, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER events_owe AFTER UPDATE OF owed ON events WHEN NEW.owed <> OLD.owed BEGIN
    UPDATE tallies SET n = n + NEW.owed - OLD.owed WHERE what = 'owed' AND kind = '';
END;

-- Series that are owed, by their state, or `held`.
INSERT INTO tallies SELECT 'series', CASE WHEN state = 'pending' AND held THEN 'held' ELSE state END, COUNT(*)
    FROM series WHERE owed = 1 GROUP BY 2;
CREATE TRIGGER series_more AFTER INSERT ON series WHEN NEW.owed = 1 BEGIN
    INSERT INTO tallies VALUES ('series', CASE WHEN NEW.state = 'pending' AND NEW.held THEN 'held' ELSE NEW.state END, 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER series_less AFTER DELETE ON series WHEN OLD.owed = 1 BEGIN
    UPDATE tallies SET n = n - 1
    WHERE what = 'series' AND kind = CASE WHEN OLD.state = 'pending' AND OLD.held THEN 'held' ELSE OLD.state END;
END;
CREATE TRIGGER series_otherwise AFTER UPDATE OF owed, state, held ON series
WHEN NEW.state <> OLD.state OR NEW.held <> OLD.held OR NEW.owed <> OLD.owed BEGIN
    UPDATE tallies SET n = n - 1 WHERE OLD.owed = 1
    AND what = 'series' AND kind = CASE WHEN OLD.state = 'pending' AND OLD.held THEN 'held' ELSE OLD.state END;
    INSERT INTO tallies SELECT 'series', CASE WHEN NEW.state = 'pending' AND NEW.held THEN 'held' ELSE NEW.state END, 1
    WHERE NEW.owed = 1 ON CONFLICT DO UPDATE SET n = n + 1;
END;

-- Dead letters that nobody has resolved: by kind, and of deliveries.
INSERT INTO tallies SELECT 'letters', kind, COUNT(*) FROM dead_letters WHERE resolved_at IS NULL GROUP BY kind;
INSERT INTO tallies
    SELECT 'lettered', '', COUNT(*) FROM dead_letters WHERE resolved_at IS NULL AND delivery <> '';
CREATE TRIGGER dead_letters_more AFTER INSERT ON dead_letters WHEN NEW.resolved_at IS NULL BEGIN
    INSERT INTO tallies VALUES ('letters', NEW.kind, 1) ON CONFLICT DO UPDATE SET n = n + 1;
    UPDATE tallies SET n = n + (NEW.delivery <> '') WHERE what = 'lettered' AND kind = '';
END;
CREATE TRIGGER dead_letters_less AFTER DELETE ON dead_letters WHEN OLD.resolved_at IS NULL BEGIN
    UPDATE tallies SET n = n - 1 WHERE what = 'letters' AND kind = OLD.kind;
    UPDATE tallies SET n = n - (OLD.delivery <> '') WHERE what = 'lettered' AND kind = '';
END;
CREATE TRIGGER dead_letters_resolved AFTER UPDATE OF resolved_at ON dead_letters
WHEN (NEW.resolved_at IS NULL) <> (OLD.resolved_at IS NULL) BEGIN
    UPDATE tallies SET n = n + CASE WHEN NEW.resolved_at IS NULL THEN 1 ELSE -1 END
    WHERE what = 'letters' AND kind = OLD.kind;
    UPDATE tallies SET n = n + CASE WHEN NEW.resolved_at IS NULL THEN 1 ELSE -1 END * (OLD.delivery <> '')
    WHERE what = 'lettered' AND kind = '';
END;
