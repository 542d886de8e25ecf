-- Rows lie in the order of the webhooks, and not in that of their first delivery with an index beside them: noting a success
-- touches one page where it touched two.
CREATE TABLE health_in_order (
    webhook         TEXT    NOT NULL PRIMARY KEY,
    in_a_row        INTEGER NOT NULL,
    told            INTEGER NOT NULL,
    failing_since   INTEGER,
    last_failure_at INTEGER,
    last_success_at INTEGER,
    counted_from    INTEGER,
    failed_attempts INTEGER NOT NULL DEFAULT 0,
    moments         INTEGER NOT NULL DEFAULT 0,
    moment_at       INTEGER,
    told_window     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO health_in_order
    SELECT webhook, in_a_row, told, failing_since, last_failure_at, last_success_at, counted_from, failed_attempts, moments,
    moment_at, told_window FROM webhook_health ORDER BY webhook;
DROP TABLE webhook_health;
ALTER TABLE health_in_order RENAME TO webhook_health;
CREATE INDEX webhook_health_failing ON webhook_health (webhook) WHERE failing_since IS NOT NULL;
