-- Rows that version 3 of the schema added. Never edited. The digest is SHA-256 as `AuditRow::digest_of` has it.
INSERT INTO audit VALUES ('a', 1, 1767225600000, 'n1', 'planner', 'agent.register', 'planner', 'ok', '', 'r1', zeroblob(32), x'b7bfd39dc809d87a9ef3c0faa07729d49a6bc19a3e0a946aa16fcc07043dcc51');
