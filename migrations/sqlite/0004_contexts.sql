-- Contexts with their history, groups of agents, and what changed at which revision.
-- Ids of contexts are 16 bytes. States: 0 there, 1 deleted, 2 expired. Scopes: 0 private, 1 shared, 2 group, 3 public.

-- Contexts that are there, for the limit.
ALTER TABLE tenants ADD COLUMN live_contexts INTEGER NOT NULL DEFAULT 0;
-- Groups, for the limit.
ALTER TABLE tenants ADD COLUMN group_count INTEGER NOT NULL DEFAULT 0;
-- Changes up to this revision are not kept.
ALTER TABLE tenants ADD COLUMN changes_trimmed INTEGER NOT NULL DEFAULT 0;
UPDATE tenants SET changes_trimmed = revision;

-- One row for each revision: what it was a change of.
CREATE TABLE changes (
    tenant_id TEXT    NOT NULL REFERENCES tenants (tenant_id),
    revision  INTEGER NOT NULL,
    -- 1 agent, 2 context, 3 group.
    kind      INTEGER NOT NULL,
    -- Id or name of what changed.
    subject   BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, revision)
) STRICT, WITHOUT ROWID;

-- What is looked for, of the newest revision of each context; markers too.
CREATE TABLE contexts (
    tenant_id    TEXT    NOT NULL REFERENCES tenants (tenant_id),
    context_id   BLOB    NOT NULL,
    -- Empty when it has none.
    context_key  TEXT    NOT NULL,
    context_type TEXT    NOT NULL,
    owner        TEXT    NOT NULL,
    -- Digest of what asked for it.
    fingerprint  BLOB    NOT NULL,
    rev          INTEGER NOT NULL,
    created_rev  INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    state        INTEGER NOT NULL,
    scope        INTEGER NOT NULL,
    -- 0 when it has no end.
    expires_at   INTEGER NOT NULL,
    -- When its marker was set; 0 while it is there.
    ended_at     INTEGER NOT NULL,
    -- Key, type and description in lower case.
    search_text  TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, context_id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX contexts_by_key ON contexts (tenant_id, context_key) WHERE state = 0 AND context_key <> '';
CREATE INDEX contexts_by_key_then ON contexts (tenant_id, context_key, created_rev) WHERE context_key <> '';
CREATE INDEX contexts_by_type ON contexts (tenant_id, context_type, context_id);
CREATE INDEX contexts_by_owner ON contexts (tenant_id, owner, context_id);
CREATE INDEX contexts_by_end ON contexts (tenant_id, expires_at) WHERE state = 0 AND expires_at > 0;
CREATE INDEX contexts_by_marker ON contexts (tenant_id, ended_at) WHERE state <> 0;

-- Each revision that is kept, whole. Has a rowid: rows with payloads are long.
CREATE TABLE context_revisions (
    tenant_id   TEXT    NOT NULL,
    context_id  BLOB    NOT NULL,
    rev         INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    -- JSON: what was said of it, but key and type.
    spec        TEXT    NOT NULL,
    access_rev  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    updated_by  TEXT    NOT NULL,
    -- The writer's key against doubles; empty when none was given.
    repeat_key  TEXT    NOT NULL,
    -- Digest of what it asked for; empty without a key.
    repeat_body BLOB    NOT NULL,
    size        INTEGER NOT NULL,
    sha256      BLOB    NOT NULL,
    -- 1 when the payload is a blob; then the column below is empty.
    is_blob     INTEGER NOT NULL,
    payload     BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, context_id, rev),
    FOREIGN KEY (tenant_id, context_id) REFERENCES contexts (tenant_id, context_id) ON DELETE CASCADE
) STRICT;

CREATE INDEX context_revisions_by_repeat ON context_revisions (tenant_id, context_id, repeat_key) WHERE repeat_key <> '';
CREATE INDEX context_revisions_by_blob ON context_revisions (tenant_id, sha256) WHERE is_blob = 1;

-- What is searched of contexts that are there.
CREATE TABLE context_labels (
    tenant_id  TEXT NOT NULL,
    label      TEXT NOT NULL,
    context_id BLOB NOT NULL,
    PRIMARY KEY (tenant_id, label, context_id),
    FOREIGN KEY (tenant_id, context_id) REFERENCES contexts (tenant_id, context_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX context_labels_by_context ON context_labels (tenant_id, context_id);

-- Whom contexts of the scopes shared and group are for: agents as `a:id`, groups as `g:name`.
CREATE TABLE context_audience (
    tenant_id  TEXT NOT NULL,
    context_id BLOB NOT NULL,
    audience   TEXT NOT NULL,
    PRIMARY KEY (tenant_id, context_id, audience),
    FOREIGN KEY (tenant_id, context_id) REFERENCES contexts (tenant_id, context_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE member_groups (
    tenant_id   TEXT    NOT NULL REFERENCES tenants (tenant_id),
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    members     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    created_by  TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE group_members (
    tenant_id TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    agent_id  TEXT    NOT NULL,
    since     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name, agent_id),
    FOREIGN KEY (tenant_id, name) REFERENCES member_groups (tenant_id, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX group_members_by_agent ON group_members (tenant_id, agent_id, name);

-- Who came into a group or left it at which revision; kept as long as the change.
CREATE TABLE member_moves (
    tenant_id TEXT    NOT NULL,
    revision  INTEGER NOT NULL,
    agent_id  TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    -- 1 when it came, 0 when it left.
    joined    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, revision, agent_id),
    FOREIGN KEY (tenant_id, revision) REFERENCES changes (tenant_id, revision) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX member_moves_by_agent ON member_moves (tenant_id, agent_id, revision);
