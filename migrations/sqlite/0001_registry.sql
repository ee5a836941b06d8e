-- Tenants, agents and subscriptions.
-- Times are milliseconds since 1970, 0 means not set. Names compare bytewise.

CREATE TABLE settings (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    tenant_id            TEXT    NOT NULL PRIMARY KEY,
    name                 TEXT    NOT NULL,
    created_at           INTEGER NOT NULL,
    -- Raised by one with every change of an agent.
    revision             INTEGER NOT NULL DEFAULT 0,
    -- Incarnations up to this may have been given to agents that are gone.
    incarnation_floor    INTEGER NOT NULL DEFAULT 0,
    -- The last subscription number that was given.
    last_subscription    INTEGER NOT NULL DEFAULT 0,
    -- Subscriptions that users made, for the limit.
    chosen_subscriptions INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE agents (
    tenant_id     TEXT    NOT NULL REFERENCES tenants (tenant_id),
    agent_id      TEXT    NOT NULL,
    agent_type    TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    description   TEXT    NOT NULL,
    -- Empty when it has none.
    version       TEXT    NOT NULL,
    location      TEXT    NOT NULL,
    -- JSON: what is shown. The tables below hold what is searched.
    capabilities  TEXT    NOT NULL,
    endpoint      TEXT    NOT NULL,
    agent_groups  TEXT    NOT NULL,
    metadata      TEXT    NOT NULL,
    -- Id, name and description in lower case.
    search_text   TEXT    NOT NULL,
    credential    TEXT    NOT NULL,
    incarnation   INTEGER NOT NULL,
    registered_at INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    revision      INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, agent_id)
) STRICT;

CREATE INDEX agents_by_type ON agents (tenant_id, agent_type, agent_id);
CREATE INDEX agents_by_location ON agents (tenant_id, location, agent_id);

CREATE TABLE agent_capabilities (
    tenant_id  TEXT NOT NULL,
    capability TEXT NOT NULL,
    agent_id   TEXT NOT NULL,
    PRIMARY KEY (tenant_id, capability, agent_id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, agent_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX agent_capabilities_by_agent ON agent_capabilities (tenant_id, agent_id);

CREATE TABLE agent_metadata (
    tenant_id TEXT NOT NULL,
    key       TEXT NOT NULL,
    value     TEXT NOT NULL,
    agent_id  TEXT NOT NULL,
    PRIMARY KEY (tenant_id, key, value, agent_id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, agent_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX agent_metadata_by_agent ON agent_metadata (tenant_id, agent_id);

-- Agents that left and whose inbox waits for the same credential.
CREATE TABLE kept_inboxes (
    tenant_id  TEXT NOT NULL REFERENCES tenants (tenant_id),
    agent_id   TEXT NOT NULL,
    credential TEXT NOT NULL,
    PRIMARY KEY (tenant_id, agent_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriptions (
    tenant_id       TEXT    NOT NULL REFERENCES tenants (tenant_id),
    subscription_id INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    class           INTEGER NOT NULL,
    -- JSON list.
    filters         TEXT    NOT NULL,
    ack_wait_ms     INTEGER NOT NULL,
    -- JSON list of milliseconds.
    retry_schedule  TEXT    NOT NULL,
    max_attempts    INTEGER NOT NULL,
    -- 'keep' or 'drop'.
    dead_letters    TEXT    NOT NULL,
    max_leased      INTEGER NOT NULL,
    -- 'new', 'all', 'sequence' or 'time'; the value belongs to the last two.
    start_at        TEXT    NOT NULL,
    start_value     INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    -- 1 when the bus made it with an agent's registration.
    implicit        INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, subscription_id),
    UNIQUE (tenant_id, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX subscriptions_by_owner ON subscriptions (tenant_id, created_by) WHERE implicit = 1;
