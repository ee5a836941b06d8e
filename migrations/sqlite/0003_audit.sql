-- Security-relevant acts, each row chained to the one before it.

CREATE TABLE audit (
    tenant_id  TEXT    NOT NULL REFERENCES tenants (tenant_id),
    -- From 1 without holes.
    audit_id   INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    node       TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    details    TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    previous   BLOB    NOT NULL,
    digest     BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, audit_id)
) STRICT;
