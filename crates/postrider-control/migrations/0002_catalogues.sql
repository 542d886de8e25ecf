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

-- Every name and alias: each is there once within a tenant.
CREATE TABLE spellings (
    tenant     TEXT NOT NULL,
    spelling   TEXT NOT NULL,
    event_type TEXT NOT NULL,
    product    TEXT NOT NULL,
    PRIMARY KEY (tenant, spelling)
) STRICT;
CREATE INDEX spellings_of_catalogue ON spellings (tenant, product);

-- What webhooks ask for: `kind` is `type` (as the webhook spells it), `group`, `category` or `all` (with an empty name).
CREATE TABLE subscriptions (
    tenant  TEXT NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('type', 'group', 'category', 'all')),
    name    TEXT NOT NULL,
    webhook TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name, webhook)
) STRICT;
CREATE INDEX subscriptions_of_webhook ON subscriptions (webhook);
