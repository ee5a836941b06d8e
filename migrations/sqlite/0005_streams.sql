-- Uploads and their chunks.

CREATE TABLE uploads (
    tenant_id      TEXT    NOT NULL REFERENCES tenants (tenant_id),
    -- 16 bytes, chosen by the client.
    stream_id      BLOB    NOT NULL,
    owner          TEXT    NOT NULL,
    context_id     BLOB    NOT NULL,
    -- JSON: what the context is to be or what changes of it.
    target         TEXT    NOT NULL,
    chunk_bytes    INTEGER NOT NULL,
    -- -1 while it is not known.
    total_bytes    INTEGER NOT NULL,
    -- 'open', 'completing', 'complete', 'aborted' or 'expired'.
    state          TEXT    NOT NULL,
    -- Raised by one with every opening.
    session        INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL,
    -- Of the whole; NULL before its completion began.
    sha256         BLOB,
    -- Revision of the context; 0 before it is there.
    rev            INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, stream_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX uploads_unfinished ON uploads (tenant_id) WHERE state IN ('open', 'completing');

-- A row is younger than its bytes are on the disk.
CREATE TABLE upload_chunks (
    tenant_id   TEXT    NOT NULL,
    stream_id   BLOB    NOT NULL,
    chunk_index INTEGER NOT NULL,
    sha256      BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, stream_id, chunk_index),
    FOREIGN KEY (tenant_id, stream_id) REFERENCES uploads (tenant_id, stream_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX upload_chunks_by_digest ON upload_chunks (tenant_id, sha256);
