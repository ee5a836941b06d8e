-- Rows that version 2 of the schema added. Never edited.
INSERT INTO enrolment_keys VALUES ('a', 'k1', zeroblob(32), 'team', 'w*', '["agent-full"]', 1767225600000, 0, 0);
INSERT INTO agent_secrets VALUES ('a', 'w1', '$argon2id$…', '["agent-full"]', 2, 1767225600000);
INSERT INTO signing_keys VALUES ('s1', x'0102', 1767225600000, 0);
INSERT INTO token_families VALUES
('a', 'f1', 'w1', 'key:k1', '["agent-full"]', 1, zeroblob(32), 1767225600000, 1767830400000, 0),
('a', 'f2', 'w1', 'key:k1', '["agent-full"]', 0, zeroblob(32), 1767225600000, 1767830400000, 1767225600005);
INSERT INTO token_family_hashes VALUES ('a', 'f1', 0, zeroblob(32));
