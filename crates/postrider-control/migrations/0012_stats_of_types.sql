-- How many events of a type of its catalogues a tenant accepted, by ten minutes and the hour. What was accepted before this step is
-- not counted.
CREATE TABLE stats_of_types (
    step_ms    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    tenant     TEXT    NOT NULL,
    event_type TEXT    NOT NULL,
    accepted   INTEGER NOT NULL,
    PRIMARY KEY (step_ms, at, tenant, event_type)
) STRICT, WITHOUT ROWID;
