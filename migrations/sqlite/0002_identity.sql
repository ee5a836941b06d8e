-- What callers prove themselves with. Keys and refresh tokens are kept as SHA-256 digests, secrets as argon2id strings.

CREATE TABLE enrolment_keys (
    tenant_id     TEXT    NOT NULL REFERENCES tenants (tenant_id),
    key_id        TEXT    NOT NULL,
    hash          BLOB    NOT NULL,
    label         TEXT    NOT NULL,
    agent_pattern TEXT    NOT NULL,
    -- JSON list.
    roles         TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    revoked_at    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE agent_secrets (
    tenant_id TEXT    NOT NULL REFERENCES tenants (tenant_id),
    agent_id  TEXT    NOT NULL,
    hash      TEXT    NOT NULL,
    -- JSON list.
    roles     TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    set_at    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, agent_id)
) STRICT, WITHOUT ROWID;

-- The server's own: they sign the tokens of all tenants.
CREATE TABLE signing_keys (
    key_id      TEXT    NOT NULL PRIMARY KEY,
    private_key BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    retired_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE token_families (
    tenant_id    TEXT    NOT NULL REFERENCES tenants (tenant_id),
    family_id    TEXT    NOT NULL,
    agent_id     TEXT    NOT NULL,
    credential   TEXT    NOT NULL,
    -- JSON list.
    roles        TEXT    NOT NULL,
    generation   INTEGER NOT NULL,
    -- SHA-256 of the refresh token that works.
    refresh_hash BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    revoked_at   INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, family_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX token_families_by_credential ON token_families (tenant_id, credential) WHERE revoked_at = 0;
CREATE INDEX token_families_revoked ON token_families (tenant_id, family_id) WHERE revoked_at > 0;
CREATE INDEX token_families_by_end ON token_families (tenant_id, expires_at);

-- Refresh tokens that worked once: a second use gives a thief away.
CREATE TABLE token_family_hashes (
    tenant_id  TEXT    NOT NULL,
    family_id  TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    hash       BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, family_id, generation),
    FOREIGN KEY (tenant_id, family_id) REFERENCES token_families (tenant_id, family_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
