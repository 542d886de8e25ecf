-- Keys of the API. `hash` is the SHA-256 of the key, which is nowhere else; `scopes` are words with spaces between them. `tenant`
-- is empty for a key that is for every tenant, and then the scope `admin` is one of its scopes.
CREATE TABLE api_keys (
    seq          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    hash         BLOB    NOT NULL UNIQUE,
    tenant       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    scopes       TEXT    NOT NULL,
    hint         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) STRICT;
CREATE INDEX api_keys_of_tenant ON api_keys (tenant, seq);
CREATE INDEX api_keys_not_revoked ON api_keys (tenant) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_over ON api_keys (COALESCE(revoked_at, expires_at))
    WHERE COALESCE(revoked_at, expires_at) IS NOT NULL;

-- Who changed what: one row for each request that changed something, written with the change. `actor` is `admin token` or the
-- id of a key, `actor_name` what the key was called; `tenant` is empty where the change belongs to none. `changes` is JSON,
-- without secrets.
CREATE TABLE audit (
    seq          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    tenant       TEXT    NOT NULL,
    actor        TEXT    NOT NULL,
    actor_name   TEXT    NOT NULL,
    operation    TEXT    NOT NULL,
    subject_kind TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    changes      TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_of_tenant ON audit (tenant, at);
CREATE INDEX audit_of_subject ON audit (subject, at);
