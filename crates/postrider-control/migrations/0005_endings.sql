-- How a webhook does, by attempts: `failed_attempts` since the last success, `moments` of them that are apart, the newest of
-- these at `moment_at`. `told` and `told_window` are shares of the two thresholds, percent, of which the tenant has been told.
ALTER TABLE webhook_health ADD COLUMN failed_attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE webhook_health ADD COLUMN moments INTEGER NOT NULL DEFAULT 0;
ALTER TABLE webhook_health ADD COLUMN moment_at INTEGER;
ALTER TABLE webhook_health ADD COLUMN told_window INTEGER NOT NULL DEFAULT 0;
UPDATE webhook_health SET told = 50 WHERE told = 1;
CREATE INDEX webhook_health_failing ON webhook_health (webhook) WHERE failing_since IS NOT NULL;

-- The webhook that an event is not sent to, although it takes it; empty for none.
ALTER TABLE outbox ADD COLUMN except_webhook TEXT NOT NULL DEFAULT '';

-- Somebody asked for it: it says nothing of how its webhook does.
ALTER TABLE series ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
-- When it was last sent on after it was held: from then on its age counts, also for what is called off by age.
ALTER TABLE series ADD COLUMN released_at INTEGER;

-- What is on its way, by what it can be called off by; and what a disabled webhook missed.
CREATE INDEX deliveries_pending ON deliveries (tenant, webhook, event_type) WHERE state = 'pending';
CREATE INDEX deliveries_skipped ON deliveries (webhook, reason, updated_at) WHERE state = 'skipped';

-- What was called off. `record` is what goes to the config stream, JSON; nothing where it is only about what is held, of
-- which no message is on its way. `webhook` and `event_type` are empty where they do not matter, `series` is that of one
-- delivery. `open` is 1 while series that are held are still to be ended.
CREATE TABLE cancellations (
    seq         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,
    tenant      TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    record      TEXT,
    delivery    TEXT    NOT NULL,
    series      INTEGER NOT NULL,
    webhook     TEXT    NOT NULL,
    event_type  TEXT    NOT NULL,
    born_since  INTEGER NOT NULL,
    born_before INTEGER NOT NULL,
    pending     INTEGER NOT NULL,
    held        INTEGER NOT NULL,
    open        INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX cancellations_of_tenant ON cancellations (tenant, seq);
CREATE INDEX cancellations_of_delivery ON cancellations (delivery, series) WHERE delivery > '';
CREATE INDEX cancellations_matching ON cancellations (tenant, webhook, event_type, born_before)
    WHERE delivery = '' AND record IS NOT NULL;
CREATE INDEX cancellations_open ON cancellations (seq) WHERE open = 1;
CREATE INDEX cancellations_age ON cancellations (created_at);
