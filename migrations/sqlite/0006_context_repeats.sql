-- Updates whose revision is no longer kept and whose key still is: who repeats one late, after many writes of others, is
-- answered as the first time. Without payload. They go with the tenant's changes.
CREATE TABLE context_repeats (
    tenant_id   TEXT    NOT NULL,
    context_id  BLOB    NOT NULL,
    repeat_key  TEXT    NOT NULL,
    updated_by  TEXT    NOT NULL,
    repeat_body BLOB    NOT NULL,
    rev         INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    spec        TEXT    NOT NULL,
    access_rev  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    sha256      BLOB    NOT NULL,
    is_blob     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, context_id, repeat_key, updated_by),
    FOREIGN KEY (tenant_id, context_id) REFERENCES contexts (tenant_id, context_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX context_repeats_by_rev ON context_repeats (tenant_id, rev);
