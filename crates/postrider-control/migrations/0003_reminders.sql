-- Tenants and event types that have reminders; `pending` counts them.
CREATE TABLE reminder_groups (
    id         INTEGER NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    event_type TEXT    NOT NULL,
    pending    INTEGER NOT NULL,
    UNIQUE (tenant, event_type)
) STRICT;

-- `date` is a calendar day where the tenant is, days since 1970-01-01. When that is due follows from the settings of the
-- moment and is not kept: what pending reminders cost is the index of their dates.
CREATE TABLE reminders (
    seq             INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tenant          TEXT    NOT NULL,
    key             TEXT    NOT NULL,
    grp             INTEGER NOT NULL,
    date            INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'sent', 'cancelled')),
    data            TEXT,
    current_context TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    sent_at         INTEGER,
    UNIQUE (tenant, key)
) STRICT;
CREATE INDEX reminders_due ON reminders (grp, date) WHERE state = 'pending';
CREATE INDEX reminders_over ON reminders (grp, state, date) WHERE state <> 'pending';
CREATE INDEX reminders_of_tenant ON reminders (tenant, date);

-- What was sent: each key and date once, for ever, whatever becomes of the reminder.
CREATE TABLE reminders_sent (
    tenant  TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    date    INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, key, date)
) STRICT, WITHOUT ROWID;
