-- What a tenant decided: JSON, members that are missing have their defaults.
ALTER TABLE tenants ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';

-- `record` is the catalogue as it was given, JSON; nothing when it was removed.
CREATE TABLE catalogues (
    tenant     TEXT    NOT NULL REFERENCES tenants (id),
    product    TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    record     TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    PRIMARY KEY (tenant, product)
) STRICT;

-- The event types of all catalogues, for lookups: made anew whenever a catalogue is put. `entry` is the type's part of the
-- catalogue, JSON; `words` is what a search looks into, in lower case; `position` is its place in the catalogue.
CREATE TABLE event_types (
    tenant   TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    product  TEXT    NOT NULL,
    category TEXT    NOT NULL,
    grp      TEXT    NOT NULL,
    position INTEGER NOT NULL,
    words    TEXT    NOT NULL,
    entry    TEXT    NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;
CREATE INDEX event_types_in_order ON event_types (tenant, product, position);
CREATE INDEX event_types_of_category ON event_types (tenant, category);
CREATE INDEX event_types_of_group ON event_types (tenant, grp);

-- What catalogues define and webhooks name, each once within a tenant. `kind` is `type` (names and aliases; `means` is the
-- name), `group` (`means` is its category), `category` or `profile` (`means` is the same word).
CREATE TABLE terms (
    tenant  TEXT NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('type', 'group', 'category', 'profile')),
    name    TEXT NOT NULL,
    means   TEXT NOT NULL,
    product TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name)
) STRICT;
CREATE INDEX terms_of_catalogue ON terms (tenant, product);

-- What webhooks ask for: `kind` is `type` (as the webhook spells it), `group`, `category` or `all` (with an empty name).
CREATE TABLE subscriptions (
    tenant  TEXT NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('type', 'group', 'category', 'all')),
    name    TEXT NOT NULL,
    webhook TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name, webhook)
) STRICT;
CREATE INDEX subscriptions_of_webhook ON subscriptions (webhook);

-- What lists of webhooks are filtered by, and what people see beside the record. `disabled_reason` is one word of a closed
-- list, empty while it is not disabled.
ALTER TABLE webhooks ADD COLUMN url TEXT NOT NULL DEFAULT '';
ALTER TABLE webhooks ADD COLUMN profile TEXT NOT NULL DEFAULT '';
ALTER TABLE webhooks ADD COLUMN disabled_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE webhooks ADD COLUMN disabled_at INTEGER;
ALTER TABLE webhooks ADD COLUMN rotated_at INTEGER;
CREATE INDEX webhooks_of_profile ON webhooks (tenant, profile, state) WHERE deleted_at IS NULL;

UPDATE webhooks SET url = json_extract(record, '$.url'), profile = json_extract(record, '$.profile')
    WHERE record IS NOT NULL;
INSERT INTO subscriptions (tenant, kind, name, webhook)
    SELECT tenant, 'all', '', id FROM webhooks WHERE record IS NOT NULL AND json_extract(record, '$.all');
INSERT INTO subscriptions (tenant, kind, name, webhook)
    SELECT w.tenant, 'type', named.value, w.id FROM webhooks w, json_each(w.record, '$.event_types') named
    WHERE w.record IS NOT NULL;
