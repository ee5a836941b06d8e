-- Rows as version 1 of the schema wrote them. Never edited: a released version's data must load for ever.
INSERT INTO settings VALUES ('instance_id', 'i1');
INSERT INTO tenants (tenant_id, name, created_at, revision, incarnation_floor, last_subscription, chosen_subscriptions)
VALUES ('a', 'Apples', 1767225600000, 7, 2, 9, 1);
INSERT INTO agents (tenant_id, agent_id, agent_type, name, description, version, location, capabilities, endpoint, agent_groups, metadata, search_text, credential, incarnation, registered_at, updated_at, revision)
VALUES ('a', 'w1', 'worker', 'Worker', 'hashes', '1.2.3', 'berlin', '[{"name":"files.hash","version":"2.0.0"}]', '', '["blue"]', '{"gpu":"no"}', 'w1
worker
hashes', 'key:k1', 3, 1767225600000, 1767225600001, 7);
INSERT INTO agent_capabilities VALUES ('a', 'files.hash', 'w1');
INSERT INTO agent_metadata VALUES ('a', 'gpu', 'no', 'w1');
INSERT INTO kept_inboxes VALUES ('a', 'w0', 'key:k0');
INSERT INTO subscriptions VALUES
('a', 7, '$inbox.w1', 0, '["$acb.inbox.w1","$acb.all"]', 30000, '[1000,5000]', 5, 'keep', 65536, 'new', 0, 'w1', 1767225600000, 1),
('a', 8, '$reply.w1', 0, '["$acb.reply.w1"]', 30000, '[1000,5000]', 5, 'keep', 65536, 'new', 0, 'w1', 1767225600000, 1),
('a', 9, 'work', 1, '["plans.*"]', 30000, '[1000]', 3, 'drop', 10, 'sequence', 42, 'w1', 1767225600000, 0);
